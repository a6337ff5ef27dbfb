"""On which files calls failed most often."""

from __future__ import annotations

from hostler.core.trace.chisel import Category
from hostler.core.trace.chisel_groups import ERRORS, top

CHISEL = top(
    "topfiles_errors",
    Category.ERRORS,
    "open files by calls that failed",
    keys=(("file", "fd.name"),),
    value=ERRORS,
    top=100,
    filter="fd.type=file and evt.failed=true",
)
