"""What deployments need at a time of their own: renewal, and a reload when a window opens.

A timer starts the daemon; it looks, does what is due, and goes when nothing is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from hostler.core.ssl.together import together
from hostlerd.runtime.errors import DomainError
from hostlerd.runtime.log import get_log
from hostlerd.ssl.kernel.deployments import Deployments
from hostlerd.ssl.model.deployment import Deployment, Known
from hostlerd.ssl.plan import deployment as plan

log = get_log("ssl.upkeep")

_LOOK_S = 60.0
# The timer comes each quarter of an hour: a window that opens before it comes again is waited for.
_WAIT_S = 20 * 60.0


class Upkeep:
    """Knows when something is due, and does it."""

    def __init__(self, kernel: Deployments, clock: Callable[[], float] = time.time) -> None:
        self._kernel = kernel
        self._clock = clock
        self._next_look = 0.0
        self._due_at: float | None = None

    def due(self) -> float | None:
        """Answer in how many seconds there is something to do; None for not soon."""
        now = self._clock()
        if now >= self._next_look:
            self._next_look = now + _LOOK_S
            try:
                self._due_at = self._when(now)
            except (DomainError, OSError) as e:
                log.warning("deployments cannot be looked at", problem=e)
                self._due_at = None
        return None if self._due_at is None else max(0.0, self._due_at - now)

    def _when(self, now: float) -> float | None:
        found = self._kernel.records.load().values()
        if not found:
            return None
        moment = datetime.fromtimestamp(now, UTC)
        if any(
            plan.is_due(one, moment) or plan.wants_advice(one, moment)
            for one in map(self._kernel.look, (d for d in found if d.acme))
        ):
            return now
        opens = self._kernel.installer.reload_time()
        return float(opens) if opens and opens - now <= _WAIT_S else None

    def work(self) -> tuple[str, ...]:
        """Do what is due; answer what was done in words. Raises DomainError, OSError."""
        told = [*self._reload(), *self._renew()]
        self._next_look = 0.0
        return tuple(told)

    def _reload(self) -> Sequence[str]:
        told = []
        for run in self._kernel.installer.reload_due():
            names = ", ".join(run["names"])
            for name in run["names"]:
                if run["problem"]:
                    self._kernel.note_problem(name, run["problem"])
                else:
                    self._kernel.note_success(name)
            told.append(f"reload for {names}: {run['problem'] or 'served'}")
        return told

    def _renew(self) -> Sequence[str]:
        moment = datetime.fromtimestamp(self._clock(), UTC)
        due: list[Known] = []
        for one in map(self._kernel.look, self._kernel.records.load().values()):
            known = one
            if plan.wants_advice(known, moment):
                known = Known(one.deployment, one.placed, self._kernel.advise(known))
            if plan.is_due(known, moment):
                due.append(known)
            if plan.is_overdue(known, moment, self._kernel.settings.overdue_s):
                name, why = known.deployment.name, known.attempt.problem or "never tried"
                log.warning("renewal overdue", deployment=name, problem=why)
        told: list[str] = []
        brought = {
            known.deployment.name: text for known in due if (text := self._obtain(known, told))
        }
        ready = [k.deployment for k in due if k.deployment.name in brought]
        for group in together(ready, lambda one: {server.unit for server in one.servers}):
            told += self._install(group, brought)
        return told

    def _obtain(self, known: Known, told: list[str]) -> str:
        """Get a certificate; one that is not to be had is told, and tried later."""
        name, fresh = known.deployment.name, plan.wants_new_key(known)
        try:
            if fresh:
                self._kernel.installer.make_key(known.deployment)
            return self._kernel.obtain(known.deployment, waiting_key=fresh)
        except DomainError as e:
            self._kernel.note_failure(name, e)
            told.append(f"renew {name}: {e.message}")
            return ""

    def _install(self, group: Sequence[Deployment], brought: dict[str, str]) -> Sequence[str]:
        """Install together what shares a server; if that fails, each by itself."""
        names = ", ".join(one.name for one in group)
        try:
            self._kernel.installer.install([(one, brought[one.name]) for one in group])
        except DomainError as e:
            if len(group) > 1:
                return [words for one in group for words in self._install([one], brought)]
            self._kernel.note_failure(group[0].name, e)
            return [f"install {names}: {e.message}"]
        for one in group:
            self._kernel.note_success(one.name)
        return [f"renewed {names}"]
