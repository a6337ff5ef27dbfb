"""A column of numbers as few bytes, and back. Pure.

Numbers are written as what they are above the least of them, in as few bytes as the greatest
needs; those that mostly grow, as their steps, in the same way. A column of one value takes ten
bytes however long it is. What is left is for the compressor.

Reading believes nothing: every length is checked before anything is taken or made.
"""

from __future__ import annotations

import struct

import numpy as np

from hostler.core.trace.events import Column
from hostler.core.trace.schema import CaptureInvalid

_OFFSETS, _STEPS, _BYTES = range(3)
_HEAD = struct.Struct("<BBQ")  # how, bytes for each value, the least value or step
_FIRST = struct.Struct("<Q")
_WIDTHS = (0, 1, 2, 4, 8)


class Cursor:
    """Goes through bytes and never past their end; says where it was when it cannot go on."""

    def __init__(self, data: bytes, name: str) -> None:
        self._data = memoryview(data)
        self._name = name
        self._at = 0

    @property
    def place(self) -> str:
        """Where in the bytes the cursor is, in words."""
        return f"{self._name}, byte {self._at}"

    @property
    def left(self) -> int:
        """How many bytes there are yet."""
        return len(self._data) - self._at

    def take(self, length: int) -> memoryview:
        """The next bytes. Raises CaptureInvalid if there are fewer."""
        if length > self.left:
            raise CaptureInvalid(f"ends {length - self.left} bytes early", self.place)
        taken = self._data[self._at : self._at + length]
        self._at += length
        return taken

    def unpack(self, form: struct.Struct) -> tuple[int, ...]:
        """The next numbers. Raises CaptureInvalid."""
        return form.unpack(self.take(form.size))

    def rest(self) -> memoryview:
        """All bytes that are left, without going on."""
        return self._data[self._at :]

    def finish(self) -> None:
        """Raise CaptureInvalid if anything is left."""
        if self.left:
            raise CaptureInvalid(f"{self.left} bytes too many", self.place)


def encode_column(column: Column, grows: bool = False) -> bytes:
    """A column as bytes. `grows` says that its steps are likely smaller than its values."""
    if column.dtype.kind == "S":
        return _HEAD.pack(_BYTES, column.dtype.itemsize, 0) + column.tobytes()
    if not len(column):
        return _HEAD.pack(_OFFSETS, 0, 0)
    if grows:
        values = column.astype("<i8")
        body, width, least = _narrowed(values[1:] - values[:-1])
        return _HEAD.pack(_STEPS, width, least) + _FIRST.pack(_unsigned(int(values[0]))) + body
    body, width, least = _narrowed(column)
    return _HEAD.pack(_OFFSETS, width, least) + body


def _narrowed(values: Column) -> tuple[bytes, int, int]:
    """Values as bytes, how many bytes each takes, and the least value as an unsigned one."""
    if not len(values):
        return b"", 0, 0
    least, greatest = values.min(), values.max()
    span = int(greatest) - int(least)
    if not span:
        return b"", 0, _unsigned(int(least))
    width = next(w for w in _WIDTHS[1:] if span < 1 << (8 * w))
    # Unsigned, so that the difference of two far signed values is right as well.
    kind = f"<u{values.dtype.itemsize}"
    offsets = values.view(kind) - least.astype(values.dtype).view(kind)
    return offsets.astype(f"<u{width}").tobytes(), width, _unsigned(int(least))


def _unsigned(value: int) -> int:
    return value & 0xFFFF_FFFF_FFFF_FFFF


def decode_column(cursor: Cursor, length: int, kind: np.dtype[np.generic]) -> Column:
    """The column of `length` values that comes next. Raises CaptureInvalid.

    `length` has to be checked by the caller: a column of one value is that long from ten bytes.
    """
    place = cursor.place
    how, width, least = cursor.unpack(_HEAD)
    if how == _BYTES:
        if kind.kind != "S" or width != kind.itemsize:
            raise CaptureInvalid(f"{width} bytes for each value of type {kind.str}", place)
        return np.frombuffer(cursor.take(length * width), kind)
    if kind.kind == "S" or how not in (_OFFSETS, _STEPS) or width not in _WIDTHS:
        raise CaptureInvalid(f"encoding {how} of {width} bytes for type {kind.str}", place)
    if how == _OFFSETS:
        values = _widened(cursor, length, width, least)
    else:
        (first,) = cursor.unpack(_FIRST)
        if not length:
            raise CaptureInvalid("steps without a first value", place)
        values = np.empty(length, "<u8")
        values[0] = first
        values[1:] = _widened(cursor, length - 1, width, least)
        np.cumsum(values, out=values)
    return convert(values if kind.kind == "u" else values.view("<i8"), kind, place)


def _widened(cursor: Cursor, length: int, width: int, least: int) -> Column:
    if not width:
        return np.full(length, least, "<u8")
    offsets = np.frombuffer(cursor.take(length * width), f"<u{width}")
    return offsets.astype("<u8") + np.uint64(least)


def convert(values: Column, kind: np.dtype[np.generic], place: str) -> Column:
    """The values as another type. Raises CaptureInvalid if it cannot hold one of them."""
    if values.dtype == kind:
        return values
    if "S" in (values.dtype.kind, kind.kind):
        if values.dtype.kind == kind.kind and values.dtype.itemsize <= kind.itemsize:
            return values.astype(kind)
        raise CaptureInvalid(f"type {values.dtype.str} where {kind.str} is needed", place)
    limits = np.iinfo(kind.str)
    if len(values) and (int(values.min()) < limits.min or int(values.max()) > limits.max):
        raise CaptureInvalid(f"a value does not fit into type {kind.str}", place)
    return values.astype(kind)
