"""What a domain has to do at a time of its own, such as taking away what has ended.

The daemon stays as long as anything waits, and does it under the domain's lock. What is due while
a group is pending is done after that: its way back must find what it has left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hostlerd.runtime.audit import AuditLog
from hostlerd.runtime.domain import Runtime
from hostlerd.runtime.errors import DomainError
from hostlerd.runtime.log import get_log

log = get_log("runtime.upkeep")

_LOOK_S = 1.0
# After a failure: what could not be done is not tried all the time.
_AGAIN_S = 30.0


@dataclass(slots=True)
class Keeper:
    """Looks each second for what is due. `waits` says whether anything is, now or later."""

    runtime: Runtime
    due: Callable[[], float | None]
    work: Callable[[], Sequence[str]]
    waits: bool = False

    async def run(self, audit: AuditLog) -> None:
        """Go on until cancelled."""
        while True:
            left_s = await self.runtime.blocking(self.due)
            self.waits = left_s is not None
            pause_s = _LOOK_S if left_s is None else min(left_s, _LOOK_S)
            if left_s is not None and left_s <= 0:
                pause_s = await self._do(audit)
            await asyncio.sleep(pause_s)

    async def _do(self, audit: AuditLog) -> float:
        try:
            done = await self.runtime.blocking(self._under_lock)
        except (DomainError, OSError) as e:
            log.warning("not done, tried again later", problem=e)
            return _AGAIN_S
        for words in done:
            log.info("upkeep", step=words)
        if done:
            audit.append(durable=False, kind="upkeep", steps=list(done))
        return 0.0

    def _under_lock(self) -> Sequence[str]:
        with self.runtime.lock.held_here():
            self.runtime.pending.check(None)
            return self.work()
