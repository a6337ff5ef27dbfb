"""Servers made by hand, flawed as no server that can be installed is any more, or plain nonsense.

`Flawed` shakes hands as far as the ServerHelloDone of TLS 1.2 and before; its flaws are flags.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from ssl_pki import Pair, make, rsa_key

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
SOUND_SUITES = (0xC02F, 0x009C, 0x002F)


def u16(number: int) -> bytes:
    return number.to_bytes(2, "big")


def record(kind: int, version: int, body: bytes) -> bytes:
    return bytes((kind,)) + u16(version) + u16(len(body)) + body


def message(kind: int, body: bytes) -> bytes:
    return bytes((kind,)) + len(body).to_bytes(3, "big") + body


@dataclass
class Hello:
    """What a client said."""

    version: int
    suites: list[int]
    compressions: bytes
    extensions: dict[int, bytes]


def read_hello(body: bytes) -> Hello:
    version = int.from_bytes(body[4:6], "big")
    at = 38
    at += 1 + body[at]
    size = int.from_bytes(body[at : at + 2], "big")
    listed = body[at + 2 : at + 2 + size]
    suites = [int.from_bytes(listed[each : each + 2], "big") for each in range(0, size, 2)]
    at += 2 + size
    compressions = body[at + 1 : at + 1 + body[at]]
    at += 1 + body[at] + 2
    extensions: dict[int, bytes] = {}
    while at + 4 <= len(body):
        size = int.from_bytes(body[at + 2 : at + 4], "big")
        extensions[int.from_bytes(body[at : at + 2], "big")] = body[at + 4 : at + 4 + size]
        at += 4 + size
    return Hello(version, suites, compressions, extensions)


@dataclass
class Flawed:
    """A server of old versions. `suites` are accepted in this order, in each of `versions`.

    What becomes of hellos with more than `most_suites` says `longer`.
    """

    versions: Sequence[int] = (0x0301, 0x0302, 0x0303)
    suites: Sequence[int] = SOUND_SUITES
    bleeds: bool = False
    discards_heartbeats: bool = False
    takes_early_ccs: bool = False
    oracle: str = ""
    compresses: bool = False
    secure_renegotiation: bool = True
    ignores_fallback: bool = False
    ssl2: bool = False
    breaks_at: frozenset[int] = frozenset()
    most_suites: int = 1 << 15
    longer: Literal["refused", "unanswered", "cut"] = "refused"
    pair: Pair = field(default_factory=lambda: make("localhost", rsa_key(), names=("localhost",)))

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readexactly(2)
        if head[0] & 0x80:
            await self._ssl2(reader, writer, head)
            return
        rest = await reader.readexactly(3)
        hello = read_hello(await reader.readexactly(int.from_bytes(rest[1:], "big")))
        if 43 in hello.extensions or hello.version not in self.versions:
            writer.write(record(21, 0x0301, b"\2\x46"))
            return
        if len(hello.suites) > self.most_suites:
            if self.longer == "unanswered":
                await reader.read()
            if self.longer != "cut":
                return
        listened = hello.suites[: self.most_suites]
        common = [each for each in self.suites if each in listened]
        if 0x5600 in hello.suites and not self.ignores_fallback:
            if hello.version < max(self.versions):
                writer.write(record(21, hello.version, b"\2\x56"))
                return
        if not common:
            writer.write(record(21, hello.version, b"\2\x28"))
            return
        if common[0] in self.breaks_at:
            return
        writer.write(self._flight(hello, common[0]))
        await self._after(reader, writer, hello.version)

    def _flight(self, hello: Hello, suite: int) -> bytes:
        compression = 1 if self.compresses and 1 in hello.compressions else 0
        extensions = b""
        if self.secure_renegotiation and (0xFF01 in hello.extensions or 0xFF in hello.suites):
            extensions += u16(0xFF01) + b"\0\1\0"
        if 15 in hello.extensions and (self.bleeds or self.discards_heartbeats):
            extensions += u16(15) + b"\0\1\1"
        body = u16(hello.version) + os.urandom(32) + b"\0" + u16(suite) + bytes((compression,))
        if extensions:
            body += u16(len(extensions)) + extensions
        certificate = len(self.pair.der).to_bytes(3, "big") + self.pair.der
        flight = message(2, body) + message(11, len(certificate).to_bytes(3, "big") + certificate)
        return record(22, hello.version, flight + message(14, b""))

    async def _after(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, version: int
    ) -> None:
        exchanged = False
        ccs_taken = False
        while True:
            head = await reader.readexactly(5)
            body = await reader.readexactly(int.from_bytes(head[3:], "big"))
            if head[0] == 24:
                if self.bleeds:
                    claimed = int.from_bytes(body[1:3], "big")
                    writer.write(record(24, version, b"\2" + body[1:3] + bytes(claimed + 16)))
                continue
            if head[0] == 20:
                if not exchanged and not self.takes_early_ccs:
                    writer.write(record(21, version, b"\2\x0a"))
                    return
                ccs_taken = True
                continue
            if ccs_taken:
                writer.write(record(21, version, b"\2\x14"))
                return
            if head[0] == 22 and body[0] == 16:
                exchanged = True
                if self._tells(body[6:]):
                    writer.write(record(21, version, b"\2\x2f"))
                    return
                continue
            writer.write(record(21, version, b"\2\x0a"))
            return

    def _tells(self, encrypted: bytes) -> bool:
        """Whether the oracle lets see that something is wrong with what was encrypted."""
        if not self.oracle:
            return False
        numbers = self.pair.key.private_numbers()
        modulus = numbers.public_numbers.n
        plain = pow(int.from_bytes(encrypted, "big"), numbers.d, modulus)
        padded = plain.to_bytes(self.pair.key.key_size // 8, "big")
        begins = padded[:2] == b"\0\2"
        if self.oracle == "strong":
            return not begins
        right = padded[-49] == 0 and 0 not in padded[2:-49] and padded[-48:-46] == b"\3\3"
        return not (begins and right)

    async def _ssl2(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes
    ) -> None:
        await reader.readexactly(int.from_bytes(head, "big") & 0x7FFF)
        if not self.ssl2:
            return
        suites = bytes.fromhex("0100800200800700c0")
        der = self.pair.der
        body = b"\4\0\1" + u16(2) + u16(len(der)) + u16(len(suites)) + u16(16)
        body += der + suites + os.urandom(16)
        writer.write(u16(0x8000 | len(body)) + body)


async def hangs(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def drips(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A handshake record of 1000 bytes, one every 50 ms: it never gets to its end in time."""
    writer.write(b"\x16\x03\x03\x03\xe8\x02")
    while True:
        writer.write(b"\0")
        await writer.drain()
        await asyncio.sleep(0.05)


async def closes(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    return


def says(data: bytes) -> Handler:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        await reader.read()

    return say


def floods(piece: bytes) -> Handler:
    async def flood(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)  # drain() does not give way to others as long as there is room.

    return flood


NONSENSE: dict[str, tuple[Any, str]] = {
    "hangs": (hangs, "TIMED_OUT"),
    "drips": (drips, "TIMED_OUT"),
    "closes": (closes, "REFUSED"),
    "http": (says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "NOT_TLS"),
    "ssh": (says(b"SSH-2.0-OpenSSH_9.2p1\r\n"), "NOT_TLS"),
    "zeros": (says(bytes(4096)), "NOT_TLS"),
    "record without an end": (says(b"\x16\x03\x03\xff\xff" + bytes(70000)), "NOT_TLS"),
    "short hello": (says(b"\x16\x03\x03\0\x06\x02\0\0\x02\3\3"), "MALFORMED"),
    "extension past the end": (
        says(record(22, 0x0303, message(2, b"\3\3" + bytes(32) + b"\0\0\x2f\0\0\4\0\x23\xff\xff"))),
        "MALFORMED",
    ),
    "message of 16 MB": (says(record(22, 0x0303, b"\x02\xff\xff\xff" + bytes(100))), "TOO_MUCH"),
    "empty records": (floods(record(22, 0x0303, b"")), "MALFORMED"),
    "warnings without an end": (floods(record(21, 0x0303, b"\1\x5a")), "REFUSED"),
    "a suite nobody offered": (
        says(record(22, 0x0303, message(2, b"\3\3" + bytes(32) + b"\0\xab\xcd\0"))),
        "MALFORMED",
    ),
}
"""What is no TLS, and how it has to be named."""


@asynccontextmanager
async def listening(handler: Handler) -> AsyncIterator[int]:
    """A port of loopback at which a handler serves; what goes wrong in it ends its connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await handler(reader, writer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 20)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
