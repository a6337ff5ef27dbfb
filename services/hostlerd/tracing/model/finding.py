"""What is answered about a thread that does not go on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from hostlerd.tracing.model.evidence import Filesystem, Process, Target
from hostlerd.tracing.model.task import Task


class WaitKind(IntEnum):
    """What a thread waits for, by the numbers of diagnosis.proto."""

    RUNNING = 1
    IDLE = 2
    FUTEX = 3
    PIPE = 4
    FIFO_OPEN = 5
    FILE_LOCK = 6
    SOCKET = 7
    FROZEN = 8
    STOPPED = 9
    TRACED = 10
    STORAGE = 11
    DEVICE = 12
    CHILD = 13
    OTHER = 14


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds what is waited for, and the call that it is in itself.

    `trouble` says why it does not go on, as far as that is seen.
    """

    process: Process
    role: str
    state: str
    tid: int = 0
    call: str = ""
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class DiskState:
    """A block device that is waited for, over both looks."""

    name: str
    numbers: str
    in_flight: int
    completed: int


@dataclass(frozen=True, slots=True)
class Finding:
    """One thread, what it waits for, who holds it, and all of that in a sentence.

    `nobody_wakes` says that all threads of its process wait as it does, for each other.
    """

    task: Task
    process: Process
    kind: WaitKind
    sentence: str
    target: Target | None = None
    holders: tuple[Holder, ...] = ()
    disk: DiskState | None = None
    filesystem: Filesystem | None = None
    wchan: str = ""
    stack: tuple[str, ...] = ()
    stack_unavailable: str = ""
    not_run_for_s: float = 0.0
    same_threads: int = 0
    nobody_wakes: bool = False


@dataclass(frozen=True, slots=True)
class Pressure:
    """Pressure of a resource, in percent of time. Source: Documentation/accounting/psi.rst."""

    resource: str
    some_10s_percent: float = 0.0
    some_60s_percent: float = 0.0
    full_10s_percent: float = 0.0
    full_60s_percent: float = 0.0


@dataclass(frozen=True, slots=True)
class Unseen:
    """What could not be seen, and why."""

    code: str
    message: str
    subject: str = ""
