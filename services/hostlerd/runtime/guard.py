"""The guard: what a change needs beside the leave to make it, an approval or a destroy token.

`offer` looks at a plan that is only asked for, `admit` at one that is about to be carried out; both
under the domain's lock, and before anything of the change is written down. What `admit` takes is
used up on disk when it returns: a change that fails afterwards has to be asked for anew.

A job is admitted when it is taken on: its plan is made once for that, with `ACCEPTING` set, and
what it was admitted for goes with it. The job then does exactly that plan, or fails.
"""

from __future__ import annotations

import hashlib
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import Message

from hostler.api.common.v1 import change_pb2
from hostlerd.runtime import redact
from hostlerd.runtime.access import Method
from hostlerd.runtime.approvals import (
    About,
    Approval,
    ApprovalNotCounted,
    ApprovalNotFound,
    ApprovalRequired,
    Approvals,
    State,
    is_user,
)
from hostlerd.runtime.authz import Authorizer
from hostlerd.runtime.call import Call, Caller
from hostlerd.runtime.destroy import Bound, DestroyTokenRequired, DestroyTokens, Token
from hostlerd.runtime.errors import DomainError, PlanChanged
from hostlerd.runtime.log import get_log
from hostlerd.runtime.steps import Plan, fingerprint

log = get_log("runtime.guard")

_DESTROY = "DESTROY"


@dataclass(frozen=True, slots=True)
class Admitted:
    """What a job was admitted for."""

    plan_hash: str
    bindings_hash: str


@dataclass(slots=True)
class Accepting:
    """A job that is being taken on: its options, and what came of it."""

    options: change_pb2.ChangeOptions
    admitted: Admitted | None = None


ACCEPTING: ContextVar[Accepting | None] = ContextVar("accepting", default=None)
ADMITTED: ContextVar[Admitted | None] = ContextVar("admitted", default=None)


class Guard:
    """Asks for approvals and destroy tokens, and takes them. `offer` and `admit` block."""

    def __init__(self, state: Path) -> None:
        self.approvals = Approvals(state / "approvals")
        self._tokens = DestroyTokens(state / "destroy")
        self._authorizer: Authorizer | None = None

    def judge_by(self, authorizer: Authorizer) -> None:
        """Judge by this authorizer whether somebody who approved may still do so."""
        self._authorizer = authorizer

    def needs_admission(self, call: Call) -> bool:
        """Tell whether a call needs more than the leave to make it."""
        return call.approval_needed or call.method.access_class == _DESTROY

    def offer(self, call: Call, plan: Plan, change: change_pb2.Change) -> None:
        """Say in the answer what it would take to have this plan done.

        Admits the plan instead where a job is being taken on; raises what `admit` raises then.
        """
        accepting = ACCEPTING.get()
        if accepting is not None:
            self.admit(call, plan, accepting.options)
            accepting.admitted = _admitted(plan)
            return
        if not plan.steps:
            return
        if call.method.access_class == _DESTROY:
            token = self._tokens.make(_bound(call, plan))
            change.destroy_token = token.text
            change.destroy_token_expire_time.FromSeconds(token.expires)
        if call.approval_needed:
            about = _about(call, plan)
            change.warnings.append(
                change_pb2.Warning(
                    code="APPROVAL_NEEDED",
                    message="somebody else has to approve this plan before it can be done",
                    subject=about.id,
                )
            )

    def admit(self, call: Call, plan: Plan, options: change_pb2.ChangeOptions) -> None:
        """Return if the plan may be carried out; what that took is used up, on disk.

        Raises ApprovalRequired, the errors of destroy tokens, PlanChanged (a job that was admitted
        for another plan), OSError. A plan without steps needs nothing.
        """
        if (admitted := ADMITTED.get()) is not None:
            if _admitted(plan) != admitted:
                raise PlanChanged(
                    "the plan would be another one than the job was admitted for",
                    plan_hash=plan.hash,
                )
            return
        if not plan.steps:
            return
        token: Token | None = None
        if call.method.access_class == _DESTROY:
            token = self._tokens.check(options.destroy_token, _bound(call, plan))
        if call.approval_needed:
            self._use_approval(call, _about(call, plan))
        if token is not None:
            self._tokens.use(token)

    def admit_stream(self, call: Call, request: Message) -> None:
        """Return if a stream may begin with this request, as `admit` does.

        There is no plan: the approval holds for a stream that begins with this very request.
        """
        if call.method.access_class == _DESTROY:
            # A stream answers no plan, so nobody can have a token for it.
            raise DestroyTokenRequired("no stream may lose data")
        if call.approval_needed:
            body = request.SerializeToString(deterministic=True)
            about = About(
                call.caller.identity,
                call.method.name,
                call.resources,
                hashlib.sha256(body).hexdigest(),
                ((request.DESCRIPTOR.name, redact.to_json(request)),),
            )
            self._use_approval(call, about)

    def check_approver(self, approval: Approval, method: Method, caller: Caller) -> None:
        """Return if this caller counts as the second person. Raises ApprovalNotCounted."""
        why = ""
        if caller.local:
            why = "a local caller cannot approve: it takes a user's certificate"
        elif not is_user(caller.identity):
            why = "only users can approve"
        elif caller.identity == approval.about.requester:
            why = "nobody approves what he has asked for, with whichever certificate"
        elif self._authorizer is None:
            why = "there are no policies to judge by"
        else:
            call = Call(method, caller, resources=approval.about.resources)
            try:
                self._authorizer.check_identity(call)
                self._authorizer.authorize_approved(call)
            except DomainError as e:
                why = f"whoever approves a call must be allowed to make it: {e.message}"
        if why:
            raise ApprovalNotCounted(why, approval=approval.id)

    def _use_approval(self, call: Call, about: About) -> None:
        try:
            found = self.approvals.find(about.id)
        except ApprovalNotFound:
            found = None
        if found is not None and found.state is State.APPROVED and self._counts(found, call.method):
            self.approvals.use(about.id)
            call.approval = about.id
            return
        asked = self.approvals.request(about)
        raise ApprovalRequired(
            f"somebody else has to approve this: approval {asked.id}",
            approval=asked.id,
            plan_hash=about.plan_hash,
        )

    def _counts(self, approval: Approval, method: Method) -> bool:
        """Tell whether who approved still may; what no longer counts is withdrawn."""
        by = approval.approver
        if by is None:
            return False
        caller = Caller(by.identity, by.peer, local=False, certificate_serial=by.certificate_serial)
        try:
            self.check_approver(approval, method, caller)
        except ApprovalNotCounted as e:
            log.warning("approval no longer counts", approval=approval.id, why=e.message)
            self.approvals.withdraw(approval.id)
            return False
        return True


def _admitted(plan: Plan) -> Admitted:
    return Admitted(plan.hash, fingerprint(dict(plan.bindings)))


def _bound(call: Call, plan: Plan) -> Bound:
    return Bound(call.caller.identity, call.method.name, plan.hash, plan.bindings)


def _about(call: Call, plan: Plan) -> About:
    steps = tuple((type(step).__name__, step.describe()) for step in plan.steps)
    return About(call.caller.identity, call.method.name, call.resources, plan.hash, steps)
