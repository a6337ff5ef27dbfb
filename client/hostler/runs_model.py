"""What is recorded of a run: itself, its hosts, their plans, and where audit logs stood."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from hostler.config import HostlerError


class RunsError(HostlerError):
    """Run records cannot be read or written, or do not say what is needed."""


class RunNotFound(RunsError):
    """There is no such run, or more than one."""


class RunState(StrEnum):
    """How far a run is."""

    RUNNING = "running"
    """Goes on, or its client has ended in the middle: then `Run.holder` is gone."""
    DONE = "done"
    """Every host did it."""
    INCOMPLETE = "incomplete"
    """Every host was asked, and some have failed."""
    STOPPED = "stopped"
    """Stopped before its end, after failures or by its health gate; `Run.why` says where."""
    INTERRUPTED = "interrupted"
    """Stopped before its end by its user."""


class HostState(StrEnum):
    """How far a run is on one host."""

    PLANNED = "planned"
    """Not asked to do it yet."""
    SENT = "sent"
    """Asked to, or about to be; written down before the call."""
    ENDED = "ended"
    """It is over; `RunHost.outcome` says how."""


def now() -> str:
    """The time as records have it: UTC, sorted as text."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass(frozen=True, slots=True)
class Run:
    """A change of one or more hosts.

    `argv` is the command line without secrets, empty for a run of the SDK. `who` is the identity
    and the user of the machine. `holder` is the process that carries it out, empty once it has
    ended; it is gone if it does not renew `lease` (seconds since 1970).
    """

    id: str
    started: str
    state: RunState = RunState.RUNNING
    ended: str = ""
    why: str = ""
    who: str = ""
    context: str = ""
    argv: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    selectors: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    version: str = ""
    kind: str = ""
    not_recorded: str = ""
    holder: str = ""
    lease: float = 0.0
    resumed: int = 0

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "id": self.id,
            "started": self.started,
            "ended": self.ended or None,
            "state": str(self.state),
            "why": self.why,
            "who": self.who,
            "context": self.context or None,
            "argv": list(self.argv),
            "methods": list(self.methods),
            "selectors": list(self.selectors),
            "options": dict(self.options),
            "version": self.version,
            "kind": self.kind,
            "not_recorded": self.not_recorded or None,
            "resumed": self.resumed,
        }


@dataclass(frozen=True, slots=True)
class RunHost:
    """A run on one host.

    `place` is its place in the order of the run, `wave` 0 if it was in none. `record` is the digest
    of what rebuilds the change. `group` is the pending group under --confirm-within.
    """

    run: str
    host: str
    place: int
    wave: int = 0
    state: HostState = HostState.PLANNED
    outcome: str = ""
    plan_hash: str = ""
    error: Mapping[str, Any] | None = None
    request_id: str = ""
    group: str = ""
    record: str = ""
    attempts: int = 0
    job: str = ""
    started: str = ""
    ended: str = ""

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "host": self.host,
            "wave": self.wave or None,
            "state": str(self.state),
            "outcome": self.outcome or None,
            "plan_hash": self.plan_hash or None,
            "error": dict(self.error) if self.error is not None else None,
            "request_id": self.request_id or None,
            "group": self.group or None,
            "attempts": self.attempts,
            "job": self.job or None,
            "started": self.started or None,
            "ended": self.ended or None,
        }


@dataclass(frozen=True, slots=True)
class RunPlan:
    """A plan that hosts of a run had: kind and words of its steps, and its warnings."""

    run: str
    hash: str
    steps: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "hash": self.hash,
            "steps": [{"kind": kind, "description": words} for kind, words in self.steps],
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True, slots=True)
class Anchor:
    """Where a domain's audit log stood after a change of a run: its sequence number and head."""

    run: str
    host: str
    domain: str
    seq: int
    head: str
    time: str = ""

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "run": self.run,
            "host": self.host,
            "domain": self.domain,
            "seq": self.seq,
            "head": self.head,
            "time": self.time,
        }
