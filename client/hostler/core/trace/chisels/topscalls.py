"""Which calls were made most often."""

from __future__ import annotations

from hostler.core.trace.chisel import Category
from hostler.core.trace.chisel_groups import CALLS, top

CHISEL = top(
    "topscalls",
    Category.PERFORMANCE,
    "system calls by how often they were made",
    keys=(("call", "evt.type"),),
    value=CALLS,
    top=30,
)
