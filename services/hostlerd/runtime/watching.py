"""Streams of readings: shared by all who watch, numbered, and with what was left out."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from hostlerd.runtime.domain import Runtime
from hostlerd.runtime.errors import InvalidRequest, Violation

_SHORTEST_S, _LONGEST_S, _DEFAULT_S = 0.1, 3600.0, 1.0
# No stream comes so far, and the numbers after it are 64 bits still.
_MOST_SEQ = 1 << 62
MOST = 10_000
"""What a request may ask for as its `top`."""


class Reading(Protocol):
    """Something read: `at_s` by a clock that only goes on, and the time of day."""

    @property
    def at_s(self) -> float:
        """By time.monotonic()."""
        ...

    @property
    def time_unix_s(self) -> float:
        """Seconds since 1970."""
        ...


R = TypeVar("R", bound=Reading)


@dataclass(frozen=True, slots=True)
class Tick(Generic[R]):
    """A reading of a stream, the one before it, its number, and how many were left out."""

    seq: int
    dropped: int
    before: R | None
    now: R

    @property
    def time(self) -> Timestamp:
        """When it was read."""
        at = Timestamp()
        at.FromNanoseconds(round(self.now.time_unix_s * 1e9))
        return at


class Readings(Generic[R]):
    """Reads for all who watch: never twice at once, nor more than half of the time."""

    def __init__(self, runtime: Runtime, read: Callable[[], R]) -> None:
        self._runtime = runtime
        self._read = read
        self._last: R | None = None
        self._rest_until_s = 0.0
        self._flight: asyncio.Task[R] | None = None

    async def watch(self, request: Any) -> AsyncIterator[Tick[R]]:
        """Read at the interval of a request. Those that the caller is too slow for are not made.

        The request has `interval`, `top`, `after_seq` and `after_time`. Raises InvalidRequest.
        """
        interval_s = _interval_s(request)
        seq, dropped = request.after_seq, _missed(request, interval_s)
        before: R | None = None
        due_s = time.monotonic()
        tick = math.floor(due_s / interval_s)
        while True:
            now = await self.at(due_s)
            seq += 1
            yield Tick(seq, dropped, before, now)
            before = now
            # All who watch at the same interval are due at the same times, and share a reading.
            last, tick = tick, math.floor(time.monotonic() / interval_s) + 1
            dropped = max(0, tick - last - 1)
            due_s = tick * interval_s
            await asyncio.sleep(due_s - time.monotonic())

    async def at(self, due_s: float) -> R:
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

    def _landed(self, flight: asyncio.Task[R]) -> None:
        self._flight = None
        if not flight.cancelled() and flight.exception() is None:
            self._last = flight.result()

    async def _take(self) -> R:
        await asyncio.sleep(self._rest_until_s - time.monotonic())
        began_s = time.monotonic()
        taken: R = await self._runtime.blocking(self._read)
        now_s = time.monotonic()
        self._rest_until_s = now_s + (now_s - began_s)
        return taken


def _interval_s(request: Any) -> float:
    faults = []
    interval_s = _DEFAULT_S
    if request.HasField("interval"):
        interval_s = request.interval.seconds + request.interval.nanos / 1e9
        if not _SHORTEST_S <= interval_s <= _LONGEST_S:
            faults.append(Violation("interval", "must be from 100 ms to 1 h"))
    if not 0 <= request.top <= MOST:
        faults.append(Violation("top", f"must be from 0 to {MOST}"))
    if not 0 <= request.after_seq <= _MOST_SEQ:
        faults.append(Violation("after_seq", f"must be from 0 to {_MOST_SEQ}"))
    if faults:
        raise InvalidRequest.of(faults)
    return interval_s


def _missed(request: Any, interval_s: float) -> int:
    """How many readings would have been made between an earlier stream's last and now."""
    if not request.HasField("after_time"):
        return 0
    after_s = request.after_time.seconds + request.after_time.nanos / 1e9
    return max(0, int((time.time() - after_s) / interval_s) - 1)
