"""Tasks as the kernel shows them: processes, their threads, and the system call each is in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# How a daemon waits that has nothing to do. `restart_syscall` goes on with a wait for a time.
EVENT_CALLS = frozenset(
    (
        *("epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "ppoll", "select", "pselect6"),
        *("accept", "accept4"),
    )
)
IDLE_CALLS = EVENT_CALLS | frozenset(
    (
        *("nanosleep", "clock_nanosleep", "pause", "rt_sigsuspend", "rt_sigtimedwait"),
        *("restart_syscall", "io_getevents", "io_pgetevents", "io_uring_enter", "futex_waitv"),
    )
)
CHILD_CALLS = frozenset(("wait4", "waitid"))
_FUTEX_COMMAND, _FUTEX_PRIVATE = 0x7F, 0x80
_FUTEX_WAITS = frozenset((0, 6, 9, 11, 13))
"""FUTEX_WAIT, LOCK_PI, WAIT_BITSET, WAIT_REQUEUE_PI, LOCK_PI2. Source: linux/futex.h."""


@dataclass(frozen=True, slots=True)
class Call:
    """A system call that a task is in, None where it is about no descriptor and no path.

    `fd` is the descriptor, `path` the address of the path.
    """

    name: str
    arguments: tuple[int, ...]
    fd: int | None = None
    path: int | None = None

    @property
    def waits_on_futex(self) -> bool:
        """Whether it waits for a futex, with or without a timeout."""
        return self.name == "futex" and self.arguments[1] & _FUTEX_COMMAND in _FUTEX_WAITS

    @property
    def has_timeout(self) -> bool:
        """Whether a wait for a futex ends by itself."""
        return self.waits_on_futex and self.arguments[3] != 0

    @property
    def is_shared(self) -> bool:
        """Whether the futex may be one of several processes."""
        return not self.arguments[1] & _FUTEX_PRIVATE


@dataclass(frozen=True, slots=True)
class Task:
    """A thread. `state` is the letter of proc(5); `runs` counts how often it got a CPU.

    `call` is None if it runs, is a kernel thread, or is not in a system call; `runs` is None where
    it was not asked for or is not told. `started_ticks` tells it from another of the same number.
    """

    pid: int
    tid: int
    comm: str
    state: str
    parent: int
    started_ticks: int
    is_kernel: bool = False
    call: Call | None = None
    runs: int | None = None

    @property
    def rests(self) -> bool:
        """Whether it waits as one does that has nothing to do, or not at all."""
        if self.state in "RIZXP":
            return True
        if self.state != "S":
            return False
        call = self.call
        if call is None:
            return True
        return call.name in IDLE_CALLS or call.name in CHILD_CALLS or call.has_timeout

    def went_on(self, later: Task) -> bool:
        """Whether it has run, or is another one, since it was seen so."""
        if self.runs is not None and later.runs is not None and self.runs != later.runs:
            return True
        return (self.started_ticks, self.state, self.call) != (
            later.started_ticks,
            later.state,
            later.call,
        )


@dataclass(frozen=True, slots=True)
class Sample:
    """All tasks of the host by thread id, and the requests that disks had done by then."""

    tasks: Mapping[int, Task]
    disks: Mapping[str, DiskCounters]
    unreadable: int = 0


@dataclass(frozen=True, slots=True)
class DiskCounters:
    """A block device in diskstats: requests completed so far, and those in flight."""

    name: str
    completed: int
    in_flight: int
