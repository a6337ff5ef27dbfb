"""The SDK's core, for use inside an asyncio loop.

async with hostler.aio.connect() as client:
    for answer in await client.call(GET_HOST.at("netns"), GetHostRequest(), "role=web"):
        print(answer.host, answer.result if answer.ok else answer.error)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from hostler.channel import Connector, Rpc, rpc
from hostler.config import Context, load_context
from hostler.fanout import Brake, fan_out
from hostler.fleet import Fleet, Host, load_fleet
from hostler.limits import DEFAULT_WINDOW, Tolerance
from hostler.plans import Change, Planned, RpcChange, apply_all, group_plans, plan_all
from hostler.results import CallFailed, HostError, HostResult
from hostler.session import DEFAULT_TIMEOUT_S, NO_RETRY, Retry, Session

__all__ = [
    "NO_RETRY",
    "CallFailed",
    "Change",
    "Client",
    "Host",
    "HostError",
    "HostResult",
    "Planned",
    "Retry",
    "Rpc",
    "RpcChange",
    "Session",
    "Tolerance",
    "connect",
    "group_plans",
    "rpc",
]

R = TypeVar("R")


class Client:
    """A fleet and the identity it is reached with. Keeps no connection: sessions do."""

    def __init__(
        self,
        context: Context | None,
        fleet: Fleet,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        window: int = DEFAULT_WINDOW,
        retry: Retry | None = None,
    ) -> None:
        self.context = context
        self.fleet = fleet
        self.timeout_s = timeout_s
        self.window = window
        self._retry = retry
        self._connector = Connector(context)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing is kept open; here for symmetry with sessions."""

    def select(self, *selectors: str) -> tuple[Host, ...]:
        """Select hosts by names, globs, label=value or "all". Raises SelectionError."""
        return self.fleet.select(selectors)

    def session(self, host: Host) -> Session:
        """Open a session with one host, to be closed by the caller."""
        return Session(host, self._connector, self.timeout_s, self._retry)

    async def each(
        self,
        hosts: Sequence[Host],
        work: Callable[[Session], Awaitable[R]],
        *,
        tolerance: Tolerance | None = None,
    ) -> list[HostResult[R]]:
        """Do work with a session of each host, which is closed after it. Results in host order."""

        async def one(host: Host) -> R:
            async with self.session(host) as session:
                return await work(session)

        brake: Brake[R] = Brake(None if tolerance is None else tolerance.allowed(len(hosts)))
        return await fan_out(hosts, lambda host: host.name, one, window=self.window, brake=brake)

    async def call(
        self, rpc: Rpc, request: Any, *selectors: str, hosts: Sequence[Host] | None = None
    ) -> list[HostResult[Any]]:
        """Call a method on hosts, by selectors or as given."""
        chosen = self.select(*selectors) if hosts is None else hosts
        return await self.each(chosen, lambda session: session.call(rpc, request))

    async def list_all(
        self, rpc: Rpc, request: Any, *selectors: str, hosts: Sequence[Host] | None = None
    ) -> list[HostResult[Any]]:
        """Call a List method on hosts, following all pages."""
        chosen = self.select(*selectors) if hosts is None else hosts
        return await self.each(chosen, lambda session: session.list_all(rpc, request))

    async def plan(self, change: Change, hosts: Sequence[Host]) -> list[HostResult[Planned]]:
        """Ask every host what a change would do there. Changes nothing."""
        return await plan_all(hosts, change, self.session, window=self.window)

    async def apply(
        self,
        change: Change,
        hosts: Sequence[Host],
        plans: Sequence[HostResult[Planned]] | None = None,
        *,
        tolerance: Tolerance | None = None,
    ) -> list[HostResult[Any]]:
        """Carry out a change as planned: one host first, then the rest; stops at the first failure.

        Without `plans` they are asked for first and carried out as they are.
        """
        if plans is None:
            plans = await self.plan(change, hosts)
        return await apply_all(
            hosts, plans, change, self.session, window=self.window, tolerance=tolerance
        )


def connect(
    context: str | None = None,
    *,
    config: Path | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    window: int = DEFAULT_WINDOW,
    retry: Retry | None = None,
) -> Client:
    """Make a client from the configuration file. Raises ConfigError."""
    loaded = load_context(context, config)
    fleet = load_fleet(loaded.fleet)
    return Client(loaded, fleet, timeout_s=timeout_s, window=window, retry=retry)
