"""What was found out about the waits of tasks: who holds what, and how that fares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class TargetKind(Enum):
    """What a descriptor or a path refers to."""

    FILE = "file"
    PIPE = "pipe"
    FIFO = "FIFO"
    SOCKET = "socket"
    TERMINAL = "terminal"
    DEVICE = "device"
    BLOCK_DEVICE = "block device"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Filesystem:
    """A mounted file system. `used_percent` is None where asking could hang, or was not needed."""

    mount_point: str
    type: str
    device: str
    used_percent: float | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """What a task's call is about. `name` is the kernel's word for it, such as a path."""

    kind: TargetKind
    name: str
    filesystem: Filesystem | None = None
    # The numbers of the block device that stands behind it, such as "8:1"; empty if none is known.
    device: str = ""


@dataclass(frozen=True, slots=True)
class Opener:
    """A process that has something open, and whether to read, to write, or both."""

    pid: int
    fd: int
    reads: bool
    writes: bool


@dataclass(frozen=True, slots=True)
class Futex:
    """A futex that is waited for.

    `owner` is the thread that holds the lock, 0 if that cannot be told; `owner_is_gone` says that
    it ended. `mapped_by` are other processes that have the memory mapped, for a shared one.
    """

    owner: int = 0
    owner_is_gone: bool = False
    is_shared: bool = False
    mapped_by: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a socket: in words, and the processes of this host that hold it."""

    words: str
    pids: tuple[int, ...] = ()
    # Bytes, or for listeners connections, that nobody has taken yet.
    queued: int | None = None


@dataclass(frozen=True, slots=True)
class Process:
    """What a process is called; see ProcessName in diagnosis.proto."""

    pid: int
    comm: str
    exe: str = ""
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that was found out, by thread id where it is about one wait."""

    targets: Mapping[int, Target] = field(default_factory=dict)
    futexes: Mapping[int, Futex] = field(default_factory=dict)
    openers: Mapping[int, tuple[Opener, ...]] = field(default_factory=dict)
    # Processes that do not show what they have open: "nobody" cannot be said then.
    hidden: int = 0
    peers: Mapping[int, Peer] = field(default_factory=dict)
    lock_holders: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    # Who serves the block device that is waited for.
    servers: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    tracers: Mapping[int, int] = field(default_factory=dict)
    wchans: Mapping[int, str] = field(default_factory=dict)
    # By process.
    frozen: Mapping[int, str] = field(default_factory=dict)
    processes: Mapping[int, Process] = field(default_factory=dict)
    # The fullest file system that a process has a file open on for writing.
    writes_to: Mapping[int, Filesystem] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Details:
    """What is looked up of a thread that is told of: its stack in the kernel, or why there is none.

    `not_run_for_s` is for how long it has not had a CPU, None where the kernel does not tell.
    """

    stack: tuple[str, ...] = ()
    stack_unavailable: str = ""
    not_run_for_s: float | None = None
