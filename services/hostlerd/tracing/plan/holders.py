"""Who holds what a task waits for, and why that one does not go on."""

from __future__ import annotations

from collections.abc import Collection
from itertools import chain

from hostlerd.tracing.model.evidence import Evidence, Filesystem, TargetKind
from hostlerd.tracing.model.finding import WaitKind
from hostlerd.tracing.model.task import EVENT_CALLS, Sample, Task
from hostlerd.tracing.plan.waits import SENDING

# From here on a file system is worth a word: daemons of logs stop before theirs is full.
_NOTABLE_PERCENT = 80.0
_MOST_HOLDERS = 20


def of(
    task: Task, kind: WaitKind, first: Sample, evidence: Evidence
) -> tuple[tuple[int, str], ...]:
    """Answer the processes, or for a futex the thread, that hold what a task waits for, and how."""
    tid = task.tid
    if kind is WaitKind.FUTEX:
        found = _of_futex(task, evidence)
    elif kind is WaitKind.FILE_LOCK:
        found = [(pid, "holds the lock") for pid in evidence.lock_holders.get(tid, ())]
    elif kind in (WaitKind.PIPE, WaitKind.DEVICE, WaitKind.FIFO_OPEN):
        found = _of_opened(task, kind, evidence)
    elif kind is WaitKind.STORAGE:
        pids = dict.fromkeys(each.pid for each in evidence.openers.get(tid, ()))
        found = [(pid, "serves such file systems") for pid in pids if pid != task.pid]
        found += [(pid, "serves the device") for pid in evidence.servers.get(tid, ())]
    elif kind is WaitKind.SOCKET:
        peer = evidence.peers.get(tid)
        found = [(pid, "has the other end") for pid in peer.pids if pid != task.pid] if peer else []
    elif kind is WaitKind.TRACED and evidence.tracers.get(tid):
        found = [(evidence.tracers[tid], "traces it")]
    elif kind is WaitKind.CHILD:
        children = (t for t in first.tasks.values() if t.parent == task.pid and t.tid == t.pid)
        found = [(child.pid, "is the child") for child in children]
    else:
        found = []
    return tuple(found[:_MOST_HOLDERS])


def _of_futex(task: Task, evidence: Evidence) -> list[tuple[int, str]]:
    futex = evidence.futexes.get(task.tid)
    if futex is None:
        return []
    if futex.owner and not futex.owner_is_gone:
        return [(futex.owner, "owns the lock")]
    return [(pid, "has the lock's memory mapped") for pid in futex.mapped_by]


def _of_opened(task: Task, kind: WaitKind, evidence: Evidence) -> list[tuple[int, str]]:
    opened = evidence.openers.get(task.tid, ())
    others = (each for each in opened if each.pid != task.pid)
    if kind is WaitKind.DEVICE:
        target = evidence.targets.get(task.tid)
        is_terminal = target is not None and target.kind is TargetKind.TERMINAL
        role = "has the other end" if is_terminal else "has it open"
        return [(pid, role) for pid in dict.fromkeys(each.pid for each in others)]
    wanted = "reads" if sends(task) else "writes"
    role = "has the end to read from" if sends(task) else "has the end to write to"
    return [
        (pid, role) for pid in dict.fromkeys(each.pid for each in others if getattr(each, wanted))
    ]


def sends(task: Task) -> bool:
    """Whether a task is in a call that gives something away."""
    return task.call is not None and (task.call.name in SENDING or task.call.name == "connect")


def controls(task: Task) -> bool:
    """Whether a task is in a call that should be answered at once."""
    return task.call is not None and task.call.name in ("ioctl", "close", "fsync")


def futex_is_stuck(
    task: Task, first: Sample, evidence: Evidence, troubled: Collection[int]
) -> bool:
    """Whether the wait for a futex is one for a lock, or one that nobody can end.

    Threads that wait for work do so in a futex as well: those are left alone.
    """
    futex = evidence.futexes.get(task.tid)
    if futex is None:
        return False
    if futex.owner:
        return True
    if futex.is_shared and futex.mapped_by:
        return all(pid in troubled for pid in futex.mapped_by)
    return nobody_wakes(task.pid, first)


def takes_turns(task: Task, first: Sample, evidence: Evidence, troubled: Collection[int]) -> bool:
    """Whether a lock is held by a worker of the same server that waits for somebody to serve.

    Postfix and Apache have one of many workers listen at a time; the others wait in good order.
    """
    others = [first.tasks.get(pid) for pid in evidence.lock_holders.get(task.tid, ())]
    return bool(others) and all(
        each is not None
        and (each.comm, each.parent) == (task.comm, task.parent)
        and each.call is not None
        and each.call.name in EVENT_CALLS
        and each.pid not in troubled
        for each in others
    )


def nobody_wakes(pid: int, first: Sample) -> bool:
    """Whether all threads of a process wait in futexes without end."""
    threads = [t for t in first.tasks.values() if t.pid == pid]
    return all(
        t.state == "S" and t.call is not None and t.call.waits_on_futex and not t.call.has_timeout
        for t in threads
    )


def is_full(place: Filesystem) -> bool:
    """Whether a file system is so full that a daemon of logs may have stopped for it."""
    return place.used_percent is not None and place.used_percent >= _NOTABLE_PERCENT


def trouble(pid: int, first: Sample, evidence: Evidence, kind: WaitKind | None) -> str:
    """Say why a holder does not go on, "" if nothing of the kind is seen."""
    return " and ".join(chain(_state(pid, first, evidence, kind), _room(pid, evidence)))


def _state(pid: int, first: Sample, evidence: Evidence, kind: WaitKind | None) -> list[str]:
    task = first.tasks.get(pid)
    if task is None:
        return ["has ended"]
    if task.pid in evidence.frozen:
        return [f"is frozen with its control group {evidence.frozen[task.pid]}"]
    by_state = {"T": "is suspended by a signal", "t": "is held by a tracer", "Z": "has ended"}
    if task.state in by_state:
        return [by_state[task.state]]
    if kind is None:
        return []
    return ["is held up in the kernel" if task.state == "D" else "is stuck itself"]


def _room(pid: int, evidence: Evidence) -> list[str]:
    place = evidence.writes_to.get(pid)
    if place is None or not is_full(place):
        return []
    return [f"its disk at {place.mount_point} is {place.used_percent:.0f} % full"]
