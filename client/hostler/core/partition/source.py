"""Where a partition table is read from: bytes at places, and never beyond the end."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

MAX_READ_BYTES = 1 << 20
"""More than any read of a table needs: 1024 entries of 128 bytes are 128 KiB."""


@dataclass(frozen=True, slots=True)
class Source:
    """A device, or a dump of one: `read(offset_bytes, size_bytes)` may answer less, at its end."""

    read: Callable[[int, int], bytes]
    size_bytes: int

    def at(self, offset_bytes: int, size_bytes: int) -> bytes:
        """Read what there is of that range; empty if it lies beyond the end."""
        if not 0 <= offset_bytes < self.size_bytes:
            return b""
        wanted = min(size_bytes, MAX_READ_BYTES, self.size_bytes - offset_bytes)
        return self.read(offset_bytes, wanted)


def of_bytes(dump: bytes) -> Source:
    """A dump in memory."""
    return Source(lambda offset, size: dump[offset : offset + size], len(dump))


def of_descriptor(descriptor: int) -> Source:
    """An open device or file; it is read at places, and its own place does not move."""
    size_bytes = os.lseek(descriptor, 0, os.SEEK_END)
    return Source(lambda offset, size: os.pread(descriptor, size, offset), size_bytes)
