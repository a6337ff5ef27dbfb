"""A local user of a host who wants to be somebody else; standard library only.

Runs on the host under the user's uid: `python3 -I -c SOURCE DOMAIN...`, where DOMAINs are the
daemons whose own files the user may open, since it has their uid. Says "ready" after the first
round, goes on until its standard input ends, and prints what it got as JSON: for each thing tried
the number of tries, and in `gained` whatever should not have worked.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import select
import socket
import struct
import sys
from collections import Counter
from pathlib import Path

PREFIX = "hostler-"
LIVE = re.compile(rb"@(hostler-[0-9a-f]{32})$", re.MULTILINE)
DAEMONS = ("netns", "storage", "firewall", "tracing", "ssl")
GET_HOST = b"/hostler.api.common.v1.HostService/GetHost"
UNAUTHENTICATED = b"16"
tried: Counter[str] = Counter()
gained: list[str] = []
held: list[socket.socket] = []


def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return struct.pack(">I", len(body))[1:] + struct.pack(">BBI", kind, flags, stream) + body


def literal(name: bytes, value: bytes) -> bytes:
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def get_host(sock: socket.socket) -> str:
    """Call GetHost as gRPC does over HTTP/2, by hand; answer `status N` or `message`."""
    head = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", GET_HOST)]
    head += [(b":authority", b"localhost"), (b"te", b"trailers")]
    head += [(b"content-type", b"application/grpc")]
    # A header table of no size keeps the server's headers readable, but for Huffman coding.
    sock.sendall(
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        + frame(4, 0, 0, struct.pack(">HI", 1, 0))
        + frame(1, 4, 1, b"".join(literal(name, value) for name, value in head))
        + frame(0, 1, 1, bytes(5))
    )
    stream = sock.makefile("rb")
    while header := stream.read(9):
        size, kind, number = int.from_bytes(header[:3], "big"), header[3], header[5:]
        body = stream.read(size)
        if kind == 0 and number == b"\0\0\0\1" and size > 5:
            return "message"
        if kind == 1 and header[4] & 1:
            at = body.find(b"grpc-status")
            value = body[at + len(b"grpc-status") :][:3]
            return f"status {value[1 : 1 + (value[0] & 127)].decode(errors='replace')}"
        if kind in (3, 7):
            return f"frame {kind}"
    return "closed"


def attempt(what: str, path: str, name: str = "", kind: int = socket.SOCK_STREAM) -> None:
    """Connect to a socket that is not ours, maybe under a name; nothing but EACCES will do."""
    with socket.socket(socket.AF_UNIX, kind) as sock:
        if name:
            sock.bind(name)
        tried[what] += 1
        try:
            sock.connect(path)
        except PermissionError:
            return
        except FileNotFoundError:
            gained.append(f"{what}: {path}: could look into the folder")
            return
        gained.append(f"{what}: {path}: connected")


def guessed() -> str:
    return f"\0{PREFIX}{secrets.token_hex(16)}"


def prebind() -> None:
    """Hold names that a relay may draw one day, and those of an older design that told the uid."""
    for _ in range(50):
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(guessed())
        tried["prebound"] += 1
        held.append(sock)
    while len(held) > 500:
        held.pop(0).close()


def take_live_names() -> None:
    """Take over a name that a relay holds right now, or talk to its owner."""
    ours = {sock.getsockname()[1:] for sock in held}
    names = LIVE.findall(Path("/proc/net/unix").read_bytes())
    for name in [name for name in names if name not in ours][:20]:
        tried["live name"] += 1
        with socket.socket(socket.AF_UNIX) as sock:
            try:
                sock.connect(b"\0" + name)
            except OSError as error:
                if error.errno != errno.ECONNREFUSED:
                    raise
            else:
                gained.append(f"connected to the relay's side {name!r}")
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.bind(b"\0" + name)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            sock.close()
        else:
            # Its connection has just ended: a free name is anybody's, and must be worth nothing.
            tried["freed name"] += 1
            held.append(sock)


def own_door(domain: str) -> None:
    """As a hijacked daemon's child: at the private socket of our own uid, under guessed names."""
    for name in ("", guessed(), *(s.getsockname().decode() for s in held[-3:])):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            try:
                if name:
                    sock.bind(name if name not in taken() else guessed())
                sock.connect(f"/run/hostler-{domain}/local.sock")
            except OSError:
                continue
            tried["own private socket"] += 1
            answer = get_host(sock)
            if answer != f"status {UNAUTHENTICATED.decode()}":
                gained.append(f"own private socket of {domain}: {answer}")


def taken() -> set[str]:
    return {sock.getsockname().decode() for sock in held}


def files(mine: tuple[str, ...]) -> None:
    """Open what belongs to other daemons, and to root."""
    paths = ["/run/hostler-launcher/.", "/etc/hostler/hostler.toml", "/etc/hostler/bundle.json"]
    for domain in DAEMONS:
        if domain not in mine:
            paths += [f"/var/lib/hostler/{domain}/.", f"/run/hostler-{domain}/."]
            paths += [f"/var/log/hostler/{domain}/audit.jsonl"]
    for path in paths:
        tried["foreign file"] += 1
        if os.access(path, os.W_OK, effective_ids=True):
            gained.append(f"may write {path}")
    if not mine:
        tried["host key"] += 1
        if os.access("/etc/hostler/pki/host.key", os.R_OK, effective_ids=True):
            gained.append("may read the key of the host")


def one_round(mine: tuple[str, ...]) -> None:
    prebind()
    take_live_names()
    for domain in DAEMONS:
        # With a name like the relay's, with one that tells an identity, and with none.
        for name in ("", guessed(), f"\0uid=0:gid=0:pid=1/1.{secrets.token_hex(4)}"):
            attempt("front door", f"/run/hostler/{domain}.sock", name)
            if domain not in mine:
                for private in ("tls.sock", "local.sock"):
                    attempt("private socket", f"/run/hostler-{domain}/{private}", name)
    if "netns" not in mine:
        attempt("launcher", "/run/hostler/launcher.sock", kind=socket.SOCK_SEQPACKET)
    for domain in mine:
        own_door(domain)
    files(mine)


def main(mine: tuple[str, ...]) -> None:
    while True:
        one_round(mine)
        tried["round"] += 1
        if tried["round"] == 1:
            print("ready", flush=True)
        if select.select([sys.stdin], [], [], 0.02)[0]:
            break
    told = {"uid": os.geteuid(), "tried": tried, "gained": gained[:50]}
    print(json.dumps(told), flush=True)


main(tuple(sys.argv[1:]))
