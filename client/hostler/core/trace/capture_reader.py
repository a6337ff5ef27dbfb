"""Reads capture files, whole, torn or damaged, and says which it was."""

from __future__ import annotations

import os
import stat
import zlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from hostler.core.trace.blocks import BLOCK_HEAD_BYTES, decode, exit_ns, read_head
from hostler.core.trace.capture import (
    FRAME_HEAD_BYTES,
    PREFIX,
    SYNC,
    FrameHead,
    FrameKind,
    end_bytes,
    header_length,
    parse_frame_head,
    parse_header,
)
from hostler.core.trace.events import Events
from hostler.core.trace.schema import CaptureInvalid

_MAX_DAMAGED = 1000
_SEARCH_BYTES = 1024 * 1024
_HEAD_BYTES = FRAME_HEAD_BYTES + BLOCK_HEAD_BYTES


@dataclass(frozen=True, slots=True)
class BlockPlace:
    """Where a block is in the file, and what its heads say."""

    offset: int
    length: int
    checksum: int
    events: int
    lost: int
    first_ns: int
    last_ns: int

    @property
    def end(self) -> int:
        """Where the block ends."""
        return self.offset + FRAME_HEAD_BYTES + self.length


class BlockIndex:
    """The blocks of a file, in no more memory than the file itself takes."""

    def __init__(self) -> None:
        self._numbers = array("Q")

    def __len__(self) -> int:
        return len(self._numbers) // _NUMBERS

    def __getitem__(self, nth: int) -> BlockPlace:
        if not 0 <= nth < len(self):
            raise IndexError(nth)
        return BlockPlace(*self._numbers[nth * _NUMBERS : (nth + 1) * _NUMBERS])

    def __iter__(self) -> Iterator[BlockPlace]:
        return (self[nth] for nth in range(len(self)))

    def append(self, place: BlockPlace) -> None:
        """Add the next block."""
        self._numbers.extend(astuple(place))


_NUMBERS = len(fields(BlockPlace))


@dataclass(frozen=True, slots=True)
class Damage:
    """A part of the file that cannot be read though the file goes on after it."""

    offset: int
    length: int
    what: str

    def __str__(self) -> str:
        return f"byte {self.offset}: {self.what} ({self.length} bytes)"


class CaptureReader:
    """A capture file, from its header; its blocks are read one by one as they are asked for.

    `is_torn`: the writer did not complete it; all before is read, and `torn_bytes` at the end are
    a part of a block. `damaged`: what is broken in the middle. Reading raises CaptureInvalid when
    it comes to such a part, or with `skip_damaged` goes on after it; then the caller has to say
    so, after reading, as some damage shows only then. Raises CaptureInvalid, OSError.
    """

    def __init__(self, path: Path, *, skip_damaged: bool = False) -> None:
        self.blocks = BlockIndex()
        self.damaged: list[Damage] = []
        self.torn_bytes = 0
        self.is_torn = True
        self._skip_damaged = skip_damaged
        # Opening a FIFO would wait for a writer.
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            self._size = self._regular_size()
            prefix = self._read(0, PREFIX.size)
            length = header_length(prefix)
            self.header = parse_header(prefix, self._read(PREFIX.size, length))
            self._find_blocks(PREFIX.size + length)
        except BaseException:
            os.close(self._fd)
            raise

    @property
    def events(self) -> int:
        """How many events there are, by the heads of the blocks."""
        return sum(block.events for block in self.blocks)

    @property
    def lost(self) -> int:
        """How many events were lost while it was made, by the heads of the blocks."""
        return sum(block.lost for block in self.blocks)

    def __iter__(self) -> Iterator[Events]:
        return self._batches(self.blocks)

    def between(self, first_ns: int, last_ns: int) -> Iterator[Events]:
        """The events that were under way at some time of this span, both ends included.

        Blocks of other times are not read, nor is what is damaged there noticed.
        """
        wanted = (b for b in self.blocks if b.first_ns <= last_ns and b.last_ns >= first_ns)
        for events in self._batches(wanted):
            is_in = (events["time_ns"] <= np.uint64(last_ns)) & (
                exit_ns(events) >= np.uint64(first_ns)
            )
            if is_in.any():
                yield events if is_in.all() else events.select(is_in)

    def encoded(self, block: BlockPlace) -> bytes:
        """A block as it is in the file. Raises CaptureInvalid if it is damaged."""
        body = self._read(block.offset + FRAME_HEAD_BYTES, block.length)
        if len(body) < block.length:
            raise CaptureInvalid("the file has become shorter", "block")
        if zlib.crc32(body) != block.checksum:
            raise CaptureInvalid("damaged: the checksum is wrong", "block")
        return body

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _batches(self, blocks: Iterable[BlockPlace]) -> Iterator[Events]:
        broken = iter([] if self._skip_damaged else sorted(self.damaged, key=lambda d: d.offset))
        damage = next(broken, None)
        for block in blocks:
            if damage and damage.offset < block.offset:
                raise CaptureInvalid(damage.what, f"byte {damage.offset}")
            try:
                events = self._decoded(block)
            except CaptureInvalid as error:
                place = f"block at byte {block.offset}, {error.place}"
                if not self._skip_damaged:
                    raise CaptureInvalid(error.what, place) from error
                self._note_damage(block.offset, block.end, f"{place}: {error.what}")
                continue
            yield events
        if damage:
            raise CaptureInvalid(damage.what, f"byte {damage.offset}")

    def _decoded(self, block: BlockPlace) -> Events:
        return decode(self.encoded(block), self.header.schema)

    def _note_damage(self, start: int, end: int, what: str) -> None:
        damage = Damage(start, end - start, what)
        # A block is read as often as someone asks for it.
        if damage in self.damaged:
            return
        if len(self.damaged) >= _MAX_DAMAGED:
            raise CaptureInvalid(f"damaged in more than {_MAX_DAMAGED} places", f"byte {start}")
        self.damaged.append(damage)

    def _find_blocks(self, offset: int) -> None:
        """Go from head to head; where there is no good one, to the next that is."""
        while offset < self._size:
            data = self._read(offset, _HEAD_BYTES)
            frame = parse_frame_head(data)
            if frame is None or offset + FRAME_HEAD_BYTES + frame.length > self._size:
                after = self._next_frame(offset + 1)
                if after is None:
                    self.torn_bytes = self._size - offset
                    return
                self._note_damage(offset, after, "damaged: no block begins here")
                offset = after
                continue
            self._add(offset, frame, data[FRAME_HEAD_BYTES:])
            offset += FRAME_HEAD_BYTES + frame.length

    def _add(self, offset: int, frame: FrameHead, begun: bytes) -> None:
        end = offset + FRAME_HEAD_BYTES + frame.length
        if not self.is_torn:
            self._note_damage(offset, end, "goes on after its end")
        if frame.kind is FrameKind.END:
            self.is_torn = False
            self._check_end(offset, frame)
            return
        try:
            head = read_head(begun)
        except CaptureInvalid as error:
            self._note_damage(offset, end, f"{error.place}: {error.what}")
            return
        times = head.first_ns, head.last_ns
        place = BlockPlace(offset, frame.length, frame.checksum, head.events, head.lost, *times)
        self.blocks.append(place)

    def _check_end(self, offset: int, frame: FrameHead) -> None:
        body = self._read(offset + FRAME_HEAD_BYTES, frame.length)
        there = (len(self.blocks), self.events, self.lost)
        if body != end_bytes(*there):
            self._note_damage(
                offset,
                offset + FRAME_HEAD_BYTES + frame.length,
                "{} blocks with {} events and {} lost ones are there, not what its end says".format(
                    *there
                ),
            )

    def _next_frame(self, offset: int) -> int | None:
        """Where the next good head is, from `offset` on."""
        while offset < self._size:
            data = self._read(offset, _SEARCH_BYTES)
            found = data.find(SYNC)
            if found < 0:
                # A mark may begin in the last bytes of what was read.
                offset += max(len(data) - len(SYNC) + 1, 1)
                continue
            offset += found
            if parse_frame_head(self._read(offset, _HEAD_BYTES)) is not None:
                return offset
            offset += 1
        return None

    def _regular_size(self) -> int:
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode):
            raise CaptureInvalid("not a regular file", "capture")
        return status.st_size

    def _read(self, offset: int, length: int) -> bytes:
        parts: list[bytes] = []
        while length:
            part = os.pread(self._fd, length, offset)
            if not part:
                break
            parts.append(part)
            offset += len(part)
            length -= len(part)
        return b"".join(parts)
