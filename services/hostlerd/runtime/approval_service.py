"""Serves hostler.api.common.v1.ApprovalService."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from hostler.api.common.v1 import approval_pb2, approval_pb2_grpc, change_pb2
from hostlerd.runtime.access import Method
from hostlerd.runtime.approvals import (
    Approval,
    ApprovalClosed,
    ApprovalNotCounted,
    Approver,
    State,
)
from hostlerd.runtime.call import Caller, current
from hostlerd.runtime.changes import Blocking
from hostlerd.runtime.errors import EtagMismatch, InvalidRequest, PlanChanged, Violation
from hostlerd.runtime.guard import Guard
from hostlerd.runtime.steps import fingerprint

_PAGE_MOST = 1000
# A list of plans stays below what gRPC's clients take by default; the rest is for GetApproval.
_LISTED_STEPS = 20


class ApprovalService(approval_pb2_grpc.ApprovalServiceServicer):  # type: ignore[misc]
    """Shows what waits for a second person, and takes the second person's word."""

    def __init__(self, guard: Guard, methods: Mapping[str, Method], blocking: Blocking) -> None:
        self._guard = guard
        self._methods = methods
        self._blocking = blocking

    async def ListApprovals(self, request: approval_pb2.ListApprovalsRequest, context: Any) -> Any:
        """List approvals, newest first; a page token is the id before the page."""
        if request.page_size < 0:
            raise InvalidRequest.of([Violation("page_size", "must not be negative")])
        size = min(request.page_size or 100, _PAGE_MOST)
        found: list[Approval] = await self._blocking(self._guard.approvals.all)
        if request.open_only:
            found = [approval for approval in found if approval.open]
        if request.page_token:
            ids = [approval.id for approval in found]
            if request.page_token not in ids:
                raise InvalidRequest.of([Violation("page_token", "not one of this service's")])
            found = found[ids.index(request.page_token) + 1 :]
        more = len(found) > size
        return approval_pb2.ListApprovalsResponse(
            approvals=[to_proto(approval, _LISTED_STEPS) for approval in found[:size]],
            next_page_token=found[size - 1].id if more else "",
        )

    async def GetApproval(self, request: approval_pb2.GetApprovalRequest, context: Any) -> Any:
        """Get an approval with the plan that it is about."""
        found: Approval = await self._blocking(self._guard.approvals.find, request.id)
        return approval_pb2.GetApprovalResponse(approval=to_proto(found))

    async def ApproveChange(self, request: approval_pb2.ApproveChangeRequest, context: Any) -> Any:
        """Approve, as the second person."""
        done, change = await self._blocking(self._approve, request, current().caller)
        return approval_pb2.ApproveChangeResponse(approval=to_proto(done), change=change)

    async def WithdrawApproval(
        self, request: approval_pb2.WithdrawApprovalRequest, context: Any
    ) -> Any:
        """Withdraw what one has asked for oneself, or could approve."""
        done, change = await self._blocking(self._withdraw, request, current().caller)
        return approval_pb2.WithdrawApprovalResponse(approval=to_proto(done), change=change)

    def _approve(
        self, request: approval_pb2.ApproveChangeRequest, caller: Caller
    ) -> tuple[Approval, change_pb2.Change]:
        options = request.change
        found = self._guard.approvals.find(request.id)
        self._guard.check_approver(found, self._method(found), caller)
        if options.plan_hash and options.plan_hash != found.about.plan_hash:
            raise PlanChanged(
                "this approval is about another plan", plan_hash=found.about.plan_hash
            )
        news = found.state is State.REQUESTED
        _check(options, found, news=news or found.state is State.APPROVED)
        if news and not options.validate_only:
            by = Approver(caller.identity, caller.certificate_serial, caller.peer)
            return self._approved(found, by)
        return found, _change(found, "approve", options, news=news)

    def _approved(self, found: Approval, by: Approver) -> tuple[Approval, change_pb2.Change]:
        done = self._guard.approvals.approve(found.id, by)
        # Two may approve in the same moment: the first counts, and the second is told so.
        return done, _change(done, "approve", None, news=done.approver == by)

    def _withdraw(
        self, request: approval_pb2.WithdrawApprovalRequest, caller: Caller
    ) -> tuple[Approval, change_pb2.Change]:
        options = request.change
        found = self._guard.approvals.find(request.id)
        if caller.identity != found.about.requester:
            self._guard.check_approver(found, self._method(found), caller)
        if options.plan_hash and options.plan_hash != found.about.plan_hash:
            raise PlanChanged(
                "this approval is about another plan", plan_hash=found.about.plan_hash
            )
        news = found.open
        _check(options, found, news=news or found.state is State.WITHDRAWN)
        if news and not options.validate_only:
            done = self._guard.approvals.withdraw(found.id)
            return done, _change(done, "withdraw", None, news=True)
        return found, _change(found, "withdraw", options, news=news)

    def _method(self, approval: Approval) -> Method:
        method = self._methods.get(approval.about.method)
        if method is None:
            raise ApprovalNotCounted(
                "what this approval is for is not served here any more", approval=approval.id
            )
        return method


def to_proto(approval: Approval, most_steps: int = 0) -> approval_pb2.Approval:
    """Answer an approval as the API shows it, with so many steps of its plan; 0 means all."""
    about, by = approval.about, approval.approver
    steps = about.steps[:most_steps] if most_steps else about.steps
    if left := len(about.steps) - len(steps):
        steps = (*steps, ("", f"and {left} more"))
    shown = approval_pb2.Approval(
        id=approval.id,
        state=f"APPROVAL_STATE_{approval.state.name}",
        requester=about.requester,
        method=about.method,
        resources=about.resources,
        plan=change_pb2.Plan(
            hash=about.plan_hash,
            steps=[change_pb2.PlanStep(kind=kind, description=words) for kind, words in steps],
        ),
        approver=by.identity if by else "",
    )
    shown.create_time.FromDatetime(datetime.fromtimestamp(approval.created, UTC))
    shown.expire_time.FromDatetime(datetime.fromtimestamp(approval.expires, UTC))
    if approval.approved:
        shown.approve_time.FromDatetime(datetime.fromtimestamp(approval.approved, UTC))
    return shown


def _check(options: change_pb2.ChangeOptions, found: Approval, *, news: bool) -> None:
    """Refuse what does not fit: options that have no meaning here, a plan or state gone by."""
    if options.HasField("confirm") or options.job:
        raise InvalidRequest.of([Violation("change", "approving takes no confirm and no job")])
    plan_hash = found.about.plan_hash
    if options.plan_hash and options.plan_hash != plan_hash:
        raise PlanChanged("this approval is about another plan", plan_hash=plan_hash)
    if options.etag and options.etag != _etag(found):
        raise EtagMismatch("the approval has changed since", etag=_etag(found))
    if not news:
        raise ApprovalClosed(
            f"this approval is {found.state.name.lower()}",
            approval=found.id,
            state=found.state.name,
        )


def _change(
    approval: Approval, verb: str, options: change_pb2.ChangeOptions | None, *, news: bool
) -> change_pb2.Change:
    words = f"{verb} {approval.id}: {approval.about.method} of {approval.about.requester}"
    planned = options is not None and options.validate_only
    return change_pb2.Change(
        outcome=change_pb2.OUTCOME_PLANNED if planned else change_pb2.OUTCOME_APPLIED,
        changed=news,
        # The plan's hash is the one that is approved: what the approver has seen is what counts.
        plan=change_pb2.Plan(
            hash=approval.about.plan_hash,
            steps=[change_pb2.PlanStep(kind=verb.title(), description=words)] if news else [],
        ),
        etag=_etag(approval),
    )


def _etag(approval: Approval) -> str:
    return fingerprint([approval.id, approval.state.name, approval.created])
