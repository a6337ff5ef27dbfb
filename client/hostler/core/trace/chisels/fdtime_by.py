"""How long was spent reading and writing, by any field."""

from __future__ import annotations

from hostler.core.trace.chisel_groups import TIME, top_by

CHISEL = top_by(
    "fdtime_by",
    "time spent reading and writing, by a field of your choice",
    value=TIME,
    top=10,
    filter="evt.is_io=true",
)
