"""The tasks of the host: which process each is of, and how that was at each time of a batch."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from hostlerd.tracing.kernel import proc
from hostlerd.tracing.kernel.strace.batch import Rows
from hostlerd.tracing.kernel.strace.processes import Process, from_proc
from hostlerd.tracing.kernel.tracefs.records import Change, What

TASKS_MOST = 1 << 17
_CLONE_THREAD, _CLONE_PARENT = 0x10000, 0x8000
_GENERATIONS_MOST = 64
_ELF_OF_32_BITS = b"\x7fELF\x01"

Column = npt.NDArray[np.int64]


class Tasks:
    """Looks at /proc when a task comes up, and follows what it does from there.

    A thread has a name of its own, and shares all else with its process.
    """

    def __init__(self, boot_ns: int, epoch_ns: int) -> None:
        self._boot_ns, self._epoch_ns = boot_ns, epoch_ns
        self._process_of: dict[int, Process] = {}
        self._is_32: dict[int, bool] = {}

    def look(self) -> None:
        """Learn all that is there."""
        for pid in proc.processes():
            for tid in proc.numbers(f"/proc/{pid}/task"):
                self.of(tid, pid)

    def knows(self, tid: int) -> bool:
        """Whether it has come up."""
        return tid in self._process_of

    def of(self, tid: int, pid: int = 0) -> Process:
        """What is known of a task; of one that has ended, its number alone."""
        known = self._process_of.get(tid)
        if known is None:
            known = self._read(tid, pid)
            if len(self._process_of) < TASKS_MOST:
                self._process_of[tid] = known
        return known

    def is_32(self, tids: Iterable[int]) -> npt.NDArray[np.int32]:
        """Those of these threads whose program is one of 32 bits."""
        found = [tid for tid in tids if self._has_32(self.of(tid).pid)]
        return np.array(found, "<i4")

    def apply(self, change: Change) -> list[int]:
        """Take a change; answers the tasks that are otherwise from then on."""
        tid = change.tid
        if change.what is What.MADE:
            self._process_of[change.other] = self._child(change)
            return [change.other]
        if change.what is What.NAMED:
            self._process_of[tid] = replace(self.of(tid), comm=change.comm)
            return [tid]
        if change.what is What.RAN:
            self._process_of[tid] = self._ran(self.of(tid), change.comm)
            return [tid]
        if change.what in (What.UID, What.GID):
            return self._set(tid, **{change.what.value: change.number})
        if change.what is What.MOVED:
            cwd = proc.link(f"/proc/{self.of(tid).pid}/cwd").encode(errors="surrogateescape")
            return self._set(tid, cwd=cwd)
        return []

    def forget(self, tid: int) -> None:
        """A task is gone."""
        self._process_of.pop(tid, None)
        self._is_32.pop(tid, None)

    def add_kin(self, rows: Rows[Process]) -> None:
        """Add the processes that those are below."""
        waiting = rows.values[1:]
        for _ in range(_GENERATIONS_MOST):
            parents = {process.ppid for process in waiting if process.ppid > 0}
            before = len(rows.values)
            for pid in parents:
                rows.of(self.of(pid))
            waiting = rows.values[before:]
            if not waiting:
                return

    def _set(self, tid: int, **values: int | bytes) -> list[int]:
        """Something of a thread's process has become otherwise; answers its threads."""
        pid = self.of(tid).pid
        # Who shares it is asked of /proc: few calls change anything.
        tids = {tid, *proc.numbers(f"/proc/{pid}/task")}
        for each in tids:
            self._process_of[each] = replace(self.of(each, pid), **values)  # type: ignore[arg-type]
        return sorted(tids)

    def _ran(self, process: Process, path: bytes) -> Process:
        self._is_32.pop(process.pid, None)
        now = from_proc(process.pid, self._boot_ns)
        if now.exe and now.comm == process.comm:
            return replace(process, exe=now.exe, uid=now.uid, gid=now.gid, cgroup=now.cgroup)
        # It has ended since, or is another one again.
        return replace(process, exe=path if path.startswith(b"/") else b"")

    def _child(self, change: Change) -> Process:
        parent = self.of(change.tid)
        if change.number & _CLONE_THREAD:
            return replace(parent, comm=change.comm)
        ppid = parent.ppid if change.number & _CLONE_PARENT else parent.pid
        start_ns = change.time_ns + self._epoch_ns
        return replace(parent, pid=change.other, ppid=ppid, comm=change.comm, start_ns=start_ns)

    def _read(self, tid: int, pid: int) -> Process:
        if not pid:
            pid = int(proc.fields(f"/proc/{tid}/status").get("Tgid", tid))
        whole = self._process_of.get(pid)
        if whole is None:
            whole = from_proc(pid, self._boot_ns)
        return whole if tid == pid else replace(whole, comm=_comm(pid, tid))

    def _has_32(self, pid: int) -> bool:
        known = self._is_32.get(pid)
        if known is None:
            try:
                known = proc.read(f"/proc/{pid}/exe", len(_ELF_OF_32_BITS)) == _ELF_OF_32_BITS
            except OSError:
                # A child that has ended was what its parent is.
                known = False
            if len(self._is_32) < TASKS_MOST:
                self._is_32[pid] = known
        return known


def _comm(pid: int, tid: int) -> bytes:
    with suppress(OSError):
        return proc.read(f"/proc/{pid}/task/{tid}/comm").rstrip(b"\n")
    return b""


class Timeline:
    """Which row each task has at which time of a batch."""

    def __init__(self) -> None:
        self._told: list[tuple[int, int, int]] = []

    def put(self, tid: int, time_ns: int, row: int) -> None:
        """From then on it is this row."""
        self._told.append((tid, time_ns, row))

    def rows(self, tid: npt.NDArray[np.int32], time_ns: npt.NDArray[np.uint64]) -> Column:
        """The rows of events of these tasks at these times; each task has one at time 0."""
        told = np.array(self._told, "<i8").reshape(-1, 3)
        tids = np.concatenate([told[:, 0], tid.astype("<i8")])
        times = np.concatenate([told[:, 1], time_ns.astype("<i8")])
        is_event = np.arange(len(tids)) >= len(told)
        order = np.lexsort((is_event, times, tids))
        is_state = ~is_event[order]
        last = np.maximum.accumulate(np.where(is_state, np.arange(len(order)), 0))
        found = np.zeros(len(order), "<i8")
        found[order] = np.where(order[last] < len(told), order[last], 0)
        return told[found[len(told) :], 2] if len(told) else np.zeros(len(tid), "<i8")
