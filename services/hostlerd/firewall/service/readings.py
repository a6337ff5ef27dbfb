"""Readings of all counters, one at a time, that whoever wants one at the time shares."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from hostlerd.firewall.model.counter import Reading, summed
from hostlerd.firewall.model.state import Counter, RuleKey
from hostlerd.runtime.domain import Runtime


class Readings:
    """Reads counters for all who watch: never twice at once, nor more than half of the time.

    With 10,000 rules a reading takes the better part of a second of CPU, and anybody may watch.
    """

    def __init__(self, runtime: Runtime, read: Callable[[], Mapping[RuleKey, Counter]]) -> None:
        self._runtime = runtime
        self._read = read
        self._last: Reading | None = None
        self._rest_until_s = 0.0
        self._flight: asyncio.Task[Reading] | None = None

    async def at(self, due_s: float) -> Reading:
        """Answer a reading that was begun at a time of time.monotonic() or after it.

        One that is under way is good enough, for the next one would come later still. Raises what
        reading raises.
        """
        if self._flight is None:
            if self._last is not None and self._last.at_s >= due_s:
                return self._last
            self._flight = asyncio.create_task(self._take())
            self._flight.add_done_callback(self._landed)
        # Whoever leaves leaves the others their reading.
        return await asyncio.shield(self._flight)

    def _landed(self, flight: asyncio.Task[Reading]) -> None:
        self._flight = None
        if not flight.cancelled() and flight.exception() is None:
            self._last = flight.result()

    async def _take(self) -> Reading:
        await asyncio.sleep(self._rest_until_s - time.monotonic())
        at_s, time_unix_s = time.monotonic(), time.time()
        counters = summed(await self._runtime.blocking(self._read))
        now_s = time.monotonic()
        self._rest_until_s = now_s + (now_s - at_s)
        return Reading(at_s, time_unix_s, counters)
