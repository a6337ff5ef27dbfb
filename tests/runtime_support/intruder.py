"""A local user who wants to be somebody else; standard library only, run by the system's Python.

Arguments: the local socket of the daemon, its folder of private sockets. Says "ready" after the
first round, goes on until SIGTERM, and then prints as JSON what it got:
names of the relay taken away, connections to private sockets, and every answer to "who am I".
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import signal
import socket
import struct
import sys
import types
from pathlib import Path

PREFIX = "hostler-"
LIVE = re.compile(rb"@(hostler-[0-9a-f]{32})$", re.MULTILINE)
counts = {
    "rounds": 0,
    "prebound": 0,
    "live_seen": 0,
    "live_bound": 0,
    "live_connected": 0,
    "private_connected": 0,
    "private_refused": 0,
}
answers: list[str] = []
held: list[socket.socket] = []


def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return struct.pack(">I", len(body))[1:] + struct.pack(">BBI", kind, flags, stream) + body


def literal(name: bytes, value: bytes) -> bytes:
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def who(sock: socket.socket) -> str:
    """Call Who as gRPC does over HTTP/2, by hand; answer what the daemon says we are."""
    head = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/test.Door/Who")]
    head += [(b":authority", b"localhost"), (b"te", b"trailers")]
    head += [(b"content-type", b"application/grpc")]
    sock.sendall(
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        + frame(4, 0, 0, b"")
        + frame(1, 4, 1, b"".join(literal(name, value) for name, value in head))
        + frame(0, 1, 1, bytes(5))
    )
    stream = sock.makefile("rb")
    while header := stream.read(9):
        size, kind, number = int.from_bytes(header[:3], "big"), header[3], header[5:]
        body = stream.read(size)
        if kind == 0 and number == b"\0\0\0\1":
            return body[5:].decode()
        if kind in (3, 7) or (kind == 1 and header[4] & 1):
            return f"refused: frame {kind}"
    return "refused: closed"


def prebind() -> None:
    for _ in range(50):
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(f"\0{PREFIX}{secrets.token_hex(16)}")
        counts["prebound"] += 1
        held.append(sock)
    while len(held) > 500:
        held.pop(0).close()


def take_live_names() -> None:
    names = LIVE.findall(Path("/proc/net/unix").read_bytes())
    ours = {sock.getsockname()[1:] for sock in held}
    for name in [name for name in names if name not in ours][:20]:
        counts["live_seen"] += 1
        for act in ("live_bound", "live_connected"):
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(1)
            try:
                (sock.bind if act == "live_bound" else sock.connect)(b"\0" + name)
            except OSError as error:
                # A connection may end between the look and the try: a freed name can be bound.
                if error.errno not in (errno.EADDRINUSE, errno.ECONNREFUSED):
                    raise
                sock.close()
                continue
            counts[act] += 1
            held.append(sock)


def go_in(folder: str) -> None:
    for name in ("tcp.sock", "local.sock"):
        # With a name of ours, with one of the relay's that has come free, or with none.
        for sock in (socket.socket(socket.AF_UNIX), *held[-2:]):
            try:
                sock.connect(f"{folder}/{name}")
            except PermissionError:
                counts["private_refused"] += 1
            except OSError as error:
                if error.errno != errno.EISCONN:
                    raise
            else:
                counts["private_connected"] += 1
                answers.append(who(sock))


def ask(path: str) -> None:
    """Call at the front door from a socket whose name looks like the relay's."""
    number = secrets.token_hex(4)
    for name in ("", f"\0{PREFIX}{secrets.token_hex(16)}", f"\0uid=0:gid=0:pid=1/1.{number}"):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            if name:
                sock.bind(name)
            sock.connect(path)
            answers.append(who(sock))


def end(signum: int, frame: types.FrameType | None) -> None:
    print(json.dumps({**counts, "answers": answers, "uid": os.geteuid()}), flush=True)
    os._exit(0)


def main(path: str, folder: str) -> None:
    signal.signal(signal.SIGTERM, end)
    while True:
        prebind()
        take_live_names()
        go_in(folder)
        ask(path)
        counts["rounds"] += 1
        if counts["rounds"] == 1:
            print("ready", flush=True)


main(sys.argv[1], sys.argv[2])
