"""Calls that took longer than a threshold."""

from __future__ import annotations

from hostler.core.trace.chisel import Category
from hostler.core.trace.chisel_lines import columns, slower

CHISEL = slower(
    "scallslower",
    Category.PERFORMANCE,
    "calls that took longer than a threshold",
    "",
    columns(
        ("time", "evt.rawtime"),
        ("process", "proc.name"),
        ("tid", "thread.tid"),
        ("latency", "evt.latency"),
        ("call", "evt.type"),
    ),
)
