"""One trace on many hosts: begun at one time, told in one order; who fails is named."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from hostler.api.tracing.v1 import trace_pb2 as pb
from hostler.core.trace.events import Events
from hostler.core.trace.merge import Merged, Merger
from hostler.results import CallFailed, HostError, HostResult
from hostler.traces import STOP, Asked, Attached, Piece, Started, attach, follow, start

if TYPE_CHECKING:
    from hostler.aio import Client
    from hostler.fleet import Host

_BEGIN_AHEAD_S = 1.5
"""Between the request and the common beginning: what it takes to load a collector."""
_SETTLED_NS = 1_000_000_000
"""For how long events may be on their way in a busy host before it sends them."""
PATIENCE_NS = 3_000_000_000
"""How long the others' events wait for a host that says nothing."""

Tell = Callable[[str, Started, Piece], None]
"""Called with each piece: the host's name, its trace, and what came."""


async def watch(
    client: Client,
    hosts: Sequence[Host],
    asked: Asked | Attached,
    tell: Tell,
    *,
    stop: asyncio.Event | None = None,
    gone: Callable[[str], None] = lambda host: None,
) -> list[HostResult[Any]]:
    """Trace on hosts until each trace ends, or `stop` is set; answers how each trace has ended.

    With several hosts all begin at one time. What somebody else has started is not ended by `stop`
    but left, and the answer is None then. `gone` is called for each host that will tell nothing
    further, whether its trace ended or it failed.
    """
    stop = stop or asyncio.Event()
    begin_ns = time.time_ns() + round(_BEGIN_AHEAD_S * 1e9) if len(hosts) > 1 else 0

    async def one(session: Any) -> Any:
        try:
            if isinstance(asked, Attached):
                started = await attach(session, asked)
                end = _leave_at(stop, asyncio.current_task())
            else:
                started = await start(session, asked, begin_ns)
                end = _end_at(stop, session, started)
            tell(session.host.name, started, _first(started))
            ender = asyncio.create_task(end)
            try:
                return await _follow(session, started, tell)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or not (isinstance(asked, Attached) and stop.is_set()):
                    raise
                task.uncancel()
                return None
            finally:
                ender.cancel()
        finally:
            gone(session.host.name)

    return await client.each(hosts, one)


def _first(started: Started) -> Piece:
    return Piece(Events.empty(), 0, warnings=started.warnings)


async def _follow(session: Any, started: Started, tell: Tell) -> Any:
    from hostler.core.trace.schema import CaptureInvalid

    ended = None
    try:
        async for piece in follow(session, started):
            tell(session.host.name, started, piece)
            ended = piece.ended or ended
    except CaptureInvalid as e:
        raise CallFailed(HostError("DATA_LOSS", "BLOCK_INVALID", str(e))) from e
    if ended is not None and ended.end_reason == "FAILED":
        raise CallFailed(HostError("ABORTED", "TRACE_FAILED", ended.problem), ended)
    return ended


async def _end_at(stop: asyncio.Event, session: Any, started: Started) -> None:
    await stop.wait()
    await session.call(STOP, pb.StopTraceRequest(name=started.name))


async def _leave_at(stop: asyncio.Event, follower: asyncio.Task[Any] | None) -> None:
    await stop.wait()
    if follower is not None:
        follower.cancel()


class InOrder:
    """Puts the events of hosts into the order in which they ended, by corrected clocks.

    An event is told when no other host can have an earlier one, or has been silent for too long.
    """

    def __init__(self, hosts: int) -> None:
        # The clocks are corrected before the events come here.
        self._merger = Merger([0] * hosts)
        self._heard_ns = [time.time_ns()] * hosts

    def put(self, host: int, piece: Piece) -> None:
        """Take what a host has told."""
        self._merger.push(host, piece.events)
        self._merger.advance(host, max(0, piece.until_ns - _SETTLED_NS))
        self._heard_ns[host] = time.time_ns()

    def leave(self, host: int) -> None:
        """Wait no more for a host."""
        self._merger.finish(host)

    def ready(self) -> Merged | None:
        """Answer what can be told by now, None if that is nothing."""
        now_ns = time.time_ns()
        for host, heard_ns in enumerate(self._heard_ns):
            if now_ns - heard_ns > PATIENCE_NS:
                self._merger.advance(host, now_ns - PATIENCE_NS)
        return self._merger.pop()
