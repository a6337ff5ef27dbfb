"""Which connections carried most bytes."""

from __future__ import annotations

from hostler.core.trace.chisel import Category
from hostler.core.trace.chisel_groups import BYTES, top

CHISEL = top(
    "topconns",
    Category.NET,
    "connections by bytes sent and received",
    keys=(("protocol", "fd.l4proto"), ("connection", "fd.name")),
    value=BYTES,
    top=30,
    filter="fd.type in (ipv4, ipv6) and evt.is_io=true",
)
