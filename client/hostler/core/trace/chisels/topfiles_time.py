"""On which files most time was spent."""

from __future__ import annotations

from hostler.core.trace.chisel import Category
from hostler.core.trace.chisel_groups import TIME, top

CHISEL = top(
    "topfiles_time",
    Category.IO,
    "files by time spent reading and writing",
    keys=(("file", "fd.name"),),
    value=TIME,
    top=10,
    filter="fd.type=file and evt.is_io=true",
)
