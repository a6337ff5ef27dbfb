"""Where the fields of events and of pages lie, as the kernel describes them in text. Pure.

Source: Documentation/trace/events.rst, and events/header_page.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_ID = re.compile(r"^ID: (\d{1,9})$", re.MULTILINE)
_FIELD = re.compile(
    r"field:\s?([^;]{1,200}?)\s?([A-Za-z_][A-Za-z0-9_]{0,63})(?:\[\w*\])?;"
    r"\toffset:(\d{1,6});\tsize:(\d{1,6});"
)


class FormatUnknown(OSError):
    """The kernel has events of another form than this engine reads; the words say which."""


@dataclass(frozen=True, slots=True)
class Format:
    """An event: its number, and where its fields begin and how many bytes they have.

    Fields of changing length have an offset and a length in their place.
    """

    name: str
    number: int
    fields: Mapping[str, tuple[int, int]]

    def at(self, field: str, size_bytes: int) -> int:
        """Where a field begins. Raises FormatUnknown unless it has this size, in whole words."""
        offset, size = self.fields.get(field, (0, 0))
        if size != size_bytes or offset % 4:
            raise FormatUnknown(0, f"{field} is not there with {size_bytes} bytes", self.name)
        return offset


@dataclass(frozen=True, slots=True)
class PageFormat:
    """A page of the ring: where it says how much it holds, where that begins, and its size."""

    commit: int
    data: int
    size_bytes: int


def event_format(name: str, text: str) -> Format:
    """Read an event's `format` file. Raises FormatUnknown."""
    number = _ID.search(text)
    if number is None:
        raise FormatUnknown(0, "it has no number", name)
    return Format(name, int(number[1]), _fields(text))


def page_format(text: str) -> PageFormat:
    """Read events/header_page. Raises FormatUnknown."""
    page = Format("header_page", 0, _fields(text))
    if page.at("timestamp", 8) != 0:
        raise FormatUnknown(0, "timestamp is not at its beginning", page.name)
    offset, size = page.fields.get("data", (0, 0))
    if not offset or offset % 4 or size % 4:
        raise FormatUnknown(0, "data is not in whole words", page.name)
    return PageFormat(page.at("commit", 8), offset, offset + size)


def _fields(text: str) -> dict[str, tuple[int, int]]:
    return {name: (int(at), int(size)) for _, name, at, size in _FIELD.findall(text)}
