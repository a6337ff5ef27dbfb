"""A job as values: what was asked for, how far it is, how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from hostlerd.runtime.errors import Code, DomainError

# What a boot has made uncountable goes on from here: progress lies in memory.
NEW_COUNT = 1 << 32


class State(Enum):
    """What a job is up to, by the names of the API."""

    QUEUED = 1
    RUNNING = 2
    SUCCEEDED = 3
    FAILED = 4
    CANCELLED = 5
    INTERRUPTED = 6


class JobNotFound(DomainError):
    """There is no such job."""

    code, reason = Code.NOT_FOUND, "JOB_NOT_FOUND"


class TooManyJobs(DomainError):
    """As many jobs are waiting as may."""

    code, reason = Code.RESOURCE_EXHAUSTED, "TOO_MANY_JOBS"


@dataclass(frozen=True, slots=True)
class Record:
    """What was asked for, and by whom. `plan_hash` is set if it was admitted for one plan alone."""

    id: str
    method: str
    identity: str
    certificate_serial: str
    peer: str
    local: bool
    outside: bool
    run: str
    resources: tuple[str, ...]
    request_id: str
    intent_seq: int
    created: float
    plan_hash: str = ""
    bindings_hash: str = ""

    @property
    def name(self) -> str:
        """Its name in the API."""
        return f"jobs/{self.id}"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is. `seq` grows with each that is written; `remaining_s` is None if unknown."""

    seq: int = 1
    done: int = 0
    total: int = 0
    rate: float = 0.0
    remaining_s: float | None = None
    activity: str = ""
    leaves: str = ""
    unit: str = "steps"


@dataclass(frozen=True, slots=True)
class End:
    """How a job ended. The error's fields are empty if it did not fail."""

    state: State
    seq: int
    ended: float
    done: int = 0
    total: int = 0
    leaves: str = ""
    code: str = ""
    reason: str = ""
    message: str = ""
    resume: str = ""
    unit: str = "steps"


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it is now. `ended` is None as long as nothing final is on disk."""

    record: Record
    state: State
    progress: Progress
    ended: End | None = None
