"""Which facts of a call go into the audit log, and when."""

from __future__ import annotations

from typing import Any

from hostler.api.common.v1 import change_pb2
from hostlerd.runtime.audit import Anchor, AuditLog
from hostlerd.runtime.call import Call
from hostlerd.runtime.errors import Code, DomainError


class AuditUnavailable(DomainError):
    """The audit log does not take the intent of a change, so the change does not start."""

    code, reason = Code.UNAVAILABLE, "AUDIT_UNAVAILABLE"


class Recorder:
    """Writes the records of calls. Intent is on disk before a change starts, outcome after."""

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit

    async def intent(self, call: Call) -> None:
        """Record that a change will start, and wait for the disk. Raises AuditUnavailable."""
        try:
            anchor = await self._audit.append(
                durable=True, kind="intent", **_who(call), request=call.request_json
            )
        except OSError as e:
            raise AuditUnavailable(f"the audit log cannot be written: {e.strerror}") from e
        call.intent_seq = anchor.seq

    async def changed(self, call: Call, change: change_pb2.Change) -> Anchor:
        """Record that a change ended well. A disk that fails here does not undo the change."""
        try:
            return await self._audit.append(
                durable=True,
                kind="outcome",
                **_who(call),
                status="OK",
                outcome=change_pb2.Outcome.Name(change.outcome),
                plan_hash=change.plan.hash,
                steps=[step.description for step in change.plan.steps],
                **_timing(call),
            )
        except OSError:
            change.warnings.append(
                change_pb2.Warning(
                    code="AUDIT_DEGRADED", message="the outcome could not be written to the log"
                )
            )
            return Anchor(0, "")

    async def failed(self, call: Call, error: DomainError) -> None:
        """Record that a change ended in an error."""
        await self._outcome(call, error, durable=True)

    async def refused(self, call: Call, error: DomainError) -> None:
        """Record a call that ended in an error, unless `failed` did already."""
        if call.intent_seq and not call.ended:
            await self._outcome(call, error, durable=True)
        elif not call.intent_seq:
            kind = "refusal" if error.code in _REFUSALS else "outcome"
            await self._outcome(call, error, durable=False, kind=kind)

    def read(self, call: Call, outcome: str = "") -> None:
        """Record a call that changed nothing and went well; nobody waits for the disk."""
        told = {"outcome": outcome} if outcome else {}
        self._audit.append(
            durable=False, kind="outcome", **_who(call), status="OK", **told, **_timing(call)
        )

    async def ended(self, call: Call) -> None:
        """Record that a stream came to its end."""
        call.ended = True
        done = self._audit.append(
            durable=bool(call.intent_seq),
            kind="outcome",
            **_who(call),
            status="OK",
            **_timing(call),
        )
        if call.intent_seq:
            await done

    def cancelled(self, call: Call) -> None:
        """Record that a caller left its stream before its end."""
        if call.ended:
            return
        call.ended = True
        self._audit.append(
            durable=False, kind="outcome", **_who(call), status="CANCELLED", **_timing(call)
        )

    async def _outcome(
        self, call: Call, error: DomainError, *, durable: bool, kind: str = "outcome"
    ) -> None:
        call.ended = True
        done = self._audit.append(
            durable=durable,
            kind=kind,
            **_who(call),
            status=error.code.name,
            reason=error.reason,
            message=error.message[:512],
            plan_hash=error.metadata.get("plan_hash", ""),
            **_timing(call),
        )
        if durable:
            try:
                await done
            except OSError as e:
                # The error goes to the caller all the same; the writer has told the journal.
                error.metadata["audit"] = f"not written: {e.strerror}"


_REFUSALS = (Code.PERMISSION_DENIED, Code.UNAUTHENTICATED)


def _who(call: Call) -> dict[str, Any]:
    return {
        "identity": call.caller.identity,
        "certificate_serial": call.caller.certificate_serial,
        "peer": call.caller.peer,
        "method": call.method.name,
        "resources": list(call.resources[:100]),
    }


def _timing(call: Call) -> dict[str, Any]:
    return {"duration_s": round(call.duration_s, 6), "intent_seq": call.intent_seq}
