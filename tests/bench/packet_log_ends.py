"""Both ends of the packet log's benchmark, each a process of its own: who sends, and who follows.

    packet_log_ends.py send ADDRESS PORT RATE COUNT
    packet_log_ends.py follow PORT NAME CA USER COUNT

Each says what it has done as a line of JSON; the follower says "ready" before.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

import grpc

from hostler.api.firewall.v1 import packet_log_pb2, packet_log_pb2_grpc

# Who has not heard of all by then says what it has heard of.
LEAST_RATE, GRACE_S = 5_000, 30.0


def send(address: str, port: int, rate: int, count: int) -> None:
    """Send so many packets, evenly."""
    sent = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.connect((address, port))
        start = time.monotonic()
        while sent < count:
            due = min(count, int((time.monotonic() - start) * rate))
            for _ in range(sent, due):
                s.send(b"a packet of the benchmark's")
            sent = due
            time.sleep(0.001)
        took_s = time.monotonic() - start
    say({"sent": sent, "seconds": took_s})


def follow(port: int, name: str, ca: Path, user: Path, count: int) -> None:
    """Follow the log over mTLS until so many packets have come or are known to be lost."""
    credentials = grpc.ssl_channel_credentials(
        ca.read_bytes(),
        user.with_suffix(".key").read_bytes(),
        user.with_suffix(".pem").read_bytes(),
    )
    options = [("grpc.ssl_target_name_override", name)]
    received = lost = messages = 0
    with grpc.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel:
        stub = packet_log_pb2_grpc.PacketLogServiceStub(channel)
        asked = packet_log_pb2.FollowPacketLogRequest(after_seq=-1)
        stream = stub.FollowPacketLog(asked, timeout=count / LEAST_RATE + GRACE_S)
        seq = next(stream).seq
        say("ready")
        with suppress(grpc.RpcError):
            for answer in stream:
                messages += 1
                received += len(answer.records)
                lost += answer.lost
                for record in answer.records:
                    if record.seq <= seq or record.rule != "bench/ours":
                        raise AssertionError(f"after {seq} comes {record}")
                    seq = record.seq
                if received + lost >= count:
                    break
        stream.cancel()
    say({"received": received, "lost": lost, "messages": messages})


def say(what: object) -> None:
    """Write a line."""
    sys.stdout.write(f"{what if isinstance(what, str) else json.dumps(what)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1] == "send":
        send(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
    else:
        _, _, at, called, root, who, upto = sys.argv
        follow(int(at), called, Path(root), Path(who), int(upto))
