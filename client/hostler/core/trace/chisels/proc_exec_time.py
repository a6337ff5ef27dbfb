"""How long processes ran."""

from __future__ import annotations

from hostler.core.trace.chisel import Category, Chisel
from hostler.core.trace.chisel_lines import Stream, columns

_SHOWN = columns(
    ("time", "evt.rawtime"),
    ("duration", "proc.duration"),
    ("process", "proc.name"),
    ("pid", "proc.pid"),
    ("arguments", "proc.args"),
)

CHISEL = Chisel(
    "proc_exec_time",
    Category.PERFORMANCE,
    "processes that end, and how long they ran",
    lambda given: Stream(given, _SHOWN),
    "A process that a signal kills makes no call to end, and is not seen. Arguments are shown if "
    "the trace keeps command lines.",
    filter="evt.type=exit_group",
    streams=True,
)
