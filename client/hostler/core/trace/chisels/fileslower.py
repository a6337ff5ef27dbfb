"""Reads and writes of files that took longer than a threshold. Devices are left out."""

from __future__ import annotations

from hostler.core.trace.chisel import Category
from hostler.core.trace.chisel_lines import columns, slower

CHISEL = slower(
    "fileslower",
    Category.PERFORMANCE,
    "reads and writes of files that took longer than a threshold",
    "evt.is_io=true and fd.type=file and not fd.name startswith /dev/",
    columns(
        ("time", "evt.rawtime"),
        ("process", "proc.name"),
        ("call", "evt.type"),
        ("latency", "evt.latency"),
        ("file", "fd.name"),
    ),
)
