"""Which files processes have open."""

from __future__ import annotations

from hostler.core.trace.chisel import Argument, Category, Chisel, Given, Kind
from hostler.core.trace.chisel_lines import columns
from hostler.core.trace.chisel_open_files import NOTE, OpenFiles
from hostler.core.trace.chisel_results import Heading, Table
from hostler.core.trace.events import Events

_SHOWN = columns(
    ("process", "proc.name"),
    ("pid", "proc.pid"),
    ("tid", "thread.tid"),
    ("user", "user.name"),
    ("fd", "fd.num"),
    ("type", "fd.type"),
    ("name", "fd.name"),
)
_HEADINGS = (Heading("host"), *(column.heading for column in _SHOWN))


class _Listing:
    def __init__(self, given: Given) -> None:
        self._files = OpenFiles(_SHOWN, given.filter("filter"))

    def take(self, events: Events, host: str) -> None:
        self._files.take(events, host)

    def result(self) -> Table:
        rows = tuple((host, *row) for host, row in self._files.rows())
        return Table(_HEADINGS, rows, notes=self._files.notes())


CHISEL = Chisel(
    "lsof",
    Category.STATE,
    "the files that processes have open at the end",
    _Listing,
    f"It is told from calls: {NOTE}. tid is the thread that used it last.",
    arguments=(Argument("filter", Kind.FILTER, "which files to list", ""),),
)
