"""How long calls take, and how that changes with time, as a picture."""

from __future__ import annotations

import numpy as np

from hostler.core.trace import times
from hostler.core.trace.chisel import Argument, Category, Chisel, Given, Kind
from hostler.core.trace.chisel_latency import BINS, bins_of, label
from hostler.core.trace.chisel_picture import Panel, grid_svg, grid_text
from hostler.core.trace.chisel_results import Picture
from hostler.core.trace.events import Column, Events

MOST_SLOTS = 600
"""How many rows a picture has; if there are more, each is made to last twice as long."""

_TITLE = "latencies of calls as time goes by"
_TICKS = tuple((bin, label(bin)) for bin in range(0, BINS, 10))


class Spectrogram:
    """Counts by latency of each while of each host; of all hosts as one if they are summed."""

    def __init__(self, given: Given) -> None:
        self._given = given
        self._width_ns = max(1, given.number("refresh_time")) * 1_000_000
        self.hosts: dict[str, dict[int, Column]] = {}
        self._doublings = 0

    def take(self, events: Events, host: str) -> None:
        """Count a batch."""
        rows, bins = bins_of(events)
        slots = self.hosts.setdefault(host if self._given.per_host else "", {})
        number = times.finished(events)[rows] // np.uint64(self._width_ns)
        for slot in np.unique(number).tolist():
            counts = np.bincount(bins[number == slot], minlength=BINS)
            slots[slot] = slots.get(slot, np.zeros(BINS, np.int64)) + counts
        while any(_span(slots) > MOST_SLOTS for slots in self.hosts.values()):
            self._double()

    def _double(self) -> None:
        self._width_ns, self._doublings = self._width_ns * 2, self._doublings + 1
        for host, slots in self.hosts.items():
            merged: dict[int, Column] = {}
            for slot, counts in slots.items():
                merged[slot // 2] = merged.get(slot // 2, np.zeros(BINS, np.int64)) + counts
            self.hosts[host] = merged

    def result(self) -> Picture:
        """Draw what was counted."""
        panels = [self._panel(host, slots) for host, slots in sorted(self.hosts.items()) if slots]
        notes = (
            (f"the trace is long: a row is {times.duration(self._width_ns)}",)
            if self._doublings
            else ()
        )
        return Picture(grid_svg(_TITLE, panels, _TICKS), grid_text(panels, _TICKS), notes)

    def _panel(self, host: str, slots: dict[int, Column]) -> Panel:
        shown = range(min(slots), max(slots) + 1)
        labels = tuple(times.clock(slot * self._width_ns, 3) for slot in shown)
        none = np.zeros(BINS, np.int64)
        rows = tuple(tuple(slots.get(slot, none).tolist()) for slot in shown)
        return Panel(host or f"calls in {times.duration(self._width_ns)}", labels, rows)


def _span(slots: dict[int, Column]) -> int:
    return max(slots) - min(slots) + 1 if slots else 0


CHISEL = Chisel(
    "spectrogram",
    Category.CPU,
    "how long calls take as time goes by, as a picture",
    Spectrogram,
    "Each row is a while, each column a latency: the stronger, the more calls.",
    filter="evt.latency > 0",
    arguments=(
        Argument("refresh_time", Kind.MILLISECONDS, "how long a row is, in milliseconds", "500"),
    ),
)
