"""What is read from and written to files, or to one file."""

from __future__ import annotations

from collections.abc import Callable

from hostler.core.trace import calls
from hostler.core.trace.chisel import Argument, Category, Chisel, Given, Kind, Selecting
from hostler.core.trace.chisel_cells import shown
from hostler.core.trace.chisel_lines import Stream, columns
from hostler.core.trace.chisel_results import Unit
from hostler.core.trace.events import Column, Events
from hostler.core.trace.field import Need
from hostler.core.trace.values import by_file

_SHOWN = (
    *columns(("time", "evt.rawtime"), ("process", "proc.name"), ("pid", "proc.pid")),
    *(shown("direction", "evt.io_dir"), shown("bytes", "evt.rawres", Unit.BYTES)),
    *columns(("file", "fd.name"), ("data", "evt.buffer")),
)
_DIRECTIONS = {"R": calls.READS, "W": calls.WRITES, "RW": calls.READS | calls.WRITES}


def _is_wanted(name: bytes) -> Callable[[bytes], bool]:
    if name:
        return lambda path: path == name
    # A terminal would show what it shows of itself, and so for ever.
    return lambda path: b"/dev/pt" not in path and b"/dev/tty" not in path


def _make(given: Given) -> Selecting:
    direction = _DIRECTIONS[given.text("read_or_write")]
    is_wanted = _is_wanted(given.text("spy_on_file_name").encode())

    def wanted(events: Events) -> Column:
        names = by_file(events, lambda row: events.texts[events.files["name"][row]])
        mask: Column = calls.among(events, direction) & names.where(is_wanted)
        return mask

    return Selecting(wanted, Stream(given, _SHOWN, Need.DATA))


CHISEL = Chisel(
    "spy_file",
    Category.IO,
    "the data read from and written to files, or one file",
    _make,
    filter="evt.is_io=true and fd.type=file and evt.rawres >= 0",
    arguments=(
        Argument(
            "read_or_write", Kind.CHOICE, "R reads, W writes, RW both", "RW", ("R", "W", "RW")
        ),
        Argument("spy_on_file_name", Kind.TEXT, "the path of the only file of interest", ""),
    ),
    needs=Need.DATA,
    streams=True,
)
