"""A tree as a stream of parts, in an order that a reader can write down as it comes.

It begins with `Begin`. Each file is an `Entry`, its folder before what is in it, without a digest;
after one of a regular file that is no hard link come its `Data`, where it has no holes, and a
`Tail`. `End` says how many entries there were, and what the digest over all of them is.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from hostler.core.copying.manifest import Entry, as_line, of_line

PIECE_BYTES = 256 << 10
"""The most data in one part."""
PART_BYTES_MOST = 768 << 10
"""The most bytes of a part as it is written."""

_OFFSET = struct.Struct(">Q")
_FAULTS = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


class BadPart(Exception):
    """These bytes are no part."""


@dataclass(frozen=True, slots=True)
class Begin:
    """How many bytes the regular files of the tree have, as far as is known before."""

    size_bytes: int


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes of the file whose entry came last."""

    offset: int
    data: bytes | memoryview


@dataclass(frozen=True, slots=True)
class Tail:
    """All of a file has come; its digest is that of `contents.of_blocks`."""

    digest: str


@dataclass(frozen=True, slots=True)
class End:
    """All has come."""

    entries: int
    digest: str


Part = Begin | Entry | Data | Tail | End


@dataclass(frozen=True, slots=True)
class Have:
    """What a reader has of a stream already: so many whole entries, and bytes of the next one.

    Their data are not sent again; all else is.
    """

    entries: int = 0
    offset: int = 0


def digest_of(entries: Iterable[Entry]) -> str:
    """The digest over all entries, with the digests of their contents."""
    found = hashlib.sha256()
    for entry in entries:
        found.update(json.dumps(as_line(entry)).encode() + b"\n")
    return found.hexdigest()


def encode(part: Part) -> tuple[bytes, bytes | memoryview]:
    """A part as a letter with a head, and the data that follow it."""
    if isinstance(part, Data):
        return b"D" + _OFFSET.pack(part.offset), part.data
    if isinstance(part, Entry):
        return b"F" + json.dumps(as_line(part)).encode(), b""
    if isinstance(part, Tail):
        return b"T" + part.digest.encode(), b""
    if isinstance(part, Begin):
        return b"B" + _OFFSET.pack(part.size_bytes), b""
    return b"E" + json.dumps([part.entries, part.digest]).encode(), b""


def decode(text: bytes) -> Part:
    """Read a part. Raises BadPart."""
    kind, body = text[:1], text[1:]
    try:
        if kind == b"D":
            return Data(_OFFSET.unpack_from(body)[0], memoryview(body)[_OFFSET.size :])
        if kind == b"F":
            return of_line(json.loads(body))
        if kind == b"T":
            return Tail(body.decode("ascii"))
        if kind == b"B":
            return Begin(_OFFSET.unpack(body)[0])
        if kind == b"E":
            return _end(json.loads(body))
    except (*_FAULTS, struct.error) as e:
        raise BadPart("a part of the stream is damaged") from e
    raise BadPart("a part of the stream is of no kind that there is")


def _end(value: Any) -> End:
    entries, digest = value
    if type(entries) is not int or type(digest) is not str:
        raise TypeError
    return End(entries, digest)
