"""In which calls most time was spent."""

from __future__ import annotations

from hostler.core.trace.chisel import Category
from hostler.core.trace.chisel_groups import TIME, top

CHISEL = top(
    "topscalls_time",
    Category.PERFORMANCE,
    "system calls by time spent in them",
    keys=(("call", "evt.type"),),
    value=TIME,
    top=30,
)
