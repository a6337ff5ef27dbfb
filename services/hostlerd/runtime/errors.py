"""Errors as values of the domain; the edge maps them to google.rpc.Status once (AIP-193)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar


class Code(Enum):
    """The gRPC codes that Hostler answers, by their numbers in google/rpc/code.proto."""

    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


@dataclass(frozen=True, slots=True)
class Violation:
    """One fault of a request: the path of the field and what is wrong with it."""

    field: str
    description: str


class DomainError(Exception):
    """What a domain raises. `code` and `reason` are the class's, `metadata` is the case's.

    `violations` name the fields at fault; with FAILED_PRECONDITION they name what stands in the
    way. The message is for people and holds no secrets.
    """

    code: ClassVar[Code]
    reason: ClassVar[str]

    def __init__(
        self, message: str, /, *, violations: Sequence[Violation] = (), **metadata: object
    ) -> None:
        super().__init__(message)
        self.message = message
        self.violations = tuple(violations)
        self.metadata = {key: str(value) for key, value in metadata.items()}


class InvalidRequest(DomainError):
    """The request breaks rules that hold whatever the state of the host is."""

    code, reason = Code.INVALID_ARGUMENT, "INVALID_REQUEST"

    @classmethod
    def of(cls, violations: Sequence[Violation]) -> InvalidRequest:
        """Make one error of all violations: they are answered together, not one by one."""
        message = "; ".join(f"{v.field}: {v.description}" for v in violations[:5])
        if len(violations) > 5:
            message += f"; and {len(violations) - 5} more"
        return cls(message, violations=violations)


class EtagMismatch(DomainError):
    """The state has moved on since the caller looked."""

    code, reason = Code.ABORTED, "ETAG_MISMATCH"


class PlanChanged(DomainError):
    """The plan would be another one than the caller has seen."""

    code, reason = Code.ABORTED, "PLAN_CHANGED"


class RequestIdReused(DomainError):
    """A request id came again with another request."""

    code, reason = Code.INVALID_ARGUMENT, "REQUEST_ID_REUSED"


class StepFailed(DomainError):
    """A step failed; all steps before it have been undone."""

    code, reason = Code.FAILED_PRECONDITION, "STEP_FAILED"


class Unsettled(DomainError):
    """Whoever carries out the steps was lost in the middle of one: it may have done it or not.

    The change is recovered then, as one that a kill has cut off.
    """


class RollbackFailed(DomainError):
    """A step failed, and so did undoing the ones before: the host is in between."""

    code, reason = Code.DATA_LOSS, "ROLLBACK_FAILED"
