"""Batches of events made by hand: a call, a process and a file are each a few words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from hostler.core.trace.events import COLUMNS, FILE, NO_ID, PROCESS, Events, FileType, Flag, Texts
from hostler.core.trace.syscalls import all_syscalls

START_NS = 1_764_200_000_000_000_000


@dataclass(frozen=True)
class Process:
    pid: int = 0
    name: str = ""
    parent: Process | None = None
    ppid: int = 0
    exe: str = ""
    cmdline: tuple[str, ...] = ()
    environ: tuple[str, ...] = ()
    cwd: str = ""
    uid: int = NO_ID
    gid: int = NO_ID
    loginuid: int = NO_ID
    user: str = ""
    group: str = ""
    loginuser: str = ""
    sid: int = 0
    tty: int = 0
    vpid: int = 0
    start_ns: int = 0
    cgroup: str = ""
    unit: str = ""
    container: str = ""


@dataclass(frozen=True)
class File:
    type: FileType = FileType.FILE
    name: str = ""
    protocol: int = 0
    is_server: bool = False
    local: tuple[bytes, int] = (b"", 0)
    remote: tuple[bytes, int] = (b"", 0)
    device: int = 0
    inode: int = 0


@dataclass(frozen=True)
class Call:
    name: str
    args: tuple[int, ...] = ()
    result: int = 0
    process: Process | None = None
    file: File | None = None
    fd: int = -1
    path: str = ""
    path2: str = ""
    data: bytes = b""
    tid: int = 0
    cpu: int = 0
    after_ns: int = 0
    latency_ns: int = 0
    flags: Flag = field(default=Flag(0))


def batch(calls: Sequence[Call], start_ns: int = START_NS) -> Events:
    """The events that these calls are."""
    made = _Made()
    columns = {name: np.zeros(len(calls), kind) for name, kind in COLUMNS.items()}
    for i, call in enumerate(calls):
        known = all_syscalls()[call.name]
        is_32_bit = bool(call.flags & Flag.IS_32_BIT)
        values = {
            "number": i + 1,
            "time_ns": START_NS + call.after_ns,
            "latency_ns": call.latency_ns,
            "cpu": call.cpu,
            "flags": int(call.flags),
            "syscall": known.number_32 if is_32_bit else known.number,
            "result": call.result,
            **{f"arg{j}": arg % (1 << 64) for j, arg in enumerate(call.args)},
            "tid": call.tid,
            "process": made.process(call.process),
            "file": made.file(call.file),
            "fd": call.fd,
            "path": made.texts.add(call.path.encode()),
            "path2": made.texts.add(call.path2.encode()),
            "data": made.texts.add(call.data),
        }
        for name, value in values.items():
            columns[name][i] = value
    processes = np.array(made.processes, PROCESS)
    return Events(columns, processes, np.array(made.files, FILE), made.texts.rows, 0, start_ns)


class _Made:
    def __init__(self) -> None:
        self.texts = Texts()
        self.processes: list[tuple[object, ...]] = [tuple(np.zeros(1, PROCESS)[0].tolist())]
        self.files: list[tuple[object, ...]] = [tuple(np.zeros(1, FILE)[0].tolist())]
        self._process_rows: dict[Process, int] = {}
        self._file_rows: dict[File, int] = {}

    def process(self, process: Process | None) -> int:
        if process is None:
            return 0
        if process not in self._process_rows:
            parent = self.process(process.parent)
            row = np.zeros(1, PROCESS)[0]
            row["parent"] = parent
            row["ppid"] = process.parent.pid if process.parent else process.ppid
            for name in ("name", "exe", "cwd", "user", "group", "loginuser"):
                row[name] = self.texts.add(getattr(process, name).encode())
            for name in ("cgroup", "unit", "container"):
                row[name] = self.texts.add(getattr(process, name).encode())
            for name in ("cmdline", "environ"):
                words = getattr(process, name)
                row[name] = self.texts.add("".join(f"{w}\0" for w in words).encode())
            for name in ("pid", "uid", "gid", "loginuid", "sid", "tty", "vpid", "start_ns"):
                row[name] = getattr(process, name)
            self._process_rows[process] = len(self.processes)
            self.processes.append(tuple(row.tolist()))
        return self._process_rows[process]

    def file(self, file: File | None) -> int:
        if file is None:
            return 0
        if file not in self._file_rows:
            row = np.zeros(1, FILE)[0]
            row["name"] = self.texts.add(file.name.encode())
            for name in ("type", "protocol", "is_server", "device", "inode"):
                row[name] = getattr(file, name)
            row["local_ip"], row["local_port"] = file.local
            row["remote_ip"], row["remote_port"] = file.remote
            self._file_rows[file] = len(self.files)
            self.files.append(tuple(row.tolist()))
        return self._file_rows[file]
