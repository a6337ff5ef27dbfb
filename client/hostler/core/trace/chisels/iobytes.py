"""Bytes read and written in each second."""

from __future__ import annotations

from hostler.core.trace.chisel import Category
from hostler.core.trace.chisel_seconds import bytes_by_second

CHISEL = bytes_by_second(
    "iobytes", Category.IO, "bytes read and written in each second, of any fd", "evt.is_io=true"
)
