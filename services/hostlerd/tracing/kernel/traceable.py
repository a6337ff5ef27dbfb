"""Which processes a trace can be of. Source: proc(5)."""

from __future__ import annotations

import os
from collections.abc import Iterable

from hostlerd.tracing.errors import ProcessNotFound, ProcessUntraceable
from hostlerd.tracing.kernel import proc
from hostlerd.tracing.kernel.processes import process

_PF_KTHREAD = 0x00200000
_STATE, _FLAGS, _THREADS = 0, 6, 17
_NAMED_MOST = 10


def check_traceable(pids: Iterable[int], *, by_strace: bool) -> None:
    """Refuse processes of which a trace would tell nothing, now or ever.

    With `by_strace` also those that have a tracer: ptrace(2) allows one. Raises ProcessNotFound,
    ProcessUntraceable.
    """
    wanted = tuple(pids)
    missing = [pid for pid in wanted if not is_alive(pid)]
    if missing:
        raise ProcessNotFound(f"there is no process {_listed(missing)}", pids=missing[:_NAMED_MOST])
    for pid in wanted:
        if why := _why_not(pid, by_strace=by_strace):
            raise ProcessUntraceable(f"{pid} cannot be traced: {why}", pid=pid)


def is_alive(pid: int) -> bool:
    """Whether a process may still make calls: one that has ended and is not waited for cannot."""
    words = _stat(pid)
    # What only its first thread has left goes on by the others.
    return bool(words) and (words[_STATE] not in "ZX" or int(words[_THREADS]) > 1)


def _why_not(pid: int, *, by_strace: bool) -> str:
    if pid == os.getpid():
        return "it is the daemon that traces; each call that it tells of would be one more"
    words = _stat(pid)
    if words and int(words[_FLAGS]) & _PF_KTHREAD:
        return "it is a thread of the kernel, which makes no system calls"
    status = proc.fields(f"/proc/{pid}/status")
    leader = status.get("Tgid", str(pid))
    if leader != str(pid):
        return f"it is a thread of process {leader}, which is traced as a whole"
    tracer = int(status.get("TracerPid", "0"))
    if by_strace and tracer:
        return f"{process(tracer).comm} ({tracer}) traces it, and strace can do so once alone"
    return ""


def _stat(pid: int) -> list[str]:
    """The words of /proc/PID/stat from the state on; none if it is gone."""
    return proc.text(f"/proc/{pid}/stat").rpartition(")")[2].split()


def _listed(pids: list[int]) -> str:
    shown = ", ".join(map(str, pids[:_NAMED_MOST]))
    return f"{shown} and {len(pids) - _NAMED_MOST} more" if len(pids) > _NAMED_MOST else shown
