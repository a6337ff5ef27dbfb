"""Changes: planned and carried out under the domain's lock, taken back as a whole if a step fails.

The gate runs every change in a task that outlives its RPC, so the lock is never released while a
thread still changes the kernel. The steps are journalled: what a kill cuts off, the next start
undoes or finishes (see `recovery`).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from hostler.api.common.v1 import change_pb2
from hostlerd.runtime import call as call_context
from hostlerd.runtime.call import PROGRESS, Call
from hostlerd.runtime.edge import Apply, Edge, Kernel, needs_no_way_back, survives_boot
from hostlerd.runtime.errors import (
    Code,
    DomainError,
    EtagMismatch,
    PlanChanged,
    RollbackFailed,
    StepFailed,
    Unsettled,
)
from hostlerd.runtime.journal import APPLIED, UNDONE, WAITING, Header, Journal, Journals
from hostlerd.runtime.locks import ChangeLock
from hostlerd.runtime.log import get_log
from hostlerd.runtime.recovery import Recovery
from hostlerd.runtime.steps import Plan, Step

log = get_log("runtime.changes")


class NotReversible(DomainError):
    """A change that is to be taken back unless it is confirmed has a step that cannot be."""

    code, reason = Code.FAILED_PRECONDITION, "NOT_REVERSIBLE"


class Blocking(Protocol):
    """Runs blocking work in the daemon's bounded thread pool, in the caller's context."""

    def __call__(self, work: Callable[..., Any], /, *args: Any) -> Awaitable[Any]:
        """Answer what `work(*args)` answers."""
        ...


class Guard(Protocol):
    """Asks for what a change needs beside the leave to make it. Blocks; under the lock."""

    def offer(self, call: Call, plan: Plan, change: change_pb2.Change) -> None:
        """Add to the answer of validate_only what the caller will have to present."""
        ...

    def admit(self, call: Call, plan: Plan, options: change_pb2.ChangeOptions) -> None:
        """Let a change pass, or raise what it lacks. Nothing has been done or written yet."""
        ...


class Pending(Protocol):
    """The host's pending group, as far as a change joins it. Blocks; under the lock."""

    def check(self, confirm: change_pb2.ConfirmOptions | None) -> str:
        """Answer the group that a change would join, empty for none. Raises why it may not."""
        ...

    def join(
        self,
        call: Call,
        group: str,
        confirm: change_pb2.ConfirmOptions,
        change_id: str,
        plan: Plan,
    ) -> change_pb2.PendingConfirm:
        """Have the way back armed before the first step. Raises if it cannot be."""
        ...

    def applied(self, change_id: str) -> None:
        """All steps of the change are done."""
        ...

    def withdraw(self, change_id: str) -> None:
        """The change was undone; an unknown one is no error."""
        ...


@dataclass(slots=True)
class Backing:
    """What all changes of a process share."""

    lock: ChangeLock
    journals: Journals
    recovery: Recovery
    guard: Guard | None = None
    pending: Pending | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """A change that was planned, and carried out unless it was only to be validated."""

    plan: Plan
    change: change_pb2.Change


@dataclass(slots=True)
class _Journalled:
    """A change that is being carried out, with its journal."""

    journal: Journal
    change_id: str
    group: str


class Changes:
    """Carries out the changes of one edge, one at a time over all edges that share a backing."""

    def __init__(
        self,
        kernel: Kernel,
        blocking: Blocking,
        backing: Backing,
        edge: tuple[str, Edge],
    ) -> None:
        self._kernel = kernel
        self._blocking = blocking
        self._backing = backing
        self._name, self._edge = edge

    async def carry_out(
        self, options: change_pb2.ChangeOptions, make_plan: Callable[[], Plan]
    ) -> Done:
        """Plan under the lock, compare with what the caller has seen, and do it.

        `make_plan` observes and plans; it runs in a worker thread. Raises EtagMismatch,
        PlanChanged, StepFailed (everything undone), RollbackFailed (host in between), what guard
        and pending group raise, and what `make_plan` raises.
        """
        async with self._turn(options):
            done: Done = await self._blocking(self._work, options, make_plan)
            return done

    def _turn(self, options: change_pb2.ChangeOptions) -> AbstractAsyncContextManager[None]:
        # Who only asks does not wait for a job in another process.
        lock = self._backing.lock
        return lock.turn() if options.validate_only else lock.held()

    def _work(self, options: change_pb2.ChangeOptions, make_plan: Callable[[], Plan]) -> Done:
        recovery, guard = self._backing.recovery, self._backing.guard
        if not options.validate_only:
            recovery.look()
        plan = make_plan()
        if options.etag and options.etag != plan.etag:
            raise EtagMismatch("the resource has changed since", etag=plan.etag)
        if options.plan_hash and options.plan_hash != plan.hash:
            raise PlanChanged("the plan would be another one by now", plan_hash=plan.hash)
        call = _caller()
        if options.validate_only:
            change = _answer(plan, change_pb2.OUTCOME_PLANNED, plan.etag)
            if guard is not None and call is not None:
                guard.offer(call, plan, change)
            return Done(plan, change)
        group = self._group(options, plan, call)
        if guard is not None and call is not None:
            # Last, for what it takes is used up.
            guard.admit(call, plan, options)
        change = _answer(plan, change_pb2.OUTCOME_APPLIED, plan.etag_after)
        for failed in recovery.failed:
            words = "a change before was cut off and could be neither undone nor finished"
            change.warnings.add(code="CHANGE_INTERRUPTED", message=words, subject=failed)
        if plan.steps:
            self._carry_out(options, plan, call, group, change)
        return Done(plan, change)

    def _group(self, options: change_pb2.ChangeOptions, plan: Plan, call: Call | None) -> str:
        """Answer the pending group that the change would join; raise why it may not."""
        if not plan.steps:
            return ""
        pending = self._backing.pending
        confirm = options.confirm if options.HasField("confirm") else None
        if confirm is not None:
            _refuse_one_way(plan)
        return pending.check(confirm) if pending is not None and call is not None else ""

    def _carry_out(
        self,
        options: change_pb2.ChangeOptions,
        plan: Plan,
        call: Call | None,
        group: str,
        change: change_pb2.Change,
    ) -> None:
        """Carry out the steps between the beginning of a journal and its end."""
        pending = self._backing.pending
        one = self._begin(options, plan, call, group)
        try:
            if group and pending is not None and call is not None:
                waits = pending.join(call, group, options.confirm, one.change_id, plan)
                change.outcome = change_pb2.OUTCOME_PENDING_CONFIRM
                change.pending.CopyFrom(waits)
            self._steps(plan, one, change)
        except Unsettled as e:
            self._recover(one, e)
            raise
        except RollbackFailed:
            with suppress(OSError):
                one.journal.fail()
            raise
        except (DomainError, OSError):
            # What cannot be noted now, recovery finds: all of it is undone.
            with suppress(OSError):
                one.journal.end(UNDONE)
            if group and pending is not None:
                pending.withdraw(one.change_id)
            raise
        except BaseException:
            # A fault of ours, in the middle: it is recovered like one that a kill has cut off.
            one.journal.abandon()
            self._backing.recovery.look()
            raise
        finally:
            if call is None:
                self._backing.journals.answered(one.change_id)
        if group and pending is not None:
            pending.applied(one.change_id)

    def _recover(self, one: _Journalled, lost: Unsettled) -> None:
        """Recover a change that goes on no more, and have the error tell what became of it."""
        one.journal.abandon()
        for found in self._backing.recovery.look():
            if found.header.change_id == one.change_id:
                lost.message = f"{lost.message}; {found.words}"
                lost.metadata["outcome"] = change_pb2.Outcome.Name(found.outcome)

    def _begin(
        self, options: change_pb2.ChangeOptions, plan: Plan, call: Call | None, group: str
    ) -> _Journalled:
        # Their names sort by age.
        change_id = f"{time.time_ns():016x}{secrets.token_hex(8)}"
        journals = self._backing.journals
        header = Header(
            change_id=change_id,
            edge=self._name,
            plan_hash=plan.hash,
            steps=[self._edge.registry.encode(step) for step in plan.steps],
            request_id=options.request_id,
            group=group,
            boot_id=journals.boot_id,
            **_facts(call),
        )
        lasts = bool(group) or any(survives_boot(step) for step in plan.steps)
        journal = journals.create(header, lasts=lasts)
        if call is not None:
            call.change_id = change_id
        return _Journalled(journal, change_id, group)

    def _steps(self, plan: Plan, one: _Journalled, change: change_pb2.Change) -> None:
        progress = PROGRESS.get()
        total = len(plan.steps)
        done: list[Step] = []
        with self._kernel.applying() as apply:
            step = plan.steps[0]
            try:
                for at, step in enumerate(plan.steps):
                    if progress is not None:
                        progress.step(at, total, step.describe())
                    one.journal.begun(at)
                    apply(step)
                    done.append(step)
                    if progress is not None and step.inverse() is None:
                        progress.stays(step.describe())
                if progress is not None:
                    progress.applied(change)
                one.journal.end(WAITING if one.group else APPLIED)
            except Unsettled as e:
                e.metadata.update(step=step.describe(), plan_hash=plan.hash)
                raise
            except (DomainError, OSError) as e:
                _take_back(done, apply, one.journal, step, e, plan.hash)


def _take_back(
    done: list[Step],
    apply: Apply,
    journal: Journal,
    failed: Step,
    cause: DomainError | OSError,
    plan_hash: str,
) -> None:
    """Undo what was done, newest first, and raise what came of it."""
    where: dict[str, Any] = {"step": failed.describe(), "plan_hash": plan_hash}
    with suppress(OSError):
        # A kill from here on finds that of the failed step there is nothing to take back.
        journal.undoing(len(done) - 1)
    for at, step in reversed(list(enumerate(done))):
        inverse = step.inverse()
        if inverse is None:
            continue
        try:
            with suppress(OSError):
                journal.undoing(at)
            apply(inverse)
        except Unsettled as e:
            e.metadata.update(where)
            raise
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


def _refuse_one_way(plan: Plan) -> None:
    """Raise NotReversible if a step of the plan cannot be taken back, and would have to be."""
    for step in plan.steps:
        if step.inverse() is None and not needs_no_way_back(step):
            raise NotReversible(
                f"this cannot be taken back, and so not be confirmed later: {step.describe()}",
                step=step.describe(),
                plan_hash=plan.hash,
            )


def _caller() -> Call | None:
    """Answer the call that is being handled; None where there is none, as in a restore."""
    try:
        return call_context.current()
    except LookupError:
        return None


def _facts(call: Call | None) -> dict[str, Any]:
    if call is None:
        return {}
    return {
        "identity": call.caller.identity,
        "method": call.method.name,
        "resources": list(call.resources[:100]),
        "body_sha256": call.body_sha256,
        "intent_seq": call.intent_seq,
        "job": call.job,
    }


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
