"""Which files processes have open, as far as their calls tell. Pure."""

from __future__ import annotations

import numpy as np

from hostler.core.trace import calls
from hostler.core.trace.chisel_cells import Shown, at
from hostler.core.trace.chisel_results import Row
from hostler.core.trace.events import Column, Events
from hostler.core.trace.filter import Filter

MOST_OPEN = 65_536
NOTE = "files that no call used during the trace are not known"
"""What is true of every answer: a trace has calls, and no list of what was open before."""

_CLOSES = frozenset({"close"})
_EXITS = frozenset({"exit_group"})


def last_of_each(*parts: Column) -> Column:
    """The row of the last event of each combination of these columns' values."""
    order = np.lexsort((np.arange(len(parts[0])), *parts))
    ends = np.zeros(len(order), bool)
    ends[-1:] = True
    for part in parts:
        ends[:-1] |= part[order][1:] != part[order][:-1]
    rows: Column = np.sort(order[ends])
    return rows


class OpenFiles:
    """The open files of each process of each host, each with a row that shows it."""

    def __init__(self, columns: tuple[Shown, ...], filter: Filter) -> None:
        self._columns, self._filter = columns, filter
        self._open: dict[tuple[str, int, int], Row] = {}
        self._skipped = 0

    def take(self, events: Events, host: str) -> None:
        """Learn from a batch."""
        pids = events.of_process("pid")
        has_file = (events["fd"] >= 0) & (events["file"] > 0)
        rows = np.flatnonzero(has_file | calls.among(events, _EXITS))
        events, pids = events.select(rows), pids[rows]
        closed = calls.among(events, _CLOSES) & (events["result"] == 0)
        exited = calls.among(events, _EXITS)
        fds = np.where(exited, -1, events["fd"])
        last = last_of_each(pids, fds)
        shown = self._filter.matches(events) & ~closed
        values = [column.field.values(events) for column in self._columns]
        for i in last.tolist():
            pid, fd = int(pids[i]), int(fds[i])
            if exited[i]:
                self._end(host, pid)
            elif not shown[i]:
                self._open.pop((host, pid, fd), None)
            else:
                row = tuple(at(*pair, i) for pair in zip(self._columns, values, strict=True))
                self._keep((host, pid, fd), row)

    def _end(self, host: str, pid: int) -> None:
        for key in [key for key in self._open if key[:2] == (host, pid)]:
            del self._open[key]

    def _keep(self, key: tuple[str, int, int], row: Row) -> None:
        if key in self._open or len(self._open) < MOST_OPEN:
            self._open[key] = row
        else:
            self._skipped += 1

    def rows(self) -> list[tuple[str, Row]]:
        """The rows of what is open, each with its host, by host, pid and fd."""
        return [(key[0], row) for key, row in sorted(self._open.items())]

    def notes(self) -> tuple[str, ...]:
        """What the rows do not say."""
        skipped = (f"more than {MOST_OPEN} files: {self._skipped} were skipped",)
        return (NOTE, *(skipped if self._skipped else ()))
