"""Reads and writes of IP sockets that took longer than a threshold."""

from __future__ import annotations

from hostler.core.trace.chisel import Category
from hostler.core.trace.chisel_lines import columns, slower

CHISEL = slower(
    "netlower",
    Category.PERFORMANCE,
    "network reads and writes that took longer than a threshold",
    "evt.is_io=true and fd.type in (ipv4, ipv6)",
    columns(
        ("time", "evt.rawtime"),
        ("process", "proc.name"),
        ("call", "evt.type"),
        ("latency", "evt.latency"),
        ("connection", "fd.name"),
    ),
)
