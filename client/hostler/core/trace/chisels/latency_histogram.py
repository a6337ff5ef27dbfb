"""How long calls take, as a histogram."""

from __future__ import annotations

import numpy as np

from hostler.core.trace import times
from hostler.core.trace.chisel import Category, Chisel, Given
from hostler.core.trace.chisel_latency import BINS, at_most_ns, bins_of, label
from hostler.core.trace.chisel_picture import Panel, bars_svg, bars_text
from hostler.core.trace.chisel_results import Picture
from hostler.core.trace.events import Column, Events

_TITLE = "latencies of calls"
_SHARES = (0.5, 0.9, 0.99, 0.999)


class _Histogram:
    def __init__(self, given: Given) -> None:
        self._given = given
        self._counts: dict[str, Column] = {}

    def take(self, events: Events, host: str) -> None:
        _, bins = bins_of(events)
        key = host if self._given.per_host else ""
        counts = np.bincount(bins, minlength=BINS)
        self._counts[key] = self._counts.get(key, np.zeros(BINS, np.int64)) + counts

    def result(self) -> Picture:
        counted = sorted(self._counts.items())
        panels = [_panel(host, counts) for host, counts in counted if counts.any()]
        notes = tuple(_note(host, counts) for host, counts in counted if counts.any())
        return Picture(bars_svg(_TITLE, panels), bars_text(panels), notes)


def _panel(host: str, counts: Column) -> Panel:
    used = np.flatnonzero(counts)
    shown = range(int(used[0]), int(used[-1]) + 1)
    row = tuple(int(counts[i]) for i in shown)
    return Panel(host or "calls from each latency on", tuple(map(label, shown)), (row,))


def _note(host: str, counts: Column) -> str:
    parts = []
    for share in _SHARES:
        most_ns = at_most_ns(counts, share)
        bound = f"less than {times.duration(most_ns)}" if most_ns else "more than all bins"
        parts.append(f"{share:.1%}".replace(".0%", "%") + f" took {bound}")
    return f"{host + ': ' if host else ''}of {int(counts.sum())} calls " + ", ".join(parts)


CHISEL = Chisel(
    "latency_histogram",
    Category.PERFORMANCE,
    "how long calls take, as a picture with percentiles",
    _Histogram,
    "Latencies are counted in steps of a tenth of a power of ten, which is how exact percentiles "
    "are.",
    filter="evt.latency > 0",
)
