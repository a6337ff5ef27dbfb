"""What a collector tells its daemon: frames on a pipe, each with a kind and a length."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import IO, Any

FRAME_BYTES_MOST = 64 << 20
_HEAD = struct.Struct("<BI")
_BLOCK = struct.Struct("<QQ")


class Kind(IntEnum):
    """What a frame is."""

    READY = 1
    """JSON: `engine`, `load_s`, `warnings`. Events are seen from here on."""
    BLOCK = 2
    """Counts, and a block as hostler.core.trace.blocks has them."""
    STANDING = 3
    """JSON: `cpu_s`, once a second."""
    END = 4
    """JSON: `reason`, a name of model.trace.End, `problem`, `cpu_s`. The last frame."""


class FrameInvalid(Exception):
    """What came is no frame: the collector is not ours, or has a fault."""


@dataclass(frozen=True, slots=True)
class Block:
    """An encoded batch of events, and what it holds."""

    data: bytes
    events: int
    lost: int


def write(out: IO[bytes], kind: Kind, content: Mapping[str, Any]) -> None:
    """Write a frame of JSON. Raises BrokenPipeError when nobody reads any more."""
    data = json.dumps(content).encode()
    out.write(_HEAD.pack(kind, len(data)) + data)
    out.flush()


def write_block(out: IO[bytes], block: Block) -> None:
    """Write a block. Raises BrokenPipeError when nobody reads any more."""
    counts = _BLOCK.pack(block.events, block.lost)
    out.write(_HEAD.pack(Kind.BLOCK, len(counts) + len(block.data)) + counts)
    out.write(block.data)
    out.flush()


def read(source: IO[bytes]) -> tuple[Kind, Mapping[str, Any] | Block] | None:
    """Read the next frame; None at the end. Raises FrameInvalid."""
    head = source.read(_HEAD.size)
    if not head:
        return None
    if len(head) < _HEAD.size:
        raise FrameInvalid("a frame is cut off")
    number, length = _HEAD.unpack(head)
    if number not in _KINDS or length > FRAME_BYTES_MOST:
        raise FrameInvalid(f"frame of kind {number} with {length} bytes")
    data = source.read(length)
    if len(data) < length:
        raise FrameInvalid("a frame is cut off")
    kind = Kind(number)
    return kind, _block(data) if kind is Kind.BLOCK else _content(data)


def _block(data: bytes) -> Block:
    if len(data) < _BLOCK.size:
        raise FrameInvalid("a block without its counts")
    events, lost = _BLOCK.unpack_from(data)
    return Block(data[_BLOCK.size :], events, lost)


def _content(data: bytes) -> Mapping[str, Any]:
    try:
        content = json.loads(data)
    except ValueError as e:
        raise FrameInvalid(str(e)) from e
    if not isinstance(content, dict):
        raise FrameInvalid("a frame that is no object")
    return content


_KINDS = frozenset(Kind)
