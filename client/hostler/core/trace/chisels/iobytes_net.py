"""Bytes sent and received in each second."""

from __future__ import annotations

from hostler.core.trace.chisel import Category
from hostler.core.trace.chisel_seconds import bytes_by_second

CHISEL = bytes_by_second(
    "iobytes_net",
    Category.NET,
    "bytes sent and received over IP in each second",
    "evt.is_io=true and fd.type in (ipv4, ipv6)",
)
