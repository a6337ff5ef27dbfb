"""The calls that took longest."""

from __future__ import annotations

import numpy as np

from hostler.core.trace.chisel import Category, Chisel, Given
from hostler.core.trace.chisel_cells import at
from hostler.core.trace.chisel_groups import top_argument
from hostler.core.trace.chisel_lines import columns
from hostler.core.trace.chisel_results import Heading, Row, Table
from hostler.core.trace.events import Column, Events, concatenate

MOST_CALLS = 10_000

_LATENCY = columns(("latency", "evt.latency"))
_SHOWN = (
    *_LATENCY,
    *columns(
        ("number", "evt.num"),
        ("time", "evt.rawtime"),
        ("process", "proc.name"),
        ("tid", "thread.tid"),
        ("call", "evt.type"),
        ("arguments", "evt.args"),
    ),
)


def _slowest(events: Events, count: int) -> Column:
    """The rows of the slowest calls, the slowest first, the earlier first among equals."""
    rows = np.arange(len(events))
    latency = events["latency_ns"]
    if len(events) > count:
        # Only what is as slow as the last one that is kept has to be sorted.
        least = np.partition(latency, len(events) - count)[len(events) - count]
        rows = np.flatnonzero(latency >= least)
    order = np.lexsort((events["number"][rows], ~latency[rows]))
    chosen: Column = rows[order][:count]
    return chosen


class _Slowest:
    def __init__(self, given: Given) -> None:
        self._given = given
        self._count = min(given.number("top") or MOST_CALLS, MOST_CALLS)
        self._by_host: dict[str, Events] = {}

    def take(self, events: Events, host: str) -> None:
        candidates = events.select(_slowest(events, self._count))
        if host in self._by_host:
            candidates = concatenate([self._by_host[host], candidates])
            candidates = candidates.select(_slowest(candidates, self._count))
        self._by_host[host] = candidates.compact()

    def result(self) -> Table:
        slowest: list[tuple[int, str, int, Row]] = []
        for host, events in self._by_host.items():
            start: Row = (host,) if self._given.per_host else ()
            values = [column.field.values(events) for column in _SHOWN]
            for i in range(len(events)):
                cells = (at(*pair, i) for pair in zip(_SHOWN, values, strict=True))
                row = (*start, *cells)
                slowest.append((-int(events["latency_ns"][i]), host, i, row))
        host_heading = (Heading("host"),) if self._given.per_host else ()
        headings = (*host_heading, *(column.heading for column in _SHOWN))
        return Table(headings, tuple(row for *_, row in sorted(slowest)[: self._count]))


CHISEL = Chisel(
    "bottlenecks",
    Category.PERFORMANCE,
    "the calls that took longest, with their arguments",
    _Slowest,
    filter="evt.latency > 0",
    arguments=(top_argument(10),),
)
