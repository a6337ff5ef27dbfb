"""Which processes and threads made calls."""

from __future__ import annotations

from hostler.core.trace import calls
from hostler.core.trace.chisel import Argument, Category, Chisel, Given, Kind, Selecting
from hostler.core.trace.chisel_cells import at
from hostler.core.trace.chisel_lines import columns
from hostler.core.trace.chisel_open_files import last_of_each
from hostler.core.trace.chisel_results import Heading, Row, Table
from hostler.core.trace.events import Events

MOST_THREADS = 65_536
_SHOWN = columns(
    ("tid", "thread.tid"),
    ("pid", "proc.pid"),
    ("ppid", "proc.ppid"),
    ("user", "user.name"),
    ("unit", "proc.unit"),
    ("process", "proc.name"),
    ("command", "proc.cmdline"),
)
_EXITS = frozenset({"exit", "exit_group"})


class _Listing:
    def __init__(self) -> None:
        self._threads: dict[tuple[str, int], Row] = {}
        self._skipped = 0

    def take(self, events: Events, host: str) -> None:
        has_ended = calls.among(events, _EXITS)
        values = [column.field.values(events) for column in _SHOWN]
        for i in last_of_each(events["tid"]).tolist():
            key = host, int(events["tid"][i])
            if key not in self._threads and len(self._threads) >= MOST_THREADS:
                self._skipped += 1
                continue
            cells = (at(*pair, i) for pair in zip(_SHOWN, values, strict=True))
            self._threads[key] = (host, *cells, "ended" if has_ended[i] else None)

    def result(self) -> Table:
        headings = (Heading("host"), *(column.heading for column in _SHOWN), Heading("state"))
        rows = tuple(row for _, row in sorted(self._threads.items()))
        skipped = (f"more than {MOST_THREADS} threads: others were skipped",)
        return Table(headings, rows, notes=skipped if self._skipped else ())


def _make(given: Given) -> Selecting:
    return Selecting(given.filter("filter").matches, _Listing())


CHISEL = Chisel(
    "ps",
    Category.STATE,
    "the processes and threads that made calls",
    _make,
    "What made no call during the trace is not known, and memory is not: `hostler trace mem` tells "
    "it. Commands are shown if the trace keeps command lines.",
    arguments=(Argument("filter", Kind.FILTER, "which ones to list", ""),),
)
