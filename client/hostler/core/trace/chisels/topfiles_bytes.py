"""Which files were read and written most."""

from __future__ import annotations

from hostler.core.trace.chisel import Category
from hostler.core.trace.chisel_groups import BYTES, top

CHISEL = top(
    "topfiles_bytes",
    Category.IO,
    "files by bytes read and written",
    keys=(("file", "fd.name"),),
    value=BYTES,
    top=10,
    filter="fd.type=file and evt.is_io=true",
)
