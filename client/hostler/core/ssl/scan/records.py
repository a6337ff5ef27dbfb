"""Records and the handshake messages in them, as they come. Source: RFC 8446 5.1, RFC 5246 6.2."""

from __future__ import annotations

from dataclasses import dataclass

from hostler.core.ssl.scan.connect import Channel
from hostler.core.ssl.scan.errors import Malformed, NotTls, TooMuch

_MOST_RECORD = 16384 + 2048
_MOST_MESSAGE = 192 * 1024
_SHOWN = 24


@dataclass(frozen=True, slots=True)
class Record:
    """A record: its type, and what it carries."""

    kind: int
    version: int
    body: bytes


async def read_record(channel: Channel) -> Record:
    """Read one. Raises NotTls for what is none, with how it begins, and ScanError."""
    head = channel.take(5) or await channel.read(5)
    kind, version, length = head[0], int.from_bytes(head[1:3], "big"), int.from_bytes(head[3:])
    if not 20 <= kind <= 24 or head[1] != 3:
        raise NotTls(f"it speaks another protocol, or none: {_shown(head)}")
    if length > _MOST_RECORD:
        raise NotTls(f"a record of {length} bytes")
    return Record(kind, version, channel.take(length) or await channel.read(length))


def write_record(kind: int, version: int, body: bytes) -> bytes:
    """Write one, or as many as its length takes."""
    head = bytes((kind,)) + version.to_bytes(2, "big")
    parts = [body[at : at + 16384] for at in range(0, len(body), 16384)] or [b""]
    return b"".join(head + len(part).to_bytes(2, "big") + part for part in parts)


class Messages:
    """Puts handshake messages together from the bodies of records."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, body: bytes) -> list[tuple[int, bytes, bytes]]:
        """Answer each message that is whole now: type, body, and all its bytes.

        Raises TooMuch, and Malformed for a record without anything in it.
        """
        if not body:
            raise Malformed("a handshake record without a message")
        self._data += body
        found: list[tuple[int, bytes, bytes]] = []
        while len(self._data) >= 4:
            length = int.from_bytes(self._data[1:4], "big")
            if length > _MOST_MESSAGE:
                raise TooMuch(f"a handshake message of {length} bytes")
            if len(self._data) < 4 + length:
                break
            whole, self._data = self._data[: 4 + length], self._data[4 + length :]
            found.append((whole[0], whole[4:], whole))
        return found


def _shown(data: bytes) -> str:
    return repr(data[:_SHOWN])[2:-1]


def read_alert(record: Record) -> int:
    """The number of an alert. Raises Malformed."""
    if len(record.body) < 2:
        raise Malformed("an alert without a description")
    return record.body[1]


def is_final(record: Record) -> bool:
    """Whether nothing more comes after an alert."""
    return record.body[:1] != b"\1" or record.body[1:2] in (b"\0", bytes((100,)))
