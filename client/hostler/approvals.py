"""Two-person approval, from both sides: what waits for somebody else, and being somebody else."""

from __future__ import annotations

from typing import Any

from hostler.api.common.v1 import approval_pb2
from hostler.channel import rpc
from hostler.doors import door_of
from hostler.jobs import method_word
from hostler.outcome import settled
from hostler.plans import Planned, PlannedStep, RpcChange
from hostler.session import Session
from hostler.skew import word

LIST_APPROVALS = rpc(approval_pb2, "ApprovalService", "ListApprovals")
GET_APPROVAL = rpc(approval_pb2, "ApprovalService", "GetApproval")
APPROVE_CHANGE = rpc(approval_pb2, "ApprovalService", "ApproveChange")
WITHDRAW_APPROVAL = rpc(approval_pb2, "ApprovalService", "WithdrawApproval")


def state_word(approval: Any) -> str:
    """The state of an approval in one word, such as "requested"."""
    return word(approval_pb2.ApprovalState, approval.state)


async def find_approval(session: Session, approval: str) -> tuple[str, Any]:
    """Find an approval at the host's doors; answers its domain and it. Raises CallFailed."""
    request = approval_pb2.GetApprovalRequest(id=approval)
    domain, answer = await door_of(session, GET_APPROVAL, request)
    return domain, answer.approval


class Approve:
    """Approves what somebody else has asked for. See `hostler.plans.Change`.

    Its plan is the plan of the call that waits, as the host tells it: that plan, which has been
    seen, is approved, and no other.
    """

    def __init__(self, approval: str) -> None:
        self._approval = approval

    async def plan(self, session: Session) -> Planned:
        """Show what would be approved; asks the host whether it would take our word."""
        domain, approval = await find_approval(session, self._approval)
        request = approval_pb2.ApproveChangeRequest(id=self._approval)
        request.change.plan_hash = approval.plan.hash
        asked = await RpcChange(APPROVE_CHANGE.at(domain), request).plan(session)
        what = " ".join((method_word(approval.method), *approval.resources))
        head = PlannedStep("ApproveChange", f"approve for {approval.requester}: {what}")
        steps = [PlannedStep(step.kind, f"  {step.description}") for step in approval.plan.steps]
        return Planned(
            approval.plan.hash,
            (head, *steps) if approval_is_open(approval) else (),
            (*asked.warnings, *_closed(approval)),
            response=domain,
        )

    async def apply(self, session: Session, planned: Planned) -> Any:
        """Approve that very plan."""
        request = approval_pb2.ApproveChangeRequest(id=self._approval)
        change = RpcChange(APPROVE_CHANGE.at(planned.response), request)
        return settled(await change.apply(session, planned))


class Withdraw:
    """Withdraws a request for approval, or an approval that was not used. See `plans.Change`."""

    def __init__(self, approval: str) -> None:
        self._approval = approval

    async def plan(self, session: Session) -> Planned:
        """Find it, and show what would not be done then."""
        domain, approval = await find_approval(session, self._approval)
        request = approval_pb2.WithdrawApprovalRequest(id=self._approval)
        asked = await RpcChange(WITHDRAW_APPROVAL.at(domain), request).plan(session)
        what = " ".join((method_word(approval.method), *approval.resources))
        step = PlannedStep("WithdrawApproval", f"withdraw what {approval.requester} asked: {what}")
        steps = (step,) if approval_is_open(approval) else ()
        warnings = (*asked.warnings, *_closed(approval))
        return Planned(asked.hash, steps, warnings, response=(domain, asked))

    async def apply(self, session: Session, planned: Planned) -> Any:
        """Withdraw it."""
        domain, asked = planned.response
        request = approval_pb2.WithdrawApprovalRequest(id=self._approval)
        change = RpcChange(WITHDRAW_APPROVAL.at(domain), request)
        return settled(await change.apply(session, asked))


def approval_is_open(approval: Any) -> bool:
    """Whether it waits for somebody, or can be used."""
    return approval.state in (
        approval_pb2.APPROVAL_STATE_REQUESTED,
        approval_pb2.APPROVAL_STATE_APPROVED,
    )


def _closed(approval: Any) -> tuple[str, ...]:
    if approval_is_open(approval):
        return ()
    return (f"CLOSED: it is {state_word(approval)} already",)
