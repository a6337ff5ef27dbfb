"""What processes read and write."""

from __future__ import annotations

from hostler.core.trace.chisel import Category, Chisel
from hostler.core.trace.chisel_cells import shown
from hostler.core.trace.chisel_lines import Stream, columns
from hostler.core.trace.chisel_results import Unit
from hostler.core.trace.field import Need

_SHOWN = (
    *columns(("time", "evt.rawtime"), ("direction", "evt.io_dir")),
    shown("bytes", "evt.rawres", Unit.BYTES),
    *columns(("fd", "fd.name"), ("process", "proc.name"), ("data", "evt.buffer")),
)

CHISEL = Chisel(
    "echo_fds",
    Category.IO,
    "the data that processes read and write, of any fd",
    lambda given: Stream(given, _SHOWN, Need.DATA),
    filter="evt.is_io=true and evt.rawres > 0",
    needs=Need.DATA,
    streams=True,
)
