"""A trace: what is traced, what it may cost, and how it stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

MIB = 1 << 20
"""Bytes."""


class End(Enum):
    """Why a trace has ended."""

    STOPPED = "STOPPED"
    PROCESSES_ENDED = "PROCESSES_ENDED"
    NOBODY_WATCHED = "NOBODY_WATCHED"
    BUDGET_DURATION = "BUDGET_DURATION"
    BUDGET_EVENTS = "BUDGET_EVENTS"
    BUDGET_SIZE = "BUDGET_SIZE"
    BUDGET_CPU = "BUDGET_CPU"
    STORE_FULL = "STORE_FULL"
    INTERRUPTED = "INTERRUPTED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Budget:
    """What a trace may cost; 0 events or bytes is no limit, 0 in what is asked for the default."""

    duration_s: float = 0.0
    events: int = 0
    size_bytes: int = 0
    ring_bytes: int = 0
    cpu_share: float = 0.0


DEFAULT = Budget(
    duration_s=3600.0, events=0, size_bytes=1024 * MIB, ring_bytes=64 * MIB, cpu_share=1.0
)
MOST = Budget(
    duration_s=86400.0,
    events=1 << 62,
    size_bytes=64 * 1024 * MIB,
    ring_bytes=256 * MIB,
    cpu_share=2.0,
)


@dataclass(frozen=True, slots=True)
class Payload:
    """What a trace carries beyond calls and their results."""

    data_bytes: int = 0
    command_lines: bool = False
    environments: bool = False

    def __bool__(self) -> bool:
        """Whether it is anything."""
        return bool(self.data_bytes or self.command_lines or self.environments)


@dataclass(frozen=True, slots=True)
class Keep:
    """How a host keeps what is traced, by a name; limits that are 0 are none.

    The rotation goes on with another file at so many bytes, seconds or events, and keeps the last
    `files` of them.
    """

    name: str = ""
    size_bytes: int = 0
    seconds: float = 0.0
    events: int = 0
    files: int = 0

    @property
    def rotates(self) -> bool:
        """Whether there are several files."""
        return bool(self.size_bytes or self.seconds or self.events)


@dataclass(frozen=True, slots=True)
class Spec:
    """What is traced. What is empty does not restrict. Nothing is kept if `keep` is None."""

    filter: str = ""
    pids: tuple[int, ...] = ()
    with_children: bool = True
    cgroup: str = ""
    start_unix_ns: int = 0
    budget: Budget = field(default_factory=Budget)
    keep: Keep | None = None
    engine: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a trace stands; `end` is None while it runs. Counts are of what passed the filter.

    `ended_unix_s` is when it ended.
    """

    events: int = 0
    lost: int = 0
    size_bytes: int = 0
    cpu_s: float = 0.0
    engine: str = ""
    load_s: float = 0.0
    end: End | None = None
    ended_unix_s: float = 0.0
    problem: str = ""
