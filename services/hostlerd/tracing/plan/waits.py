"""What a task waits for, told from its state, its call, and what the call is about."""

from __future__ import annotations

from hostlerd.tracing.model.evidence import Evidence, TargetKind
from hostlerd.tracing.model.finding import WaitKind
from hostlerd.tracing.model.task import CHILD_CALLS, Task

OPENING = frozenset(("open", "openat", "openat2", "creat"))
SENDING = frozenset(
    (
        "write",
        "writev",
        "pwrite64",
        "sendto",
        "sendmsg",
        "sendmmsg",
        "sendfile",
        "splice",
        "vmsplice",
    )
)
# wchan of who waits for the other end of a FIFO. Source: fs/pipe.c, fifo_open.
_FIFO = frozenset(("wait_for_partner", "fifo_open"))
# wchan of who waits for the server of a file system, and may be killed: not in state D.
_SERVERS = frozenset(
    ("request_wait_answer", "__fuse_request_send", "rpc_wait_bit_killable", "wait_for_response")
)
_BY_STATE = {"T": WaitKind.STOPPED, "t": WaitKind.TRACED, "R": WaitKind.RUNNING}
_BY_TARGET = {
    TargetKind.PIPE: WaitKind.PIPE,
    TargetKind.FIFO: WaitKind.PIPE,
    TargetKind.SOCKET: WaitKind.SOCKET,
    TargetKind.DEVICE: WaitKind.DEVICE,
    TargetKind.TERMINAL: WaitKind.DEVICE,
}


def kind_of(task: Task, evidence: Evidence) -> WaitKind:
    """Answer what a task waits for that did not run between the two looks."""
    if task.pid in evidence.frozen:
        return WaitKind.FROZEN
    if task.state in _BY_STATE:
        return _BY_STATE[task.state]
    wchan = evidence.wchans.get(task.tid, "")
    if task.tid in evidence.lock_holders:
        return WaitKind.FILE_LOCK
    if wchan in _FIFO:
        return WaitKind.FIFO_OPEN
    if task.state == "D" or wchan in _SERVERS:
        return _in_the_kernel(task, evidence)
    return _by_call(task, evidence)


def _in_the_kernel(task: Task, evidence: Evidence) -> WaitKind:
    target = evidence.targets.get(task.tid)
    if target is None:
        return WaitKind.OTHER
    if target.filesystem is not None or target.device:
        return WaitKind.STORAGE
    return _BY_TARGET.get(target.kind, WaitKind.OTHER)


def _by_call(task: Task, evidence: Evidence) -> WaitKind:
    if task.rests:
        is_parent = task.call is not None and task.call.name in CHILD_CALLS
        return WaitKind.CHILD if is_parent else WaitKind.IDLE
    if task.call is not None and task.call.waits_on_futex:
        return WaitKind.FUTEX
    target = evidence.targets.get(task.tid)
    return _BY_TARGET.get(target.kind, WaitKind.OTHER) if target else WaitKind.OTHER
