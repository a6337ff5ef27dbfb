"""Which facts of a call go into the audit log, and when."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hostler.api.common.v1 import change_pb2
from hostlerd.runtime.audit import Anchor, AuditLog
from hostlerd.runtime.call import Call
from hostlerd.runtime.errors import Code, DomainError

# What goes on while the log is degraded, whatever is configured: what puts a host right, what lets
# its people in again, and what frees space. Reads go on anyway.
GOES_ON = frozenset(
    {
        "/hostler.api.common.v1.BundleService/PushBundle",
        "/hostler.api.common.v1.ConfirmService/ConfirmPending",
        "/hostler.api.common.v1.ConfirmService/RevertPending",
        "/hostler.api.common.v1.JobService/CancelJob",
        "/hostler.api.firewall.v1.RulesetService/DeleteRuleset",
        "/hostler.api.netns.v1.NamespaceService/DeleteNamespace",
        "/hostler.api.netns.v1.ProcessService/SignalProcess",
        "/hostler.api.netns.v1.ProcessService/StopProcess",
        "/hostler.api.tracing.v1.CaptureService/DeleteCapture",
    }
)

_REFUSALS = (Code.PERMISSION_DENIED, Code.UNAUTHENTICATED)
# A record is bounded, whatever a caller names: its line must fit into one message to the journal.
_MOST_RESOURCES = 100
_MOST_STEPS = 200
_MOST_CHARACTERS = 16_384
_MOST_WORDS = 256


class AuditUnavailable(DomainError):
    """The audit log does not take the intent of a change, so the change does not start."""

    code, reason = Code.UNAVAILABLE, "AUDIT_UNAVAILABLE"


class Recorder:
    """Writes the records of calls. Intent is on disk before a change starts, outcome after."""

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit
        self._may_all = audit.bounds.when_full == "allow"

    async def intent(self, call: Call) -> None:
        """Record that a change will start, and wait for the disk.

        Raises AuditUnavailable if the log is degraded and the change could wait.
        """
        goes_on = self._may_all or call.method.name in GOES_ON
        told = {**_who(call), **_change(call), "request": call.request_json}
        try:
            anchor = await self._audit.append(
                durable=True, essential=goes_on, kind="intent", **told
            )
        except OSError as e:
            if goes_on:
                return
            why = self._audit.problem or e.strerror
            raise AuditUnavailable(f"the audit log cannot be written: {why}") from e
        call.intent_seq = anchor.seq

    async def changed(self, call: Call, change: change_pb2.Change) -> Anchor:
        """Record that a change ended well. A disk that fails here does not undo the change."""
        told = {**_who(call), **_change(call), **_timing(call)}
        if change.pending.group:
            told["group"] = change.pending.group
        if change.job:
            told["job"] = change.job
        try:
            anchor = await self._audit.append(
                durable=True,
                kind="outcome",
                **told,
                status="OK",
                outcome=change_pb2.Outcome.Name(change.outcome),
                plan_hash=change.plan.hash,
                steps=_bounded((step.description for step in change.plan.steps), _MOST_STEPS),
            )
        except OSError as e:
            anchor = Anchor(0, "")
            _warn(change, f"the outcome is not in the log: {e.strerror}")
            return anchor
        if problem := self._audit.problem:
            _warn(change, problem)
        return anchor

    async def failed(self, call: Call, error: DomainError) -> None:
        """Record that a call that was let in ended in an error."""
        call.ended = True
        told = {**_who(call), **_change(call), **_error(error), **_timing(call)}
        if not call.method.changes:
            self._audit.note(kind="outcome", **told)
            return
        try:
            await self._audit.append(durable=True, kind="outcome", **told)
        except OSError as e:
            # The error goes to the caller all the same; the writer has told the journal.
            error.metadata["audit"] = f"not written: {e.strerror}"

    async def refused(self, call: Call, error: DomainError) -> None:
        """Record a call that ended in an error, unless `failed` did already."""
        if call.ended:
            return
        if call.intent_seq:
            await self.failed(call, error)
            return
        call.ended = True
        kind = "refusal" if error.code in _REFUSALS else "outcome"
        self._audit.note(kind=kind, **_who(call), **_error(error), **_timing(call))

    def read(self, call: Call, outcome: str = "") -> None:
        """Record a call that changed nothing and went well; nobody waits for the disk."""
        told = {"outcome": outcome} if outcome else {}
        self._audit.note(kind="outcome", **_who(call), status="OK", **told, **_timing(call))

    async def ended(self, call: Call) -> None:
        """Record that a stream came to its end."""
        call.ended = True
        told = {**_who(call), "status": "OK", **_timing(call)}
        if not call.intent_seq:
            self._audit.note(kind="outcome", **told)
            return
        await self._audit.append(durable=True, kind="outcome", **told)

    def cancelled(self, call: Call) -> None:
        """Record that a caller left its stream before its end."""
        if call.ended:
            return
        call.ended = True
        told = {**_who(call), "status": "CANCELLED", **_timing(call)}
        if call.intent_seq:
            self._audit.append(durable=False, kind="outcome", **told)
        else:
            self._audit.note(kind="outcome", **told)


def _warn(change: change_pb2.Change, problem: str) -> None:
    change.warnings.append(
        change_pb2.Warning(code="AUDIT_DEGRADED", message=problem, subject="audit")
    )


def _who(call: Call) -> dict[str, Any]:
    told = {
        "identity": call.caller.identity,
        "certificate_serial": call.caller.certificate_serial,
        "peer": call.caller.peer,
        "method": call.method.name,
        "resources": _bounded(call.resources, _MOST_RESOURCES),
    }
    if call.run:
        told["run"] = call.run[:_MOST_WORDS]
    return told


def _change(call: Call) -> dict[str, Any]:
    """What only changes have; left out where there is none."""
    told = {"request_id": call.request_id, "job": call.job, "approval": call.approval}
    return {key: value[:_MOST_WORDS] for key, value in told.items() if value}


def _error(error: DomainError) -> dict[str, Any]:
    return {
        "status": error.code.name,
        "reason": error.reason,
        "message": error.message[:512],
        "plan_hash": error.metadata.get("plan_hash", ""),
    }


def _timing(call: Call) -> dict[str, Any]:
    return {"duration_s": round(call.duration_s, 6), "intent_seq": call.intent_seq}


def _bounded(words: Iterable[str], most: int) -> list[str]:
    """Answer the first words, each cut short, and how many were left out."""
    kept: list[str] = []
    room, left_out = _MOST_CHARACTERS, 0
    for word in words:
        word = word[:_MOST_WORDS]
        if left_out or len(kept) == most or len(word) > room:
            left_out += 1
            continue
        room -= len(word)
        kept.append(word)
    return [*kept, f"… and {left_out} more"] if left_out else kept
