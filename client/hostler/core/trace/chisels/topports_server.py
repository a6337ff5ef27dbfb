"""Which server ports carried most bytes."""

from __future__ import annotations

from hostler.core.trace.chisel import Category
from hostler.core.trace.chisel_groups import BYTES, top

CHISEL = top(
    "topports_server",
    Category.NET,
    "server ports by bytes sent and received",
    keys=(("port", "fd.sport"),),
    value=BYTES,
    top=100,
    filter="fd.type in (ipv4, ipv6) and evt.is_io=true",
)
