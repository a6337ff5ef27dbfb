"""Latencies counted in steps of a tenth of a power of ten. Pure."""

from __future__ import annotations

import numpy as np

from hostler.core.trace import times
from hostler.core.trace.events import Column, Events

_FIRST_POWER, _POWERS, _STEPS = 2, 9, 10

EDGES_NS = np.array(
    [round(10 ** (_FIRST_POWER + i / _STEPS)) for i in range(1, _POWERS * _STEPS)], np.uint64
)
"""Where a bin ends and the next one begins; the last one begins at 79 seconds."""

BINS = len(EDGES_NS) + 1


def bins_of(events: Events) -> tuple[Column, Column]:
    """Answer the rows of the calls that have a latency, and the bin of each."""
    rows = np.flatnonzero(events["latency_ns"] > 0)
    return rows, np.searchsorted(EDGES_NS, events["latency_ns"][rows], side="right")


def label(bin: int) -> str:
    """What latencies a bin begins with, for people."""
    return times.duration(int(EDGES_NS[bin - 1])) if bin else "0"


def at_most_ns(counts: Column, share: float) -> int | None:
    """Answer what this share of calls took at most; None if nothing is that long, or no call is."""
    total = int(counts.sum())
    if not total:
        return None
    bin = int(np.searchsorted(np.cumsum(counts), np.ceil(total * share)))
    return int(EDGES_NS[bin]) if bin < len(EDGES_NS) else None
