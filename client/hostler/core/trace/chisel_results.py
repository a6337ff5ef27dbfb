"""What a chisel answers: a table, lines, a picture, or events that it kept. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from hostler.core.trace import times
from hostler.core.trace.events import Events

Cell = int | str | None
"""A value; None where there is none. Texts hold what was traced: `in_words` makes them safe."""

Row = tuple[Cell, ...]


class Unit(StrEnum):
    """What the values of a column are, and so how they are shown."""

    TEXT = "text"
    DATA = "data"
    """A text of several lines."""
    NUMBER = "number"
    """It names something, as a pid does; it is not added up."""
    COUNT = "count"
    BYTES = "bytes"
    DURATION = "duration"
    """Nanoseconds."""
    TIME = "time"
    """Nanoseconds since 1970, UTC."""


@dataclass(frozen=True, slots=True)
class Heading:
    """A column: its name and unit."""

    name: str
    unit: Unit = Unit.TEXT


@dataclass(frozen=True, slots=True)
class Table:
    """Rows in the order to show them.

    `other` sums up the rows that are left out, None if none is: with `rows` it makes the whole.
    `notes` say what the numbers do not.
    """

    headings: tuple[Heading, ...]
    rows: tuple[Row, ...]
    other: Row | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Lines:
    """Rows that came since the result before, in the order in which they came.

    `skipped` is how many more there were than are kept between two results.
    """

    headings: tuple[Heading, ...]
    rows: tuple[Row, ...]
    skipped: int = 0
    notes: tuple[str, ...] = ()

    def lines(self) -> Iterator[str]:
        """Each row as text."""
        for row in self.rows:
            yield " ".join(
                in_words(cell, heading.unit)
                for cell, heading in zip(row, self.headings, strict=True)
            )


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as an SVG document, and as lines of text for terminals."""

    svg: str
    text: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Kept:
    """Events of each host that are to be shown or stored; `skipped` more were too many to keep."""

    by_host: Mapping[str, Events]
    skipped: int = 0


Result = Table | Lines | Picture | Kept

_BYTE_UNITS = ("", "K", "M", "G", "T", "P", "E")


def in_words(cell: Cell, unit: Unit) -> str:
    """A value for people. No byte of what was traced reaches a terminal as a command."""
    if cell is None:
        return "-"
    if isinstance(cell, str):
        return _printable(cell, keeps_lines=unit is Unit.DATA)
    if unit is Unit.BYTES:
        return size(cell)
    if unit is Unit.DURATION:
        return times.duration(cell)
    if unit is Unit.TIME:
        return times.clock(cell)
    return str(cell)


def size(count_bytes: int) -> str:
    """A number of bytes for people, in powers of 1024: 512, 1.5K, 20M."""
    scaled, power = float(count_bytes), 0
    while abs(scaled) >= 1024 and power < len(_BYTE_UNITS) - 1:
        scaled, power = scaled / 1024, power + 1
    return f"{scaled:.1f}".removesuffix(".0") + _BYTE_UNITS[power]


def _printable(text: str, *, keeps_lines: bool) -> str:
    kept = "\n\t" if keeps_lines else ""
    return "".join(c if c.isprintable() or c in kept else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
