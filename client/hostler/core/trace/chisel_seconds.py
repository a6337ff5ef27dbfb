"""Chisels that add up bytes by second. Pure."""

from __future__ import annotations

import numpy as np

from hostler.core.trace import calls
from hostler.core.trace.chisel import Category, Chisel, Given
from hostler.core.trace.chisel_groups import OTHER
from hostler.core.trace.chisel_results import Heading, Row, Table, Unit
from hostler.core.trace.events import Events
from hostler.core.trace.times import SECOND_NS, finished

MOST_SECONDS = 100_000
"""Of how many seconds the sums are kept: more than a day."""

_HEADINGS = (
    Heading("time", Unit.TIME),
    Heading("in", Unit.BYTES),
    Heading("out", Unit.BYTES),
    Heading("total", Unit.BYTES),
)


class _Seconds:
    def __init__(self, given: Given) -> None:
        self._given = given
        self._sums: dict[tuple[int, str], list[int]] = {}
        self._older = [0, 0]

    def take(self, events: Events, host: str) -> None:
        # A call counts when it returned, and a failed one carries nothing.
        bytes_each = np.maximum(events["result"], 0)
        is_read = calls.among(events, calls.READS)
        unique, codes = np.unique(finished(events) // np.uint64(SECOND_NS), return_inverse=True)
        sums = np.zeros((2, len(unique)), np.int64)
        np.add.at(sums, (np.where(is_read, 0, 1), codes), bytes_each)
        for second, read, written in zip(unique.tolist(), *sums.tolist(), strict=True):
            if read or written:
                key = second, host if self._given.per_host else ""
                self._sums.setdefault(key, [0, 0])
                self._sums[key][0] += read
                self._sums[key][1] += written
        for key in sorted(self._sums)[: max(0, len(self._sums) - MOST_SECONDS)]:
            read, written = self._sums.pop(key)
            self._older[0] += read
            self._older[1] += written

    def result(self) -> Table:
        rows = [
            self._row(second * SECOND_NS, host, *sums)
            for (second, host), sums in sorted(self._sums.items())
        ]
        older = self._row(None, OTHER, *self._older) if any(self._older) else None
        host = (Heading("host"),) if self._given.per_host else ()
        return Table((*host, *_HEADINGS), tuple(rows), older)

    def _row(self, time_ns: int | None, host: str, read: int, written: int) -> Row:
        start: Row = (host,) if self._given.per_host else ()
        return (*start, time_ns, read, written, read + written)


def bytes_by_second(name: str, category: Category, summary: str, filter: str) -> Chisel:
    """A chisel that adds up bytes read and written in each second."""
    return Chisel(name, category, summary, _Seconds, filter=filter)
