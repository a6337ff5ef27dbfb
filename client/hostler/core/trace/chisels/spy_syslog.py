"""What is written to the system log."""

from __future__ import annotations

from hostler.core.trace.chisel import Category, Chisel
from hostler.core.trace.chisel_lines import Stream, columns
from hostler.core.trace.field import Need

_SHOWN = columns(
    ("time", "evt.rawtime"),
    ("facility", "syslog.facility.str"),
    ("severity", "syslog.severity.str"),
    ("process", "proc.name"),
    ("tid", "thread.tid"),
    ("message", "syslog.message"),
)

CHISEL = Chisel(
    "spy_syslog",
    Category.LOGS,
    "every message that is written to the system log",
    lambda given: Stream(given, _SHOWN, Need.DATA),
    filter="evt.is_syslog=true and evt.rawres >= 0",
    needs=Need.DATA,
    streams=True,
)
