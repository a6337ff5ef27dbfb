"""ConfirmService: shows what is pending on this host, confirms it or has it taken back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from hostler.api.common.v1 import change_pb2, confirm_pb2, confirm_pb2_grpc
from hostlerd.pending.documents import KEPT, REVERTED, Ended
from hostlerd.runtime import call as call_context
from hostlerd.runtime.changes import Blocking, Guard
from hostlerd.runtime.errors import PlanChanged
from hostlerd.runtime.pending import Pending
from hostlerd.runtime.pending_door import Door
from hostlerd.runtime.standing import Stage, Standing
from hostlerd.runtime.steps import Plan, Step

_OUTCOMES = {
    KEPT: change_pb2.OUTCOME_APPLIED,
    REVERTED: change_pb2.OUTCOME_ROLLED_BACK,
}


@dataclass(frozen=True, slots=True)
class ConfirmGroup:
    """Confirm a group at a door."""

    group: str
    door: str

    def describe(self) -> str:
        """Say which, and where."""
        return f"confirm {self.group} at {self.door}"

    def inverse(self) -> None:
        """Answer None: what was confirmed can still be reverted, by that call."""


@dataclass(frozen=True, slots=True)
class RevertGroup:
    """Take a whole group back, in every domain."""

    group: str

    def describe(self) -> str:
        """Say which."""
        return f"take back {self.group}"

    def inverse(self) -> None:
        """Answer None."""


class ConfirmService(confirm_pb2_grpc.ConfirmServiceServicer):  # type: ignore[misc]
    """The service at one door.

    Its calls take no lock, since what is pending may have to be confirmed or taken back while a
    change goes on, and no journal, since the watcher keeps what was decided.
    """

    def __init__(self, pending: Pending, door: Door, guard: Guard, blocking: Blocking) -> None:
        self._pending = pending
        self._door = door
        self._guard = guard
        self._blocking = blocking

    async def GetPending(self, request: confirm_pb2.GetPendingRequest, context: Any) -> Any:
        """Get the pending group."""
        standing, past = await self._blocking(self._look)
        return confirm_pb2.GetPendingResponse(
            pending=_group(standing), ended=[_ended(one) for one in past]
        )

    def _look(self) -> tuple[Standing, tuple[Ended, ...]]:
        # In this order, so that a group that ends meanwhile is told twice rather than never.
        standing = self._pending.standing()
        return standing, self._pending.history()

    async def ConfirmPending(self, request: confirm_pb2.ConfirmPendingRequest, context: Any) -> Any:
        """Confirm the group at this door."""
        step = ConfirmGroup(request.group, self._pending.domain)
        call = call_context.current()
        standing, change = await self._blocking(
            self._do, request.change, step, lambda: self._door.confirm(call, request.group)
        )
        return confirm_pb2.ConfirmPendingResponse(pending=_group(standing), change=change)

    async def RevertPending(self, request: confirm_pb2.RevertPendingRequest, context: Any) -> Any:
        """Take the whole group back at once."""
        name = request.group or (await self._blocking(self._pending.standing)).name
        ended, change = await self._blocking(
            self._do, request.change, RevertGroup(name), lambda: self._door.revert(name)
        )
        return confirm_pb2.RevertPendingResponse(
            ended=_ended(ended) if ended else None, change=change
        )

    def _do(
        self, options: change_pb2.ChangeOptions, step: Step, act: Callable[[], Any]
    ) -> tuple[Any, change_pb2.Change]:
        """Plan the one step, and do it unless it is only to be planned."""
        plan = Plan((step,))
        if options.plan_hash and options.plan_hash != plan.hash:
            raise PlanChanged("the plan would be another one by now", plan_hash=plan.hash)
        change = change_pb2.Change(
            outcome=change_pb2.OUTCOME_APPLIED,
            plan=change_pb2.Plan(
                hash=plan.hash,
                steps=[change_pb2.PlanStep(kind=type(step).__name__, description=step.describe())],
            ),
            changed=True,
        )
        call = call_context.current()
        if options.validate_only:
            change.outcome = change_pb2.OUTCOME_PLANNED
            self._guard.offer(call, plan, change)
            return None, change
        self._guard.admit(call, plan, options)
        return act(), change


def _group(standing: Standing | None) -> confirm_pb2.PendingGroup | None:
    if standing is None or standing.group is None or standing.stage is Stage.NONE:
        return None
    group = standing.group
    remaining = Duration()
    remaining.FromNanoseconds(standing.remaining_ns)
    entries = [(e.order_ns, domain, e) for domain, p in standing.parts.items() for e in p.entries]
    return confirm_pb2.PendingGroup(
        group=group.group,
        identity=group.identity,
        create_time=Timestamp(seconds=group.opened_s),
        deadline=Timestamp(seconds=group.deadline_s),
        doors=[
            confirm_pb2.PendingDoor(domain=door, confirmed=door in standing.confirmed)
            for door in standing.doors
        ],
        parts=[
            confirm_pb2.PendingPart(
                domain=domain,
                method=entry.method,
                plan_hash=entry.plan_hash,
                steps=[*entry.steps, *([f"… {entry.more} more"] if entry.more else [])],
            )
            for _, domain, entry in sorted(entries, key=lambda e: e[:2])
        ],
        reverting=standing.stage is Stage.REVERTING,
        remaining=remaining,
    )


def _ended(ended: Ended) -> confirm_pb2.EndedGroup:
    return confirm_pb2.EndedGroup(
        group=ended.group,
        identity=ended.identity,
        end_time=Timestamp(seconds=ended.end_s),
        outcome=_OUTCOMES.get(ended.outcome, change_pb2.OUTCOME_UNKNOWN),
        reason=ended.reason,
    )
