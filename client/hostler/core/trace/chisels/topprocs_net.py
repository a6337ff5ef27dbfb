"""Which processes sent and received most bytes."""

from __future__ import annotations

from hostler.core.trace.chisel import Category
from hostler.core.trace.chisel_groups import BYTES, top

CHISEL = top(
    "topprocs_net",
    Category.NET,
    "processes by bytes sent and received over IP",
    keys=(("process", "proc.name"), ("pid", "proc.pid")),
    value=BYTES,
    top=100,
    filter="fd.type in (ipv4, ipv6) and evt.is_io=true",
)
