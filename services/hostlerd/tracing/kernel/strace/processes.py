"""The processes of a trace by strace: known at its beginning, followed as they come and change."""

from __future__ import annotations

import os
import posixpath
from dataclasses import dataclass, replace
from pathlib import Path

from hostler.core.trace.events import NO_ID

_CLONE_THREAD = 0x10000
_FORKS = frozenset(("fork", "vfork", "clone", "clone3"))
_COMM_BYTES = 15
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_TASKS_MOST = 1 << 16
_READ_BYTES_MOST = 1 << 16


@dataclass(frozen=True, slots=True)
class Process:
    """A process as events have it."""

    pid: int
    ppid: int = 0
    comm: bytes = b""
    exe: bytes = b""
    cwd: bytes = b""
    uid: int = NO_ID
    gid: int = NO_ID
    loginuid: int = NO_ID
    sid: int = 0
    tty: int = 0
    start_ns: int = 0
    cgroup: bytes = b""


class Processes:
    """Which process each thread is of. What cannot be known stays empty."""

    def __init__(self) -> None:
        self._process_of: dict[int, Process] = {}
        self._pid_of: dict[int, int] = {}

    def look(self, pid: int, boot_ns: int) -> None:
        """Learn a process with its threads from /proc, with what it says of others' alone."""
        found = from_proc(pid, boot_ns)
        self._process_of[pid] = found
        for task in _names(f"/proc/{pid}/task"):
            self._pid_of[int(task)] = pid

    def of(self, tid: int) -> Process:
        """The process of a thread."""
        pid = self._pid_of.get(tid, tid)
        return self._process_of.get(pid) or Process(pid)

    def knows(self, tid: int) -> bool:
        """Whether it is told whose thread it is."""
        return tid in self._pid_of

    def made(self, by: int, tid: int, time_ns: int, flags: int) -> None:
        """A thread has made another, or another process."""
        parent = self.of(by)
        if len(self._pid_of) >= _TASKS_MOST:
            return
        if flags & _CLONE_THREAD:
            self._pid_of[tid] = parent.pid
            return
        self._pid_of[tid] = tid
        before = self._process_of.get(tid)
        # Its own first calls may have come before this is told.
        if before is None or before.ppid != parent.pid:
            self._process_of[tid] = replace(parent, pid=tid, ppid=parent.pid, start_ns=time_ns)

    def change(self, tid: int, **values: int | bytes) -> None:
        """Something of a process has become otherwise."""
        process = self.of(tid)
        self._process_of[process.pid] = replace(process, **values)  # type: ignore[arg-type]

    def ran(self, tid: int, path: bytes) -> None:
        """A process runs another program."""
        name = posixpath.basename(path)[:_COMM_BYTES]
        self.change(tid, exe=path, comm=name)

    def ended(self, tid: int) -> None:
        """A thread is gone, and its process with the first of its threads."""
        self._pid_of.pop(tid, None)
        self._process_of.pop(tid, None)


def makes_process(name: str) -> bool:
    """Whether what a call answers is a thread or process that it has made."""
    return name in _FORKS


def from_proc(pid: int, boot_ns: int) -> Process:
    """What /proc tells of a process now; what it does not stays empty."""
    folder = f"/proc/{pid}"
    stat = _read(f"{folder}/stat").rpartition(b")")[2].split()
    comm = _read(f"{folder}/comm").rstrip(b"\n")
    ids = {line.split(b":")[0]: line.split()[1:] for line in _lines(f"{folder}/status")}
    login = _read(f"{folder}/loginuid")
    cgroup = next((line[3:] for line in _lines(f"{folder}/cgroup") if line.startswith(b"0::")), b"")
    return Process(
        pid,
        ppid=_number(stat, 1),
        comm=comm,
        exe=_link(f"{folder}/exe"),
        cwd=_link(f"{folder}/cwd"),
        uid=_number(ids.get(b"Uid", []), 1, NO_ID),
        gid=_number(ids.get(b"Gid", []), 1, NO_ID),
        loginuid=int(login) if login.isdigit() else NO_ID,
        sid=_number(stat, 3),
        tty=_number(stat, 4),
        start_ns=boot_ns + _number(stat, 19) * _TICK_NS,
        cgroup=cgroup,
    )


def _number(words: list[bytes], at: int, otherwise: int = 0) -> int:
    return int(words[at]) if len(words) > at else otherwise


def _read(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(_READ_BYTES_MOST)
    except OSError:
        return b""


def _lines(path: str) -> list[bytes]:
    return _read(path).splitlines()


def _link(path: str) -> bytes:
    try:
        return os.fsencode(Path(path).readlink())
    except OSError:
        return b""


def _names(path: str) -> list[str]:
    try:
        return [each.name for each in Path(path).iterdir() if each.name.isdigit()]
    except OSError:
        return []
