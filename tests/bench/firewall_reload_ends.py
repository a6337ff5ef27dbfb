"""The traffic of the reload's benchmark: four programs, each an end of a flood or of a transfer.

    firewall_reload_ends.py hear PORT            takes datagrams, counts them and what is missing
    firewall_reload_ends.py flood ADDRESS PORT   sends numbered datagrams, evenly
    firewall_reload_ends.py take PORT            takes one connection's bytes
    firewall_reload_ends.py give ADDRESS PORT    sends bytes over a connection, evenly

Each says "ready", goes on until its standard input ends, and says as JSON what it has done.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import sys
import time

RATE = 10_000
CHUNK, CHUNK_S = bytes(50_000), 0.01
NUMBERED = struct.Struct("!QQ")  # Its number from 1 on, and when it was sent, in ns.
BUFFER_BYTES = 64 << 20
QUIET_S = 1.0
SO_RCVBUFFORCE = 33


def flood(address: str, port: int) -> None:
    """Send datagrams until told to end."""
    sent = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.connect((address, port))
        start = say("ready")
        while not told_to_end(0.001):
            due = int((time.monotonic() - start) * RATE)
            for number in range(sent + 1, due + 1):
                s.send(NUMBERED.pack(number, time.monotonic_ns()))
            sent = due
    say({"sent": sent})


def hear(port: int) -> None:
    """Take datagrams until told to end and nothing more comes.

    A gap is the time by the sender's clock between two that came, where some between are missing.
    """
    got = gap_ns = last = last_ns = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
        s.bind(("", port))
        s.settimeout(QUIET_S)
        say("ready")
        while True:
            try:
                number, at_ns = NUMBERED.unpack(s.recv(NUMBERED.size))
            except TimeoutError:
                if told_to_end(0.0):
                    break
                continue
            if number != last + 1:
                gap_ns = max(gap_ns, at_ns - (last_ns or at_ns))
            got, last, last_ns = got + 1, number, at_ns
    say({"got": got, "gap_ms": gap_ns / 1e6})


def give(address: str, port: int) -> None:
    """Send over a connection until told to end."""
    sent = 0
    with socket.create_connection((address, port), 20) as s:
        say("ready")
        while not told_to_end(CHUNK_S):
            s.sendall(CHUNK)
            sent += len(CHUNK)
    say({"sent": sent})


def take(port: int) -> None:
    """Take one connection's bytes until it ends; tells who it came from and its longest silence."""
    got, silent_s = 0, 0.0
    with socket.create_server(("", port)) as listening:
        say("ready")
        peer, came = listening.accept()
        with peer:
            last = time.monotonic()
            while part := peer.recv(1 << 16):
                now = time.monotonic()
                silent_s, last, got = max(silent_s, now - last), now, got + len(part)
    say({"got": got, "gap_ms": silent_s * 1e3, "from": came[0]})


def told_to_end(wait_s: float) -> bool:
    """Answer whether standard input has ended, after so long at most."""
    return bool(select.select([sys.stdin], [], [], wait_s)[0])


def say(what: object) -> float:
    """Write a line; answers when."""
    sys.stdout.write(f"{what if isinstance(what, str) else json.dumps(what)}\n")
    sys.stdout.flush()
    return time.monotonic()


if __name__ == "__main__":
    {"flood": flood, "hear": hear, "give": give, "take": take}[sys.argv[1]](
        *(int(word) if word.isdigit() else word for word in sys.argv[2:])
    )
