"""Vectors of TLS messages, written, and read within bounds. Source: RFC 8446, section 3."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from hostler.core.ssl.scan.errors import Malformed


def vector(body: bytes, size_bytes: int) -> bytes:
    """Put the length of a body before it, in so many bytes."""
    return len(body).to_bytes(size_bytes, "big") + body


def numbers(values: Sequence[int]) -> bytes:
    """Write numbers of two bytes each."""
    return struct.pack(f">{len(values)}H", *values)


class Reader:
    """Reads a message from its start to its end. Raises Malformed when it ends too early."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __len__(self) -> int:
        return len(self._data) - self._at

    def take(self, size_bytes: int) -> bytes:
        """The next bytes."""
        start = self._at
        end = start + size_bytes
        if end > len(self._data):
            raise Malformed(f"a message ends {end - len(self._data)} bytes too early")
        self._at = end
        return self._data[start:end]

    def number(self, size_bytes: int) -> int:
        """A number of so many bytes."""
        return int.from_bytes(self.take(size_bytes), "big")

    def vector(self, size_bytes: int) -> bytes:
        """A body whose length stands before it, in so many bytes."""
        return self.take(self.number(size_bytes))

    def numbers(self, size_bytes: int) -> tuple[int, ...]:
        """A vector of numbers of two bytes."""
        body = self.vector(size_bytes)
        if len(body) % 2:
            raise Malformed("a list of numbers has an odd length")
        return tuple(int.from_bytes(body[at : at + 2], "big") for at in range(0, len(body), 2))
