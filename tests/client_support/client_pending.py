"""A host's pending group, bundles, jobs and approvals, as its doors tell of them.

The group is taken back by a timer of the host's own, whoever calls; what it changed is put back.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import grpc
from client_errors import refuse, rich

from hostler.api.common.v1 import (
    approval_pb2,
    approval_pb2_grpc,
    bundle_pb2,
    bundle_pb2_grpc,
    change_pb2,
    confirm_pb2,
    confirm_pb2_grpc,
    job_pb2,
    job_pb2_grpc,
)
from hostler.jobs import ENDED

if TYPE_CHECKING:
    from client_doors import Host

DOORS = ("netns", "storage", "firewall", "tracing", "ssl")
_STATE = ("namespaces", "rulesets", "processes", "bundles")


class Pending:
    """The pending group of a host. `shuts` are doors that any change in it shuts."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.group = ""
        self.shuts: tuple[str, ...] = ()
        self.opens = True
        self.confirmed: set[str] = set()
        self.parts: list[Any] = []
        self.ended: list[Any] = []
        self.broken = ""
        self._deadline = 0.0
        self._before: dict[str, Any] = {}
        self._timer: threading.Timer | None = None
        self._lock = threading.RLock()

    def join(self, options: Any, steps: list[tuple[str, str]], context: Any) -> Any:
        """Take a change into the group, as a daemon does; answers its PendingConfirm or None."""
        with self._lock:
            wanted = options.confirm if options.HasField("confirm") else None
            if self.group and (wanted is None or wanted.group != self.group):
                refuse(context, _refusal("CONFIRM_PENDING", f"{self.group} is pending"))
            if wanted is None:
                return None
            if not self.group and not wanted.HasField("within"):
                refuse(context, _refusal("GROUP_NOT_PENDING", "no such group is pending"))
            if options.validate_only or not steps:
                return None
            if not self.group:
                self._open(wanted)
            method = self.host.calls[-1][0]
            path = f"/hostler.api.netns.v1.TestService/{method}"
            words = [words for _, words in steps]
            self.parts.append(
                confirm_pb2.PendingPart(domain="netns", method=path, plan_hash="00", steps=words)
            )
            self.confirmed.clear()
            answer = change_pb2.PendingConfirm(group=self.group, doors=DOORS)
            answer.remaining.FromMilliseconds(int(self.left_s * 1000))
        for door in self.shuts:
            self.host.doors[door].shut()
        return answer

    @property
    def left_s(self) -> float:
        return max(0.0, self._deadline - time.monotonic())

    def _open(self, wanted: Any) -> None:
        within_s = wanted.within.ToTimedelta().total_seconds()
        self.group, self.confirmed, self.parts = wanted.group, set(), []
        self._before = {name: dict(getattr(self.host, name)) for name in _STATE}
        self._deadline = time.monotonic() + within_s
        self._timer = threading.Timer(within_s, self.end, args=("deadline",))
        self._timer.daemon = True
        self._timer.start()

    def confirm(self, domain: str) -> None:
        with self._lock:
            self.confirmed.add(domain)
            if self.confirmed == set(DOORS):
                self._close("OUTCOME_APPLIED", "confirmed")

    def end(self, reason: str) -> None:
        """Take the group back."""
        with self._lock:
            if not self.group:
                return
            for name, before in self._before.items():
                kept = getattr(self.host, name)
                kept.clear()
                kept.update(before)
            outcome = "OUTCOME_UNKNOWN" if self.broken else "OUTCOME_ROLLED_BACK"
            self._close(outcome, self.broken or reason)
        for door in self.shuts if self.opens else ():
            self.host.doors[door].open()

    def _close(self, outcome: str, reason: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
        ended = confirm_pb2.EndedGroup(
            group=self.group, identity="x/user/admin", outcome=outcome, reason=reason
        )
        ended.end_time.GetCurrentTime()
        self.ended.insert(0, ended)
        self.group = ""

    def message(self) -> Any:
        """The group as GetPending has it, or None."""
        if not self.group:
            return None
        made = confirm_pb2.PendingGroup(group=self.group, identity="x/user/admin", parts=self.parts)
        made.remaining.FromMilliseconds(int(self.left_s * 1000))
        for door in DOORS:
            made.doors.add(domain=door, confirmed=door in self.confirmed)
        return made


def _refusal(reason: str, message: str) -> tuple[Any, ...]:
    return rich(grpc.StatusCode.FAILED_PRECONDITION, reason, message)


class Confirms(confirm_pb2_grpc.ConfirmServiceServicer):
    def __init__(self, host: Host, domain: str) -> None:
        self.host, self.domain = host, domain

    def GetPending(self, request: Any, context: Any) -> Any:
        self.host.note("GetPending", request, context)
        pending = self.host.pending
        return confirm_pb2.GetPendingResponse(pending=pending.message(), ended=pending.ended)

    def ConfirmPending(self, request: Any, context: Any) -> Any:
        self.host.note("ConfirmPending", request, context)
        self.host.peers.append((self.domain, context.peer()))
        pending = self.host.pending
        if not pending.group or request.group != pending.group:
            refuse(context, _refusal("GROUP_NOT_PENDING", "no such group is pending"))
        pending.confirm(self.domain)
        change = change_pb2.Change(outcome="OUTCOME_APPLIED", changed=True)
        return confirm_pb2.ConfirmPendingResponse(pending=pending.message(), change=change)

    def RevertPending(self, request: Any, context: Any) -> Any:
        self.host.note("RevertPending", request, context)
        pending = self.host.pending
        if not pending.group or request.group not in ("", pending.group):
            refuse(context, _refusal("GROUP_NOT_PENDING", "no such group is pending"))
        pending.end("asked for")
        change = change_pb2.Change(outcome="OUTCOME_APPLIED", changed=True)
        return confirm_pb2.RevertPendingResponse(ended=pending.ended[0], change=change)


class Bundles(bundle_pb2_grpc.BundleServiceServicer):
    """The bundle of one door: whatever was pushed, by the domain."""

    def __init__(self, host: Host, domain: str) -> None:
        self.host, self.domain = host, domain

    def PushBundle(self, request: Any, context: Any) -> Any:
        self.host.note("PushBundle", request, context)
        same = self.host.bundles.get(self.domain) == request.signed_bundle
        steps = [] if same else [("PushBundle", "put the bundle in force")]
        change = self.host.change(request.change, steps, context)
        if not request.change.validate_only:
            self.host.bundles[self.domain] = request.signed_bundle
        return bundle_pb2.PushBundleResponse(bundle=bundle_pb2.Bundle(version=2), change=change)


class Jobs(job_pb2_grpc.JobServiceServicer):
    """The jobs of one door: `host.jobs[domain]` has the states that each goes through."""

    def __init__(self, host: Host, domain: str) -> None:
        self.host = host
        self.states: dict[str, list[Any]] = host.jobs.setdefault(domain, {})

    def _get(self, name: str, context: Any) -> list[Any]:
        if name not in self.states:
            refuse(context, rich(grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND", f"no job {name}"))
        return self.states[name]

    def ListJobs(self, request: Any, context: Any) -> Any:
        self.host.note("ListJobs", request, context)
        first = [states[0] for states in self.states.values()]
        kept = [job for job in first if not (request.active_only and job.state in ENDED)]
        return job_pb2.ListJobsResponse(jobs=kept)

    def GetJob(self, request: Any, context: Any) -> Any:
        self.host.note("GetJob", request, context)
        return job_pb2.GetJobResponse(job=self._get(request.name, context)[0])

    def WatchJob(self, request: Any, context: Any) -> Iterator[Any]:
        """Tell the states, the first of them at the first call; cut after each unless it is over.

        A job whose last state has not ended goes on for ever, unless the host `gives_up`.
        """
        self.host.note("WatchJob", request, context)
        states = self._get(request.name, context)
        context.send_initial_metadata((("hostler-stream", "open"),))
        for seq, job in enumerate(states, 1):
            if seq > request.after_seq:
                yield job_pb2.WatchJobResponse(seq=seq, job=job)
                if seq < len(states):
                    context.abort(grpc.StatusCode.UNAVAILABLE, "going away")
        while states[-1].state not in ENDED and context.is_active() and not self.host.gives_up:
            time.sleep(0.02)

    def CancelJob(self, request: Any, context: Any) -> Any:
        self.host.note("CancelJob", request, context)
        job = self._get(request.name, context)[0]
        steps = [] if job.state in ENDED else [("CancelJob", f"cancel {job.name}")]
        change = self.host.change(request.change, steps, context)
        if not request.change.validate_only:
            job.state = job_pb2.JOB_STATE_CANCELLED
        return job_pb2.CancelJobResponse(job=job, change=change)


class Approvals(approval_pb2_grpc.ApprovalServiceServicer):
    """The approvals of one door, `host.approvals[domain]`."""

    def __init__(self, host: Host, domain: str) -> None:
        self.host = host
        self.kept: dict[str, Any] = host.approvals.setdefault(domain, {})

    def _get(self, name: str, context: Any) -> Any:
        if name not in self.kept:
            refuse(context, rich(grpc.StatusCode.NOT_FOUND, "APPROVAL_NOT_FOUND", "none"))
        return self.kept[name]

    def ListApprovals(self, request: Any, context: Any) -> Any:
        self.host.note("ListApprovals", request, context)
        return approval_pb2.ListApprovalsResponse(approvals=self.kept.values())

    def GetApproval(self, request: Any, context: Any) -> Any:
        self.host.note("GetApproval", request, context)
        return approval_pb2.GetApprovalResponse(approval=self._get(request.id, context))

    def ApproveChange(self, request: Any, context: Any) -> Any:
        self.host.note("ApproveChange", request, context)
        approval = self._get(request.id, context)
        if request.change.plan_hash != approval.plan.hash:
            refuse(context, rich(grpc.StatusCode.ABORTED, "PLAN_CHANGED", "another plan"))
        if not request.change.validate_only:
            approval.state = approval_pb2.APPROVAL_STATE_APPROVED
        change = change_pb2.Change(outcome="OUTCOME_APPLIED", changed=True)
        return approval_pb2.ApproveChangeResponse(approval=approval, change=change)

    def WithdrawApproval(self, request: Any, context: Any) -> Any:
        self.host.note("WithdrawApproval", request, context)
        approval = self._get(request.id, context)
        steps = [("WithdrawApproval", f"withdraw {approval.id}")]
        change = self.host.change(request.change, steps, context)
        if not request.change.validate_only:
            approval.state = approval_pb2.APPROVAL_STATE_WITHDRAWN
        return approval_pb2.WithdrawApprovalResponse(approval=approval, change=change)


def add_to(server: grpc.Server, host: Host, domain: str) -> None:
    """Serve all of them at a door."""
    bundle_pb2_grpc.add_BundleServiceServicer_to_server(Bundles(host, domain), server)
    confirm_pb2_grpc.add_ConfirmServiceServicer_to_server(Confirms(host, domain), server)
    job_pb2_grpc.add_JobServiceServicer_to_server(Jobs(host, domain), server)
    approval_pb2_grpc.add_ApprovalServiceServicer_to_server(Approvals(host, domain), server)
