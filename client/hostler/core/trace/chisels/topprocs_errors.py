"""Which processes' calls failed most often."""

from __future__ import annotations

from hostler.core.trace.chisel import Category
from hostler.core.trace.chisel_groups import ERRORS, top

CHISEL = top(
    "topprocs_errors",
    Category.ERRORS,
    "processes by calls that failed",
    keys=(("process", "proc.name"), ("pid", "proc.pid")),
    value=ERRORS,
    top=100,
    filter="evt.failed=true",
)
