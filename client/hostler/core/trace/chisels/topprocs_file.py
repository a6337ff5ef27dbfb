"""Which processes read and wrote most bytes of files."""

from __future__ import annotations

from hostler.core.trace.chisel import Category
from hostler.core.trace.chisel_groups import BYTES, top

CHISEL = top(
    "topprocs_file",
    Category.IO,
    "processes by bytes read from and written to files",
    keys=(("process", "proc.name"), ("pid", "proc.pid")),
    value=BYTES,
    top=10,
    filter="fd.type=file and evt.is_io=true",
)
