"""Changes: planned and carried out under the domain's lock, taken back as a whole if a step fails.

The gate runs every change in a task that outlives its RPC, so the lock is never released while a
thread still changes the kernel.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from hostler.api.common.v1 import change_pb2
from hostlerd.runtime.errors import (
    DomainError,
    EtagMismatch,
    PlanChanged,
    RollbackFailed,
    StepFailed,
)
from hostlerd.runtime.log import get_log
from hostlerd.runtime.steps import Plan, Step

log = get_log("runtime.changes")


class Kernel(Protocol):
    """The edge of a domain to the system, as far as a change needs it."""

    def applying(self) -> AbstractContextManager[Callable[[Any], None]]:
        """Open a session of one change; it yields the function that carries out a step."""
        ...


class Blocking(Protocol):
    """Runs blocking work in the daemon's bounded thread pool."""

    def __call__(self, work: Callable[..., Any], /, *args: Any) -> Awaitable[Any]:
        """Answer what `work(*args)` answers."""
        ...


@dataclass(frozen=True, slots=True)
class Done:
    """A change that was planned, and carried out unless it was only to be validated."""

    plan: Plan
    change: change_pb2.Change


class Changes:
    """Carries out the changes of one domain, one at a time."""

    def __init__(self, kernel: Kernel, blocking: Blocking) -> None:
        self._kernel = kernel
        self._blocking = blocking
        self._lock = asyncio.Lock()

    async def carry_out(
        self, options: change_pb2.ChangeOptions, make_plan: Callable[[], Plan]
    ) -> Done:
        """Plan under the lock, compare with what the caller has seen, and do it.

        `make_plan` observes and plans; it runs in a worker thread. Raises EtagMismatch,
        PlanChanged, StepFailed (everything undone), RollbackFailed (host in between) and what
        `make_plan` raises.
        """
        async with self._lock:
            plan: Plan = await self._blocking(make_plan)
            if options.etag and options.etag != plan.etag:
                raise EtagMismatch("the resource has changed since", etag=plan.etag)
            if options.plan_hash and options.plan_hash != plan.hash:
                raise PlanChanged("the plan would be another one by now", plan_hash=plan.hash)
            if options.validate_only:
                return Done(plan, _answer(plan, change_pb2.OUTCOME_PLANNED, plan.etag))
            if plan.steps:
                await self._blocking(self._carry_out, plan)
            return Done(plan, _answer(plan, change_pb2.OUTCOME_APPLIED, plan.etag_after))

    def _carry_out(self, plan: Plan) -> None:
        done: list[Step] = []
        with self._kernel.applying() as apply:
            for step in plan.steps:
                try:
                    apply(step)
                except (DomainError, OSError) as e:
                    self._take_back(done, apply, step, e, plan.hash)
                done.append(step)

    def _take_back(
        self,
        done: list[Step],
        apply: Callable[[Step], None],
        failed: Step,
        cause: DomainError | OSError,
        plan_hash: str,
    ) -> None:
        """Undo what was done, newest first, and raise what came of it."""
        where: dict[str, Any] = {"step": failed.describe(), "plan_hash": plan_hash}
        for step in reversed(done):
            inverse = step.inverse()
            if inverse is None:
                continue
            try:
                apply(inverse)
            except (DomainError, OSError) as e:
                log.error("undoing failed", step=inverse.describe(), error=_words(e))
                raise RollbackFailed(
                    f"{failed.describe()}: {_words(cause)}; then undoing stopped at "
                    f"{inverse.describe()}: {_words(e)}",
                    undo_step=inverse.describe(),
                    **where,
                ) from cause
        if isinstance(cause, DomainError):
            cause.metadata.update(where)
            raise cause
        raise StepFailed(
            f"{failed.describe()}: {_words(cause)}; everything was undone", **where
        ) from cause


def _words(error: DomainError | OSError) -> str:
    if isinstance(error, DomainError):
        return error.message
    return error.strerror or str(error)


def _answer(plan: Plan, outcome: change_pb2.Outcome, etag: str) -> change_pb2.Change:
    return change_pb2.Change(
        outcome=outcome,
        plan=change_pb2.Plan(
            hash=plan.hash,
            steps=[
                change_pb2.PlanStep(kind=type(s).__name__, description=s.describe())
                for s in plan.steps
            ],
        ),
        changed=bool(plan.steps),
        warnings=[
            change_pb2.Warning(
                code=n.code, message=n.message, subject=n.subject, context=list(n.context)
            )
            for n in plan.notices
        ],
        etag=etag,
    )
