"""Ring buffers of BPF, read in bulk: what lies in one becomes one array, without a loop.

Source: Documentation/bpf/ringbuf.rst; kernel/bpf/ringbuf.c: two pages with the positions of
reader and writer, then the data, mapped twice in a row so that what wraps around is in one piece.
"""

from __future__ import annotations

import mmap
import struct
import time

import numpy as np
import numpy.typing as npt

_BUSY = np.uint32(1 << 31)
_HEADER_BYTES = 8
_HEADER = struct.Struct("<I")


class Ring:
    """A ring buffer as its only reader sees it. `size_bytes` is a power of two."""

    def __init__(self, map_fd: int, size_bytes: int) -> None:
        page = mmap.PAGESIZE
        self.size_bytes = size_bytes
        self._reader = mmap.mmap(map_fd, page, mmap.MAP_SHARED)
        self._memory = mmap.mmap(
            map_fd, page + 2 * size_bytes, mmap.MAP_SHARED, mmap.PROT_READ, offset=page
        )
        self._consumed = np.frombuffer(self._reader, "<u8", 1)
        self._produced = np.frombuffer(self._memory, "<u8", 1)
        self._data = np.frombuffer(self._memory, "u1", 2 * size_bytes, page)

    def start(self) -> int:
        """Up to which position it has been read."""
        return int(self._consumed[0])

    def end(self) -> int:
        """Up to which position room has been taken; positions only grow."""
        return int(self._produced[0])

    def waiting_bytes(self) -> int:
        """How much has been written and not been read."""
        return self.end() - self.start()

    def look(self, kind: np.dtype[np.void], limit: int) -> npt.NDArray[np.void]:
        """Up to `limit` records, all of one type whose first field is the header.

        They lie in the ring itself: what is wanted of them is copied before `release`.
        """
        start = self.start()
        count = min((self.end() - start) // kind.itemsize, limit)
        offset = start & (self.size_bytes - 1)
        records = self._data[offset : offset + count * kind.itemsize].view(kind)
        # A record that is being written now ends what can be read.
        is_busy = (records["header"] & _BUSY) != 0
        if is_busy.any():
            records = records[: int(is_busy.argmax())]
        return records

    def release(self, records: npt.NDArray[np.void]) -> None:
        """Give back the room of what `look` has answered."""
        self._consumed[0] = self.start() + records.nbytes

    def take_mixed(self, end: int, patience_s: float = 0.1) -> list[bytes]:
        """Take the records before position `end`, each of its own length.

        One that is being written now is waited for; after `patience_s` it and those behind it
        are left for the next time.
        """
        found: list[bytes] = []
        at, busy = self.start(), int(_BUSY)
        give_up = time.monotonic() + patience_s
        while at < end:
            offset = at & (self.size_bytes - 1)
            (header,) = _HEADER.unpack_from(self._memory, mmap.PAGESIZE + offset)
            if header & busy:
                if time.monotonic() > give_up:
                    break
                continue
            first = mmap.PAGESIZE + offset + _HEADER_BYTES
            found.append(self._memory[first : first + header])
            at += _HEADER_BYTES + (header + 7 & ~7)
        self._consumed[0] = at
        return found
