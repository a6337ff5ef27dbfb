"""Events of several hosts, or of several captures, as one stream in order of time. Pure.

The order is that of the calls' exits (of the entry for one that did not end), which is the order
in which a trace has them. Order by entry would have to hold back everything for as long as the
longest call of any host lasts.

What comes out is a batch and a column beside it that says of each event which source it is from,
so that one filter, one analysis and one table do for all hosts. Times are on one clock then: each
source's offset has been added.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hostler.core.trace.blocks import exit_ns
from hostler.core.trace.events import Column, Events, concatenate


@dataclass(slots=True)
class Merged:
    """A batch whose events are from several sources; `source` has the index of each one's."""

    events: Events
    source: Column


class Merger:
    """Takes batches as they come from each source and gives out what is complete.

    An event comes out once no source can still bring an earlier one: each has brought a later
    one, has said by `advance` that it is further, or has ended. A silent source that does neither
    holds all others back, and `pending_events` grows: whoever feeds it decides for how long.
    """

    def __init__(self, clock_offsets_ns: Sequence[int]) -> None:
        self._offsets = list(clock_offsets_ns)
        self._waiting: list[deque[Events]] = [deque() for _ in self._offsets]
        # Until then each source is complete; None once it has ended.
        self._until: list[int | None] = [0 for _ in self._offsets]
        self.pending_events = 0

    def push(self, source: int, events: Events) -> None:
        """Take the next batch of a source."""
        if not len(events) and not events.lost:
            return
        corrected = moved(events, self._offsets[source])
        self._waiting[source].append(corrected)
        self.pending_events += len(corrected)
        if len(corrected):
            self._raise(source, int(exit_ns(corrected).max()))

    def advance(self, source: int, time_ns: int) -> None:
        """Note that a source has, by its own clock, brought everything until then."""
        self._raise(source, time_ns + self._offsets[source])

    def finish(self, source: int) -> None:
        """Note that a source has ended or is given up."""
        self._until[source] = None

    def is_waiting_for(self, source: int) -> bool:
        """Whether what others have brought cannot come out before this source brings more."""
        until = self._until[source]
        return until is not None and until <= self._complete_until()

    def pop(self) -> Merged | None:
        """What is complete and has not come out yet, None if that is nothing."""
        until = self._complete_until()
        parts: list[Events] = []
        sources: list[Column] = []
        for source, waiting in enumerate(self._waiting):
            for part in _taken(waiting, until):
                parts.append(part)
                sources.append(np.full(len(part), source, "<u4"))
        if not parts:
            return None
        events, source_of = concatenate(parts), np.concatenate(sources)
        self.pending_events -= len(events)
        order = np.argsort(exit_ns(events), kind="stable")
        return Merged(events.select(order), source_of[order])

    def _raise(self, source: int, until: int) -> None:
        before = self._until[source]
        if before is not None:
            self._until[source] = max(before, until)

    def _complete_until(self) -> int:
        running = [until for until in self._until if until is not None]
        return min(running, default=_FOREVER)


_FOREVER = 0xFFFF_FFFF_FFFF_FFFF


def merge(sources: Sequence[Iterable[Events]], clock_offsets_ns: Sequence[int]) -> Iterator[Merged]:
    """The events of all sources in order; holds about one batch of each at a time."""
    merger = Merger(clock_offsets_ns)
    running = {i: iter(each) for i, each in enumerate(sources)}
    while running:
        for i, batches in list(running.items()):
            if not merger.is_waiting_for(i):
                continue
            batch = next(batches, None)
            if batch is None:
                merger.finish(i)
                del running[i]
            else:
                merger.push(i, batch)
        merged = merger.pop()
        if merged is not None:
            yield merged


def moved(events: Events, offset_ns: int) -> Events:
    """The same events by a clock that is so much ahead: calls, processes and the trace itself."""
    if not offset_ns:
        return events
    columns = dict(events.columns)
    columns["time_ns"] = _added(columns["time_ns"], offset_ns)
    processes = events.processes.copy()
    processes["start_ns"][1:] = _added(processes["start_ns"][1:], offset_ns)
    start_ns = events.start_ns + offset_ns if events.start_ns else 0
    return replace(events, columns=columns, processes=processes, start_ns=start_ns)


def _added(times: Column, offset_ns: int) -> Column:
    # Unsigned arithmetic wraps, so adding what is negative modulo 2**64 subtracts.
    later: Column = times + np.uint64(offset_ns & _FOREVER)
    return later


def _taken(waiting: deque[Events], until: int) -> Iterator[Events]:
    """Take from the batches of a source what ended until then; the rest stays."""
    rest: deque[Events] = deque()
    while waiting:
        events = waiting.popleft()
        ended = exit_ns(events) <= np.uint64(until)
        if ended.all():
            yield events
            continue
        if ended.any():
            yield events.select(ended).compact()
            events = events.select(~ended).compact()
            # What was lost has come out with the part before.
            events.lost = 0
        rest.append(events)
    waiting.extend(rest)
