"""Samples the tasks of the host: state, system call, how often each has run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cache

from hostler.core.trace import syscalls
from hostlerd.tracing.kernel import proc
from hostlerd.tracing.model.task import Call, DiskCounters, Sample, Task

_PF_KTHREAD = 0x00200000
_ELF_32 = 1
# A 32-bit program's code is below; so is that of some 64-bit programs.
_LOW = 1 << 32
_INT, _MOST_FD = 0xFFFFFFFF, 0x7FFFFFFF


def sample(pids: Iterable[int], *, all_runs: bool = False) -> Sample:
    """Look at all threads of processes; with `all_runs` also at the runs of those that rest.

    Processes that have ended meanwhile are left out.
    """
    tasks: dict[int, Task] = {}
    unreadable = 0
    for pid in pids:
        for tid in proc.numbers(f"/proc/{pid}/task"):
            try:
                found: Task | None = _task(pid, tid, all_runs=all_runs)
            except PermissionError:
                unreadable += 1
                found = _bare(pid, tid)
            except (OSError, ValueError):
                continue
            if found is not None:
                tasks[tid] = found
        if len(tasks) >= proc.MOST_TASKS:
            break
    return Sample(tasks, disks(), unreadable)


def again(first: Sample, tids: Iterable[int]) -> Sample:
    """Look at some tasks of a sample once more, runs included."""
    tasks = {}
    for tid in tids:
        was = first.tasks[tid]
        try:
            tasks[tid] = _task(was.pid, tid, all_runs=True)
        except (OSError, ValueError):
            continue
    return Sample(tasks, disks())


def disks() -> dict[str, DiskCounters]:
    """What block devices have done, by their numbers. Source: Documentation/admin-guide/iostats."""
    found = {}
    for line in proc.text("/proc/diskstats", proc.MOST_BYTES).splitlines():
        words = line.split()
        done = int(words[3]) + int(words[7])
        found[f"{words[0]}:{words[1]}"] = DiskCounters(words[2], done, int(words[11]))
    return found


def _bare(pid: int, tid: int) -> Task | None:
    try:
        return _from_stat(pid, tid, proc.read(f"/proc/{pid}/task/{tid}/stat"))
    except (OSError, ValueError):
        return None


def _task(pid: int, tid: int, *, all_runs: bool) -> Task:
    folder = f"/proc/{pid}/task/{tid}"
    task = _from_stat(pid, tid, proc.read(f"{folder}/stat"))
    if not (task.is_kernel or task.state in "RZXI"):
        task = replace(task, call=_call(pid, proc.read(f"{folder}/syscall")))
    if all_runs or not task.rests:
        task = replace(task, runs=int(proc.read(f"{folder}/schedstat").split()[2]))
    return task


def _from_stat(pid: int, tid: int, stat: bytes) -> Task:
    # The name may hold spaces and parentheses; it ends with the last one.
    head, _, rest = stat.rpartition(b")")
    words = rest.split()
    return Task(
        pid=pid,
        tid=tid,
        comm=head.partition(b"(")[2].decode("utf-8", "replace"),
        state=chr(words[0][0]),
        parent=int(words[1]),
        started_ticks=int(words[19]),
        is_kernel=bool(int(words[6]) & _PF_KTHREAD),
    )


def _call(pid: int, told: bytes) -> Call | None:
    """Read /proc/PID/syscall: "running", "-1 SP PC", or number, six arguments, SP and PC."""
    words = told.split()
    if len(words) != 9:
        return None
    number = int(words[0])
    is_32 = int(words[8], 16) < _LOW and _is_32_bit(pid)
    name, fd_at, path_at = _named(number, is_32)
    arguments = tuple(int(word, 16) for word in words[1:7])
    fd = arguments[fd_at] & _INT if fd_at is not None else None
    path = arguments[path_at] if path_at is not None else None
    return Call(name, arguments, fd if fd is not None and fd <= _MOST_FD else None, path)


@cache
def _named(number: int, is_32: bool) -> tuple[str, int | None, int | None]:
    known = syscalls.by_number(is_32).get(number)
    if known is None:
        return syscalls.name_of(number, is_32), None, None
    return known.name, known.index_of("fd"), known.index_of("path")


def _is_32_bit(pid: int) -> bool:
    """Whether a process runs a 32-bit program, by the header of its file. Source: elf(5)."""
    try:
        head = proc.read(f"/proc/{pid}/exe", 5)
    except OSError:
        return False
    return head[:4] == b"\x7fELF" and head[4] == _ELF_32
