"""When a daemon may go: systemd keeps its sockets, and the next caller wakes a new one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal

from hostlerd.runtime.relay import Relay

_LOOKS_PER_IDLE_TIME = 8
_LONGEST_LOOK_S = 1.0
_TURNS = 3


def _never() -> bool:
    return False


async def until_idle(
    relay: Relay, idle_s: float, terminate: asyncio.Event, busy: Callable[[], bool] = _never
) -> Literal["idle", "terminated"]:
    """Wait until the daemon may exit without losing anybody, or was told to terminate.

    Idle means that the relay has held no connection at all for `idle_s` seconds and `busy()`
    denies that anything else keeps the daemon, such as a running change. The server lets go of
    kept channels by its own `max_connection_age`, with a graceful GOAWAY. With "idle" the relay
    is stopped and empty: exit without `server.stop()`. With "terminated" it still accepts.
    """
    look_s = min(idle_s / _LOOKS_PER_IDLE_TIME, _LONGEST_LOOK_S)
    while not await _told(terminate, look_s):
        if _in_use(relay, idle_s, busy):
            continue
        relay.stop()
        # What the loop had already queued may be a connection: let it run, then look again.
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        if not _in_use(relay, idle_s, busy):
            return "idle"
        relay.start()
    return "terminated"


def _in_use(relay: Relay, idle_s: float, busy: Callable[[], bool]) -> bool:
    return relay.idle_seconds() < idle_s or busy()


async def _told(terminate: asyncio.Event, wait_s: float) -> bool:
    try:
        async with asyncio.timeout(wait_s):
            await terminate.wait()
    except TimeoutError:
        return False
    return True
