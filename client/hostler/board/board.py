"""Keeps the state of a fleet: each host is asked by itself, so that none waits for another."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Self

from hostler.board.gather import look
from hostler.board.status import HostStatus

if TYPE_CHECKING:
    from hostler.aio import Client
    from hostler.fleet import Host
    from hostler.session import Session

SLOW_EVERY_S = 300.0


class Board:
    """The last known state of each host. `changed` is called after each answer, in the loop."""

    def __init__(
        self,
        client: Client,
        hosts: Sequence[Host],
        interval_s: float,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._client = client
        self._hosts = tuple(hosts)
        self._interval_s = interval_s
        self._changed = changed
        self._window = asyncio.Semaphore(client.window)
        self._statuses = {host.name: HostStatus(host.name, host.address) for host in hosts}
        self._slow_at = {host.name: -SLOW_EVERY_S for host in hosts}
        self._sessions: dict[str, Session] = {}
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for host in self._hosts:
            session = self._client.session(host)
            self._sessions[host.name] = await self._open.enter_async_context(session)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._open.aclose()

    @property
    def statuses(self) -> tuple[HostStatus, ...]:
        """All hosts, in the order of the fleet."""
        return tuple(self._statuses[host.name] for host in self._hosts)

    async def follow(self) -> None:
        """Ask each host again and again, at its own pace. Ends when it is cancelled."""
        async with asyncio.TaskGroup() as group:
            for host in self._hosts:
                group.create_task(self._follow(host.name))

    async def round(self) -> None:
        """Ask all hosts once."""
        await asyncio.gather(*(self._ask(host.name) for host in self._hosts))

    async def _follow(self, host: str) -> None:
        while True:
            await self._ask(host)
            await asyncio.sleep(self._interval_s)

    async def _ask(self, host: str) -> None:
        now = time.monotonic()
        slow = now - self._slow_at[host] >= SLOW_EVERY_S
        async with self._window:
            status = await look(self._sessions[host], before=self._statuses[host], slow=slow)
        if slow and status.answered_unix_s == status.asked_unix_s:
            self._slow_at[host] = now
        self._statuses[host] = status
        self._changed()
