"""Chisels that show events one by one as they come, in bounded memory. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from hostler.core.trace.chisel import Argument, Category, Chisel, Given, Kind, Selecting
from hostler.core.trace.chisel_cells import Shown, at, shown
from hostler.core.trace.chisel_results import Heading, Lines, Row
from hostler.core.trace.events import Column, Events, Flag
from hostler.core.trace.field import Need
from hostler.core.trace.values import Numbers

MOST_LINES = 100_000
"""How many lines are kept between two results."""


class LineBuffer:
    """Rows until somebody asks for them."""

    def __init__(self, headings: tuple[Heading, ...], most: int = MOST_LINES) -> None:
        self._headings, self._most = headings, most
        self._rows: list[Row] = []
        self._skipped = 0

    def room(self) -> int:
        """How many more rows are kept."""
        return self._most - len(self._rows)

    def extend(self, rows: Iterable[Row], skipped: int = 0) -> None:
        """Add rows; `skipped` more had no room."""
        for row in rows:
            if self.room() > 0:
                self._rows.append(row)
            else:
                self._skipped += 1
        self._skipped += skipped

    def drain(self, notes: tuple[str, ...] = ()) -> Lines:
        """The rows since the last time."""
        lines = Lines(self._headings, tuple(self._rows), self._skipped, notes)
        self._rows, self._skipped = [], 0
        return lines


class Stream:
    """A chisel at work that shows fields of each event."""

    def __init__(self, given: Given, columns: tuple[Shown, ...], needs: Need = Need.NOTHING):
        self._given, self._columns, self._needs = given, columns, needs
        self._withheld = 0
        host = (Heading("host"),) if given.per_host else ()
        self._buffer = LineBuffer((*host, *(column.heading for column in columns)))

    def take(self, events: Events, host: str) -> None:
        """Add a batch."""
        if self._needs & Need.DATA:
            self._withheld += int(np.count_nonzero(events["flags"] & Flag.DATA_WITHHELD))
        # Rows that nobody will see are not made.
        skipped = max(0, len(events) - self._buffer.room())
        events = events.select(np.arange(len(events) - skipped))
        values = [column.field.values(events) for column in self._columns]
        start: Row = (host,) if self._given.per_host else ()
        rows = (
            (*start, *(at(*pair, i) for pair in zip(self._columns, values, strict=True)))
            for i in range(len(events))
        )
        self._buffer.extend(rows, skipped)

    def result(self) -> Lines:
        """The rows since the last result."""
        if not self._withheld:
            return self._buffer.drain()
        return self._buffer.drain(
            (f"{self._withheld} of these calls carried data that the trace did not keep",)
        )


def columns(*pairs: tuple[str, str]) -> tuple[Shown, ...]:
    """Columns, given as names and fields."""
    return tuple(shown(name, field) for name, field in pairs)


def slower(
    name: str, category: Category, summary: str, filter: str, shows: tuple[Shown, ...]
) -> Chisel:
    """A chisel that shows the calls that took longer than a threshold."""
    latency = shown("latency", "evt.latency").field

    def make(given: Given) -> Selecting:
        threshold_ns = given.nanoseconds("min_ms")

        def is_slow(events: Events) -> Column:
            values = latency.values(events)
            if not isinstance(values, Numbers):
                raise TypeError("a latency is a number")
            return values.present() & (values.column > threshold_ns)

        return Selecting(is_slow, Stream(given, shows))

    argument = Argument("min_ms", Kind.MILLISECONDS, "calls that took longer are shown")
    return Chisel(name, category, summary, make, filter=filter, arguments=(argument,), streams=True)


def standard_stream(name: str, fd: int, summary: str) -> Chisel:
    """A chisel that shows the data of one fd number."""
    shows = columns(("data", "evt.buffer"))

    def make(given: Given) -> Selecting:
        return Selecting(lambda events: events["data"] > 0, Stream(given, shows))

    return Chisel(
        name,
        Category.IO,
        summary,
        make,
        filter=f"fd.num={fd} and evt.is_io=true",
        needs=Need.DATA,
        streams=True,
    )
