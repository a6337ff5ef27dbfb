"""Bytes read from and written to files in each second."""

from __future__ import annotations

from hostler.core.trace.chisel import Category
from hostler.core.trace.chisel_seconds import bytes_by_second

CHISEL = bytes_by_second(
    "iobytes_file",
    Category.IO,
    "bytes read from and written to files in each second",
    "evt.is_io=true and fd.type=file",
)
