"""What a capture file consists of; `capture_writer` and `capture_reader` do the rest. Pure.

A magic number, a header as JSON with its length and checksum, then frames: a frame is a head and
a block, and the last one says how many there were. A capture whose writer was killed lacks that
last frame and may have a part of one instead: it is torn, and all before that is good.

A frame's head has a checksum of its own that covers the block's head too, so that a reader can
go from head to head, know the times of every block, and see damage, without reading the blocks.
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from hostler.core.trace.blocks import BLOCK_HEAD_BYTES, MAX_BLOCK_BYTES
from hostler.core.trace.schema import SCHEMA, CaptureInvalid, Schema

MAGIC = b"\x89HTRACE\n"
SUFFIX = ".htrace"
VERSION = 1
MAX_HEADER_BYTES = 256 * 1024

PREFIX = struct.Struct("<8sII")
"""Magic, length of the header, its checksum."""
SYNC = b"\xc5\x1fBLOCK\x9e"

_FRAME = struct.Struct("<8sBII")
_END = struct.Struct("<QQQ")
_CHECKSUM = struct.Struct("<I")
FRAME_HEAD_BYTES = _FRAME.size + _CHECKSUM.size

_INT_FIELDS = ("start_ns", "clock_offset_ns")
_TEXT_FIELDS = ("host", "boot_id", "filter_text", "architecture")


@dataclass(frozen=True, slots=True)
class CaptureHeader:
    """Where, when and how a capture was made.

    `clock_offset_ns` is what to add to its times for those of the clock that it was compared with.
    """

    host: str
    boot_id: str
    start_ns: int
    clock_offset_ns: int = 0
    filter_text: str = ""
    architecture: str = "x86_64"
    schema: Schema = field(default=SCHEMA)


class FrameKind(IntEnum):
    """What is in a frame."""

    BLOCK = 1
    END = 2


@dataclass(frozen=True, slots=True)
class FrameHead:
    """The head of a frame: what follows it, how long, and its checksum."""

    kind: FrameKind
    length: int
    checksum: int


def header_bytes(header: CaptureHeader) -> bytes:
    """The start of a capture file. Raises ValueError if its texts are too long."""
    fields: dict[str, Any] = {name: getattr(header, name) for name in _INT_FIELDS + _TEXT_FIELDS}
    fields |= {"version": VERSION, "schema": header.schema.to_object()}
    body = json.dumps(fields, separators=(",", ":")).encode()
    if len(body) > MAX_HEADER_BYTES:
        raise ValueError(f"a header of {len(body)} bytes is too long")
    return PREFIX.pack(MAGIC, len(body), zlib.crc32(body)) + body


def header_length(prefix: bytes) -> int:
    """How long the header is that follows these PREFIX.size bytes. Raises CaptureInvalid."""
    if prefix[: len(MAGIC)] != MAGIC:
        raise CaptureInvalid("not a capture: it begins with something else", "byte 0")
    if len(prefix) < PREFIX.size:
        raise CaptureInvalid("ends within its first bytes", f"byte {len(prefix)}")
    length: int = PREFIX.unpack(prefix)[1]
    if length > MAX_HEADER_BYTES:
        raise CaptureInvalid(f"a header of {length} bytes is too long", "header")
    return length


def parse_header(prefix: bytes, body: bytes) -> CaptureHeader:
    """The header of a capture. Raises CaptureInvalid."""
    if len(body) != header_length(prefix):
        raise CaptureInvalid("ends within its header", f"byte {len(prefix) + len(body)}")
    if zlib.crc32(body) != PREFIX.unpack(prefix)[2]:
        raise CaptureInvalid("the header is damaged: its checksum is wrong", "header")
    try:
        read = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise CaptureInvalid("the header is not JSON", "header") from error
    if not isinstance(read, dict):
        raise CaptureInvalid("the header is not an object", "header")
    if read.get("version") != VERSION:
        raise CaptureInvalid(f"version {read.get('version')!r:.20} is not known", "header")
    texts = {name: _field(read, name, str) for name in _TEXT_FIELDS}
    numbers = {name: _field(read, name, int) for name in _INT_FIELDS}
    if any(abs(number) >> 63 for number in numbers.values()):
        raise CaptureInvalid("a time is out of range", "header")
    return CaptureHeader(**texts, **numbers, schema=Schema.from_object(read.get("schema")))


def _field(read: dict[str, Any], name: str, kind: type) -> Any:
    value = read.get(name)
    if type(value) is not kind:
        raise CaptureInvalid(f"{name} is not there or of another type", "header")
    return value


def end_bytes(blocks: int, events: int, lost: int) -> bytes:
    """What the last frame holds: how many blocks, events and lost events there were."""
    # What was lost is what the blocks say, and those may be from anyone.
    return _END.pack(blocks, events, lost & 0xFFFF_FFFF_FFFF_FFFF)


def frame_bytes(kind: FrameKind, body: bytes) -> bytes:
    """A frame: its head and its body."""
    if len(body) > MAX_BLOCK_BYTES:
        raise ValueError(f"{len(body)} bytes are too many for a frame")
    head = _FRAME.pack(SYNC, kind, len(body), zlib.crc32(body))
    return head + _head_checksum(head, body) + body


def parse_frame_head(data: bytes) -> FrameHead | None:
    """The head of the frame that begins here, None if there is no good one.

    `data` needs to have FRAME_HEAD_BYTES and what of BLOCK_HEAD_BYTES of the body is there.
    """
    if len(data) < FRAME_HEAD_BYTES:
        return None
    head, checksum = data[: _FRAME.size], data[_FRAME.size : FRAME_HEAD_BYTES]
    sync, kind, length, body_checksum = _FRAME.unpack(head)
    begun = data[FRAME_HEAD_BYTES : FRAME_HEAD_BYTES + min(length, BLOCK_HEAD_BYTES)]
    if sync != SYNC or checksum != _head_checksum(head, begun):
        return None
    if kind not in list(FrameKind) or length > MAX_BLOCK_BYTES:
        return None
    return FrameHead(FrameKind(kind), length, body_checksum)


def _head_checksum(head: bytes, body: bytes) -> bytes:
    return _CHECKSUM.pack(zlib.crc32(body[:BLOCK_HEAD_BYTES], zlib.crc32(head)))
