"""The synchronous face of the SDK: the same client, driven by a loop in a thread of its own.

It therefore works inside a running loop as well (where it blocks that loop, as its name says).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import CancelledError
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from hostler import aio
from hostler.channel import Rpc
from hostler.confirm import Confirmed
from hostler.fleet import Host
from hostler.limits import DEFAULT_WINDOW, Tolerance
from hostler.plans import Change, Planned
from hostler.results import HostResult
from hostler.resume import Resume
from hostler.rollout import Rolled, Rollout
from hostler.runs_model import Run
from hostler.session import DEFAULT_TIMEOUT_S, Retry
from hostler.session import Session as AsyncSession

T = TypeVar("T")


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """The one loop of this process's synchronous clients, started at the first use."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="hostler-sync", daemon=True).start()
    return loop


def wait_for(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in that loop and wait for it. An interrupt cancels it and is raised on."""
    future = asyncio.run_coroutine_threadsafe(coroutine, _loop())
    try:
        return future.result()
    except (KeyboardInterrupt, SystemExit):
        future.cancel()
        raise
    except CancelledError:
        raise InterruptedError("the call was cancelled") from None


class Session:
    """One host's doors, kept open between calls. See `hostler.aio.Session`."""

    def __init__(self, make: Callable[[], AsyncSession]) -> None:
        async def opened() -> AsyncSession:
            return make()

        self._session = wait_for(opened())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every channel."""
        wait_for(self._session.close())

    def call(self, rpc: Rpc, request: Any, *, timeout_s: float | None = None) -> Any:
        """Call a method. Raises CallFailed."""
        return wait_for(self._session.call(rpc, request, timeout_s=timeout_s))

    def list_all(self, rpc: Rpc, request: Any, *, timeout_s: float | None = None) -> Any:
        """Call a List method until its last page. Raises CallFailed."""
        return wait_for(self._session.list_all(rpc, request, timeout_s=timeout_s))

    def stream(self, rpc: Rpc, request: Any, *, resume: Resume | None = None) -> Iterator[Any]:
        """Call a method that streams responses; see `Session.stream`. Raises CallFailed."""
        yield from _each(self._session.stream(rpc, request, resume=resume))


def _each(responses: AsyncIterator[Any]) -> Iterator[Any]:
    """What an iterator of that loop yields; it is closed with this one."""
    ended = object()
    try:
        while (response := wait_for(_next(responses, ended))) is not ended:
            yield response
    finally:
        wait_for(_close(responses))


async def _next(responses: AsyncIterator[Any], ended: object) -> Any:
    return await anext(responses, ended)


async def _close(responses: AsyncIterator[Any]) -> None:
    close = getattr(responses, "aclose", None)
    if close is not None:
        await close()


class Client:
    """A fleet and the identity it is reached with. See `hostler.aio.Client`."""

    def __init__(self, client: aio.Client) -> None:
        self._client = client

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing is kept open; here for symmetry with sessions."""

    @property
    def asynchronous(self) -> aio.Client:
        """The client that this one drives."""
        return self._client

    def select(self, *selectors: str) -> tuple[Host, ...]:
        """Select hosts by names, globs, label=value, @group or "all". Raises SelectionError."""
        return self._client.select(*selectors)

    def session(self, host: Host) -> Session:
        """Open a session with one host, to be closed by the caller."""
        return Session(lambda: self._client.session(host))

    def call(self, rpc: Rpc, request: Any, *selectors: str) -> list[HostResult[Any]]:
        """Call a method on the selected hosts; results in host order."""
        return wait_for(self._client.call(rpc, request, *selectors))

    def list_all(self, rpc: Rpc, request: Any, *selectors: str) -> list[HostResult[Any]]:
        """Call a List method on the selected hosts, following all pages."""
        return wait_for(self._client.list_all(rpc, request, *selectors))

    def pending(self, hosts: Sequence[Host]) -> list[HostResult[Any]]:
        """What hosts take back unless it is confirmed: GetPendingResponse, at any door."""
        return wait_for(self._client.pending(hosts))

    def confirm(
        self, hosts: Sequence[Host], group: str, deadline_s: float
    ) -> list[HostResult[Confirmed]]:
        """Confirm a group at every door of hosts that wait `deadline_s` from now for it."""
        return wait_for(self._client.confirm(hosts, group, deadline_s))

    def revert(self, hosts: Sequence[Host], group: str = "") -> list[HostResult[Any]]:
        """Take a pending group back at once, or whichever there is: EndedGroup, None if none."""
        return wait_for(self._client.revert(hosts, group))

    def watch_job(self, host: Host, name: str) -> Iterator[Any]:
        """Follow a job of a host to its end: WatchJobResponse. Raises CallFailed."""
        yield from _each(self._client.watch_job(host, name))

    def plan(
        self,
        change: Change,
        hosts: Sequence[Host],
        *,
        options: Rollout | None = None,
        run: Run | None = None,
    ) -> Sequence[HostResult[Planned]]:
        """Ask every host what a change would do. Changes nothing."""
        return wait_for(self._client.plan(change, hosts, options=options, run=run))

    def roll_out(
        self,
        change: Change,
        hosts: Sequence[Host],
        plans: Sequence[HostResult[Planned]] | None = None,
        *,
        options: Rollout | None = None,
        run: Run | None = None,
        say: Callable[[str], None] | None = None,
    ) -> Rolled:
        """Carry out a change wave by wave; see `hostler.aio.Client.roll_out`."""
        rolled = self._client.roll_out(change, hosts, plans, options=options, run=run, say=say)
        return wait_for(rolled)

    def apply(
        self,
        change: Change,
        hosts: Sequence[Host],
        plans: Sequence[HostResult[Planned]] | None = None,
        *,
        tolerance: Tolerance | None = None,
    ) -> Sequence[HostResult[Any]]:
        """Carry out a change: one host first, then the rest; stops at the first failure."""
        return wait_for(self._client.apply(change, hosts, plans, tolerance=tolerance))


def connect(
    context: str | None = None,
    *,
    config: Path | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    window: int = DEFAULT_WINDOW,
    retry: Retry | None = None,
    record: bool = True,
) -> Client:
    """Make a client from the configuration file. Raises ConfigError."""
    return Client(
        aio.connect(
            context,
            config=config,
            timeout_s=timeout_s,
            window=window,
            retry=retry,
            record=record,
        )
    )
