"""A capture: a trace that the host has kept."""

from __future__ import annotations

from dataclasses import dataclass

from hostlerd.tracing.model.trace import End, Payload, Spec


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many captures a host keeps, and how many bytes; one identity has half of either."""

    bytes: int = 4 << 30
    captures: int = 64


@dataclass(frozen=True, slots=True)
class Stored:
    """A capture as it stands; `end` is None while it is written. Counts are of what it has."""

    name: str
    spec: Spec
    payload: Payload
    owner: str
    boot_id: str
    started_unix_s: float
    ended_unix_s: float = 0.0
    end: End | None = None
    problem: str = ""
    events: int = 0
    lost: int = 0
    size_bytes: int = 0
    files: int = 0


@dataclass(frozen=True, slots=True)
class Query:
    """What is wanted of a capture; times are of calls that were under way then, 0 is no limit."""

    name: str
    filter: str = ""
    begin_ns: int = 0
    end_ns: int = 0
    after_seq: int = 0


@dataclass(frozen=True, slots=True)
class RemoveCapture:
    """Remove a capture."""

    name: str

    @property
    def survives_boot(self) -> bool:
        """It is gone for good."""
        return True

    def describe(self) -> str:
        """Say which."""
        return f"remove the capture {self.name}"

    def inverse(self) -> None:
        """It cannot be taken back."""
