"""What a thread did before and after events of interest."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from hostler.core.trace.chisel import Argument, Category, Chisel, Given, Kind
from hostler.core.trace.chisel_results import Kept
from hostler.core.trace.events import Column, Events, concatenate
from hostler.core.trace.times import finished

MOST_KEPT = 1_000_000
"""How many events are kept between two results, and as many that may still turn out to be near."""


@dataclass(slots=True)
class _Waiting:
    """A batch whose events may be near to a match that is still to come."""

    events: Events
    is_taken: Column
    times: Column


class _Host:
    def __init__(self, range_ns: int) -> None:
        self._range_ns = range_ns
        self._waiting: deque[_Waiting] = deque()
        self._tids, self._times = np.zeros(0, np.uint32), np.zeros(0, np.int64)

    def take(self, events: Events, is_match: Column) -> list[Events]:
        """Answer the events, of this batch and of those before, that are near to a match."""
        times = finished(events).astype(np.int64)
        new = _Waiting(events, np.zeros(len(events), bool), times)
        self._waiting.append(new)
        self._tids = np.concatenate([self._tids, events["tid"][is_match]])
        self._times = np.concatenate([self._times, times[is_match]])
        # A batch that has waited was compared with the matches before.
        found = [self._near(each) for each in (self._waiting if is_match.any() else (new,))]
        self._forget(int(times.max()) - self._range_ns)
        return [each for each in found if len(each)]

    def _near(self, waiting: _Waiting) -> Events:
        events, is_near = waiting.events, np.zeros(len(waiting.events), bool)
        for tid in np.intersect1d(self._tids, events["tid"]):
            rows = np.flatnonzero((events["tid"] == tid) & ~waiting.is_taken)
            matches = np.sort(self._times[self._tids == tid])
            now = waiting.times[rows]
            after = np.searchsorted(matches, now)
            to_next = matches[np.minimum(after, len(matches) - 1)] - now
            to_last = now - matches[np.maximum(after - 1, 0)]
            is_near[rows] = np.minimum(np.abs(to_next), np.abs(to_last)) <= self._range_ns
        waiting.is_taken |= is_near
        return events.select(is_near).compact() if is_near.any() else Events.empty()

    def _forget(self, before_ns: int) -> None:
        count = sum(len(each.events) for each in self._waiting)
        while self._waiting and (self._waiting[0].times.max() < before_ns or count > MOST_KEPT):
            count -= len(self._waiting.popleft().events)
        recent = self._times >= before_ns
        self._tids, self._times = self._tids[recent], self._times[recent]


class _Around:
    def __init__(self, given: Given) -> None:
        self._match, self._range_ns = given.filter("match"), given.nanoseconds("range_ms")
        self._hosts: dict[str, _Host] = {}
        self._kept: dict[str, list[Events]] = {}
        self._count = self._skipped = 0

    def take(self, events: Events, host: str) -> None:
        known = self._hosts.setdefault(host, _Host(self._range_ns))
        for near in known.take(events, self._match.matches(events)):
            room = max(0, MOST_KEPT - self._count)
            self._skipped += max(0, len(near) - room)
            self._count += min(len(near), room)
            self._kept.setdefault(host, []).append(near.select(np.arange(min(len(near), room))))

    def result(self) -> Kept:
        by_host = {host: _in_order(concatenate(kept)) for host, kept in self._kept.items()}
        kept = Kept(by_host, self._skipped)
        self._kept, self._count, self._skipped = {}, 0, 0
        return kept


def _in_order(events: Events) -> Events:
    return events.select(np.argsort(events["number"], kind="stable")).compact()


CHISEL = Chisel(
    "around",
    Category.MISC,
    "what threads did shortly before and after the events that match",
    _Around,
    "It answers events, which can be shown or stored like those of any trace.",
    arguments=(
        Argument("match", Kind.FILTER, "the events of interest"),
        Argument(
            "range_ms", Kind.MILLISECONDS, "how far before and after, in milliseconds", "1000"
        ),
    ),
    streams=True,
)
