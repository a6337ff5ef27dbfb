"""Many hosts at once: a window in flight, results in order, a stop after too many failures."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from hostler.limits import DEFAULT_WINDOW
from hostler.results import CallFailed, HostError, HostResult

T = TypeVar("T")
R = TypeVar("R")


class Halt:
    """Stops what goes on in good order: nothing further is started, what is in flight ends.

    To be pulled and waited for in one loop.
    """

    def __init__(self) -> None:
        self.why = ""
        self.kind = ""
        self._event = asyncio.Event()

    @property
    def pulled(self) -> bool:
        """Whether to stop."""
        return self._event.is_set()

    def pull(self, kind: str, why: str) -> None:
        """Stop, for a kind of reason and in words. The first reason stands."""
        if not self.pulled:
            self.kind, self.why = kind, why
            self._event.set()

    async def wait(self, timeout_s: float) -> bool:
        """Wait so long, or until it is pulled; answer whether it is."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return False
        return True


@dataclass
class Brake(Generic[T]):
    """Counts failures over one or more fan-outs and says when to stop. None never stops.

    It is also pulled when its `halt` is.
    """

    allowed: int | None = None
    failed: int = 0
    halt: Halt | None = None

    def note(self, result: HostResult[T]) -> HostResult[T]:
        """Count a result; answers it."""
        self.failed += not result.ok
        return result

    @property
    def overrun(self) -> bool:
        """Whether more have failed than may."""
        return self.allowed is not None and self.failed > self.allowed

    @property
    def pulled(self) -> bool:
        """Whether no further host is to be started."""
        return self.overrun or (self.halt is not None and self.halt.pulled)

    def not_started(self, host: str) -> HostResult[T]:
        """The result of a host that was spared."""
        halted = self.halt is not None and self.halt.pulled and not self.overrun
        why = self.halt.why if halted and self.halt else f"{self.failed} of the hosts had failed"
        return HostResult(host, error=HostError("ABORTED", "NOT_STARTED", f"not started: {why}"))


async def fan_out(
    items: Sequence[T],
    name: Callable[[T], str],
    work: Callable[[T], Awaitable[R]],
    *,
    window: int = DEFAULT_WINDOW,
    brake: Brake[R] | None = None,
    heard: Callable[[T, HostResult[R]], None] | None = None,
) -> list[HostResult[R]]:
    """Do work on every item, at most `window` at a time; results have the order of the items.

    `heard` is given each item and its result as soon as it is there. A CallFailed becomes that
    host's error and never touches another host. Once the brake is pulled, items not yet started
    are answered as NOT_STARTED; those in flight go on to their end.
    """
    brake = Brake() if brake is None else brake
    results: list[HostResult[R] | None] = [None] * len(items)
    waiting: Iterator[tuple[int, T]] = iter(enumerate(items))

    async def worker() -> None:
        for index, item in waiting:
            if brake.pulled:
                result: HostResult[R] = brake.not_started(name(item))
            else:
                result = brake.note(await _one(name(item), work(item)))
            results[index] = result
            if heard is not None:
                heard(item, result)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(max(1, window), len(items))):
            group.create_task(worker())
    return [result for result in results if result is not None]


async def _one(host: str, work: Awaitable[R]) -> HostResult[R]:
    try:
        return HostResult(host, await work)
    except CallFailed as failed:
        return HostResult(host, error=failed.error)
