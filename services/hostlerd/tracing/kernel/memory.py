"""Reads what the kernel says of its memory. Source: proc(5)."""

from __future__ import annotations

import re

from hostlerd.tracing.errors import KernelUnreadable
from hostlerd.tracing.kernel import proc
from hostlerd.tracing.model.memory import Zones

_PAGE_BYTES = 4096
_KIB = 1024
_LINE = re.compile(r"^\s*(low|high|managed|protection:?)\s+(.*)$")


def meminfo() -> dict[str, int]:
    """/proc/meminfo in bytes; the numbers of huge pages are numbers. Raises KernelUnreadable."""
    found = {}
    for name, value in proc.fields("/proc/meminfo").items():
        number, _, unit = value.partition(" ")
        found[name] = int(number) * (_KIB if unit == "kB" else 1)
    if not found.get("MemTotal"):
        raise KernelUnreadable("/proc/meminfo does not tell the total")
    return found


def zones() -> Zones:
    """What the kernel keeps back, over all zones. Source: mm/page_alloc.c, totalreserve."""
    low = reserve = 0
    for zone in proc.text("/proc/zoneinfo", proc.MOST_BYTES).split("\nNode "):
        values = {m[1].rstrip(":"): m[2] for m in map(_LINE.match, zone.splitlines()) if m}
        if "managed" not in values:
            continue
        protection = re.findall(r"\d+", values.get("protection", ""))
        highest = max(map(int, protection), default=0)
        low += int(values.get("low", 0))
        reserve += min(highest + int(values.get("high", 0)), int(values["managed"]))
    return Zones(low * _PAGE_BYTES, reserve * _PAGE_BYTES)
