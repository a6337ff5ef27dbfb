"""HTTP/2 by hand, for what no client library sends: frames, and streams of them that are wrong.

Source: RFC 9113 (frames), RFC 7541 (header fields as literals, without a table), the gRPC protocol
over HTTP/2 (a message is a flag, four bytes of length, and so many bytes).
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Mapping, Sequence

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, END_HEADERS, PADDED = 1, 4, 8
GET_HOST = "/hostler.api.common.v1.HostService/GetHost"
_CALL = {
    ":method": "POST",
    ":scheme": "https",
    ":authority": "localhost",
    "te": "trailers",
    "content-type": "application/grpc",
}


def frame(kind: int, flags: int = 0, stream: int = 0, body: bytes = b"") -> bytes:
    """One frame."""
    return struct.pack(">I", len(body))[1:] + struct.pack(">BBI", kind, flags, stream) + body


def _number(value: int, bits: int) -> bytes:
    most = (1 << bits) - 1
    if value < most:
        return bytes([value])
    value -= most
    told = bytes([most])
    while value >= 128:
        told += bytes([value % 128 + 128])
        value //= 128
    return told + bytes([value])


def fields(headers: Mapping[str, str] | Sequence[tuple[str, str]]) -> bytes:
    """A block of header fields."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    told = b""
    for name, value in pairs:
        for part, first in ((name.encode(), b"\x00"), (value.encode(), b"")):
            told += first + _number(len(part), 7) + part
    return told


def opening(stream: int, path: str = GET_HOST, flags: int = END_HEADERS, **more: str) -> bytes:
    """The headers of a call; `more` are further ones, or others in the place of the usual."""
    told = {**_CALL, ":path": path, **{k.replace("_", "-"): v for k, v in more.items()}}
    # Pseudo-header fields come first.
    ordered = sorted(told.items(), key=lambda pair: not pair[0].startswith(":"))
    return frame(HEADERS, flags, stream, fields(ordered))


def message(body: bytes = b"", length: int | None = None, flag: int = 0) -> bytes:
    """A message of gRPC, whose length may be a lie."""
    return struct.pack(">BI", flag, len(body) if length is None else length) + body


def call(stream: int, body: bytes, **headers: str) -> bytes:
    """A whole call with these bytes as its data."""
    return opening(stream, **headers) + frame(DATA, END_STREAM, stream, body)


START = PREFACE + frame(SETTINGS)


def _noise(dice: random.Random) -> bytes:
    return dice.randbytes(dice.choice((1, 9, 100, 4000, 70_000)))


def _frames(dice: random.Random) -> bytes:
    """Frames of any kind with any flags, on any stream, with bodies that mean nothing."""
    made = (
        frame(
            dice.choice((*range(12), 255)),
            dice.randrange(256),
            dice.choice((0, 1, 2, 3, 2**31 - 1, 2**31)),
            dice.randbytes(dice.choice((0, 1, 4, 5, 6, 8, 100))),
        )
        for _ in range(30)
    )
    return START + b"".join(made)


def _flood(one: bytes, times: int) -> Callable[[random.Random], bytes]:
    return lambda _: START + one * times


def _says(told: bytes) -> Callable[[random.Random], bytes]:
    return lambda _: told


def _resets(_: random.Random) -> bytes:
    """Calls that are taken back as soon as they are made, a thousand of them."""
    streams = range(1, 2001, 2)
    reset = struct.pack(">I", 8)
    return START + b"".join(opening(s) + frame(RST_STREAM, 0, s, reset) for s in streams)


def _continued(_: random.Random) -> bytes:
    """Headers that go on and on."""
    more = frame(CONTINUATION, 0, 1, fields({"x": "y" * 1000})) * 300
    return START + opening(1, flags=0) + more


SAID = {
    "noise": _noise,
    "http/1.1": _says(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "noise after the preface": lambda dice: START + _noise(dice),
    "frames of noise": _frames,
    "a frame of 16 MiB": _says(START + b"\xff\xff\xff" + frame(DATA, 0, 1)[3:] + bytes(100_000)),
    "settings cut off": _says(PREFACE + frame(SETTINGS, 0, 0, b"\0\0\0")),
    "settings without end": _flood(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 65535)), 2000),
    "pings without end": _flood(frame(PING, 0, 0, bytes(8)), 2000),
    "a window of nothing": _says(START + frame(WINDOW, 0, 0, bytes(4))),
    "a window too wide": _flood(frame(WINDOW, 0, 0, struct.pack(">I", 2**31 - 1)), 3),
    "a stream on itself": _says(START + frame(PRIORITY, 0, 1, struct.pack(">IB", 1, 9))),
    "data of no stream": _says(START + frame(DATA, END_STREAM, 1, message())),
    "headers of stream 0": _says(START + opening(0)),
    "headers of an even stream": _says(START + opening(2)),
    "a field of no table": _says(START + frame(HEADERS, END_HEADERS, 1, b"\xff" * 4 + b"\x0f")),
    "a table that grows": _says(START + frame(HEADERS, END_HEADERS, 1, b"\x3f" + b"\xff" * 4)),
    "padding without end": _says(START + frame(DATA, PADDED, 1, b"\xff")),
    "headers without end": _continued,
    "calls taken back": _resets,
    "goaway first": _says(START + frame(GOAWAY, 0, 0, bytes(8)) + call(1, message())),
    "no path": _says(START + call(1, message(), **{":path": ""})),
    "no method": _says(START + call(1, message(), path="/no.such.Service/Method")),
    "a path of noise": lambda dice: START + call(1, message(), path="/" + dice.randbytes(50).hex()),
    "GET": _says(START + call(1, message(), **{":method": "GET"})),
    "text": _says(START + call(1, message(), content_type="text/plain")),
    "no data": _says(START + opening(1, flags=END_HEADERS | END_STREAM)),
    "half a message": _says(START + call(1, message(b"ab", length=100))),
    "a message of 4 GiB": _says(START + call(1, message(b"ab", length=2**32 - 1))),
    "a message of flag 255": _says(START + call(1, message(b"", flag=255))),
    "zipped without saying so": _says(START + call(1, message(b"ab", flag=1))),
    "zipped badly": _says(START + call(1, message(b"\x1f\x8bab", flag=1), grpc_encoding="gzip")),
    "zipped by what is not known": _says(START + call(1, message(b"a", flag=1), grpc_encoding="x")),
    "two messages": _says(START + call(1, message() * 2)),
    "messages without end": _says(START + call(1, message() * 3000)),
    "a timeout of noise": _says(START + call(1, message(), grpc_timeout="xyzS")),
    "a timeout of nothing": _says(START + call(1, message(), grpc_timeout="0n")),
}

# gRPC answers these itself, with INTERNAL: its protocol has no other code for them, and no handler
# has seen a byte of them. Noise may happen to be one of them.
ANSWERED_BY_GRPC = {
    *("noise after the preface", "frames of noise"),
    *("a field of no table", "a table that grows", "a timeout of noise"),
    *("zipped without saying so", "zipped badly", "zipped by what is not known"),
}
_STATUS, _HUFFMAN = b"grpc-status", 128


def statuses(said: bytes) -> list[str]:
    """The statuses of calls that a server's frames tell."""
    found = []
    while len(said) >= 9:
        size, kind = int.from_bytes(said[:3], "big"), said[3]
        body, said = said[9 : 9 + size], said[9 + size :]
        if kind == HEADERS and _STATUS in body:
            value = body[body.index(_STATUS) + len(_STATUS) :]
            length = value[0] & ~_HUFFMAN
            found.append(value[1 : 1 + length].decode(errors="replace"))
    return found
