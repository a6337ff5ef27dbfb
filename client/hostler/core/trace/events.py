"""Events of a trace as columns of numpy, with the tables that they point into. Pure.

An event is one system call, from its entry to its exit. Everything about it that is a number is a
column; the process, the open file, and texts are rows of tables of the same batch, and the event
has their index. Row 0 of each table stands for "none", or "not known". So a test of a process's
name is made once for each process and not for each event, and a million events with the same
path hold it once.

A batch is complete: no index points outside it, and it can be read without those before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum, IntFlag
from typing import Any, Self

import numpy as np
import numpy.typing as npt

NO_ID = 0xFFFFFFFF
"""What uid, gid and loginuid are where they are not known or not set, as in the kernel."""


class Flag(IntFlag):
    """What is special about an event (column `flags`)."""

    IS_32_BIT = 1
    """`syscall` counts as 32-bit programs count."""
    UNFINISHED = 2
    """The exit was not seen: the call does not return (exit_group), or the trace ended before."""
    ENTRY_LOST = 4
    """Only the exit was seen: `time_ns` is its time, `latency_ns` is 0. Arguments are what the
    registers held then, as far as that is known."""
    PATH_CUT = 8
    """`path` is longer than what was kept."""
    DATA_CUT = 16
    """`data` is shorter than what the call carried."""
    DATA_WITHHELD = 32
    """The call carried data, which whoever traces is not allowed to see or has not asked for."""


class FileType(IntEnum):
    """What an fd refers to."""

    NONE = 0
    FILE = 1
    DIRECTORY = 2
    IPV4 = 3
    IPV6 = 4
    UNIX = 5
    PIPE = 6
    EVENT = 7
    SIGNAL = 8
    EPOLL = 9
    INOTIFY = 10
    TIMER = 11
    NETLINK = 12
    PACKET = 13
    DEVICE = 14
    BPF = 15
    PIDFD = 16
    MEMFD = 17
    OTHER = 18


COLUMNS: dict[str, str] = {
    "number": "<u8",  # counts the events of a trace from 1, lost ones too
    "time_ns": "<u8",  # of the entry, since 1970, UTC
    "latency_ns": "<u8",  # from entry to exit
    "cpu": "<u2",  # of the exit
    "flags": "<u2",  # Flag
    "syscall": "<u2",  # hostler.core.trace.syscalls
    "result": "<i8",  # as the kernel answers: -errno on failure; 0 if unfinished
    "arg0": "<u8",
    "arg1": "<u8",
    "arg2": "<u8",
    "arg3": "<u8",
    "arg4": "<u8",
    "arg5": "<u8",
    "tid": "<u4",
    "process": "<u4",  # row of processes: as it was at the exit; for execve, after it
    "file": "<u4",  # row of files: of the call's first fd, or of the fd that it made
    "fd": "<i4",  # that fd; -1 if the call has none
    "path": "<u4",  # row of texts: the first path argument, made absolute where that is known
    "path2": "<u4",  # row of texts: the second one, such as of rename
    "data": "<u4",  # row of texts: what was read or written, if it is wanted and allowed
}
"""The columns of an event and their types, little-endian."""

PROCESS_COLUMNS: dict[str, str] = {
    "pid": "<u4",  # of the thread group
    "ppid": "<u4",
    "parent": "<u4",  # row of processes: the parent as it was then; 0 if not known
    "name": "<u4",  # row of texts: comm
    "exe": "<u4",  # row of texts: the path of the program
    "cmdline": "<u4",  # row of texts: arguments joined by NUL; 0 unless allowed
    "environ": "<u4",  # row of texts: joined by NUL; 0 unless allowed
    "cwd": "<u4",  # row of texts
    "uid": "<u4",  # effective, as gid
    "gid": "<u4",
    "loginuid": "<u4",
    "user": "<u4",  # row of texts: what the traced host calls uid; 0 if it has no name for it
    "group": "<u4",  # row of texts: what it calls gid
    "loginuser": "<u4",  # row of texts: what it calls loginuid
    "sid": "<u4",  # session
    "tty": "<u4",  # device number, 0 for none
    "vpid": "<u4",  # pid in its own pid namespace
    "start_ns": "<u8",  # since 1970, UTC
    "cgroup": "<u4",  # row of texts: path in the unified hierarchy
    "unit": "<u4",  # row of texts: the systemd unit
    "container": "<u4",  # row of texts: name or id
}
"""The columns of a process."""

FILE_COLUMNS: dict[str, str] = {
    "type": "<u1",  # FileType
    "name": "<u4",  # row of texts: path, `1.2.3.4:5->6.7.8.9:80`, `pipe:[4711]` and so on
    "protocol": "<u1",  # IPPROTO_ of a socket, 0 else
    "is_server": "<u1",  # 1 if the socket was accepted or listens
    "local_ip": "S16",  # 4 bytes for IPv4 (padded by NUL), 16 for IPv6
    "local_port": "<u2",
    "remote_ip": "S16",
    "remote_port": "<u2",
    "device": "<u4",  # of the file's filesystem: major << 20 | minor
    "inode": "<u8",
}
"""The columns of an open file."""

Column = npt.NDArray[Any]


def table_type(columns: dict[str, str]) -> np.dtype[np.void]:
    """The type of a row of a table that has these columns."""
    return np.dtype(list(columns.items()))


PROCESS = table_type(PROCESS_COLUMNS)
FILE = table_type(FILE_COLUMNS)


@dataclass(slots=True)
class Events:
    """A batch of events in order of number, and its tables.

    `columns` has each of COLUMNS, all equally long. `lost` is how many events between the end of
    the batch before and the end of this one were seen by the kernel and could not be kept.
    `start_ns` is when the trace began, since 1970, UTC; 0 if that is not known.
    """

    columns: dict[str, Column]
    processes: npt.NDArray[np.void] = field(default_factory=lambda: np.zeros(1, PROCESS))
    files: npt.NDArray[np.void] = field(default_factory=lambda: np.zeros(1, FILE))
    texts: list[bytes] = field(default_factory=lambda: [b""])
    lost: int = 0
    start_ns: int = 0

    def __len__(self) -> int:
        return len(self.columns["number"])

    def __getitem__(self, column: str) -> Column:
        return self.columns[column]

    @classmethod
    def empty(cls) -> Self:
        """A batch without events."""
        return cls({name: np.zeros(0, kind) for name, kind in COLUMNS.items()})

    def of_process(self, column: str) -> Column:
        """A column of the events' processes, such as `pid`: one value for each event."""
        return self.processes[column][self.columns["process"]]

    def of_file(self, column: str) -> Column:
        """A column of the events' files: one value for each event."""
        return self.files[column][self.columns["file"]]

    def select(self, rows: Column | slice) -> Self:
        """The events where `rows`, a mask, indices or a slice, says so, with the same tables."""
        chosen = {name: column[rows] for name, column in self.columns.items()}
        return replace(self, columns=chosen)

    def compact(self) -> Self:
        """The same events, with only those rows of the tables that they use."""
        columns = dict(self.columns)
        columns["process"], processes = _used_processes(columns["process"], self.processes)
        columns["file"], files = _used(columns["file"], self.files)
        texts = _Used(len(self.texts))
        for name in TEXT_COLUMNS:
            texts.add(columns[name])
        for name in PROCESS_TEXTS:
            texts.add(processes[name])
        texts.add(files["name"])
        for name in TEXT_COLUMNS:
            columns[name] = texts.renumber(columns[name])
        for name in PROCESS_TEXTS:
            processes[name] = texts.renumber(processes[name])
        files["name"] = texts.renumber(files["name"])
        kept = [self.texts[i] for i in texts.rows()]
        return type(self)(columns, processes, files, kept, self.lost, self.start_ns)


TEXT_COLUMNS = ("path", "path2", "data")
"""Columns of an event that are rows of texts."""
PROCESS_TEXTS = (
    *("name", "exe", "cmdline", "environ", "cwd", "user", "group", "loginuser"),
    *("cgroup", "unit", "container"),
)
"""Columns of a process that are rows of texts."""


def concatenate(batches: Sequence[Events]) -> Events:
    """One batch of all events, in the order given; tables are joined, not merged."""
    if len(batches) == 1:
        return batches[0]
    if not batches:
        return Events.empty()
    starts = {
        "texts": _starts(len(b.texts) for b in batches),
        "processes": _starts(len(b.processes) for b in batches),
        "files": _starts(len(b.files) for b in batches),
    }
    columns = {
        name: np.concatenate(
            [
                _shifted(b.columns[name], starts[_TABLE_OF[name]][i])
                if name in _TABLE_OF
                else b.columns[name]
                for i, b in enumerate(batches)
            ]
        )
        for name in COLUMNS
    }
    processes = [b.processes.copy() for b in batches]
    files = [b.files.copy() for b in batches]
    for i, start in enumerate(starts["texts"]):
        for name in PROCESS_TEXTS:
            processes[i][name] = _shifted(processes[i][name], start)
        files[i]["name"] = _shifted(files[i]["name"], start)
    for table, start in zip(processes, starts["processes"], strict=True):
        table["parent"] = _shifted(table["parent"], start)
    return Events(
        columns,
        np.concatenate(processes),
        np.concatenate(files),
        [text for b in batches for text in b.texts],
        sum(b.lost for b in batches),
        min((b.start_ns for b in batches if b.start_ns), default=0),
    )


_TABLE_OF = {"process": "processes", "file": "files"} | dict.fromkeys(TEXT_COLUMNS, "texts")


class Texts:
    """A table of texts in the making: each text is held once."""

    def __init__(self) -> None:
        self.rows: list[bytes] = [b""]
        self._known = {b"": 0}

    def add(self, text: bytes) -> int:
        """The row of a text, which is added if it is new."""
        row = self._known.get(text)
        if row is None:
            row = self._known[text] = len(self.rows)
            self.rows.append(text)
        return row


def map_texts(texts: Sequence[bytes], test: Callable[[bytes], Any], kind: str = "?") -> Column:
    """What `test` answers for each text, to be indexed by a column of texts."""
    return np.fromiter((test(t) for t in texts), kind, len(texts))


def _starts(lengths: Iterable[int]) -> list[int]:
    start, starts = 0, []
    for length in lengths:
        starts.append(start)
        start += length
    return starts


def _shifted(column: Column, start: int) -> Column:
    # Row 0 is "none" in every table, and stays row 0.
    return np.where(column == 0, 0, column + np.uint32(start)).astype(column.dtype)


def _used(column: Column, table: Column) -> tuple[Column, Column]:
    used = _Used(len(table))
    used.add(column)
    return used.renumber(column), table[used.rows()]


def _used_processes(column: Column, table: Column) -> tuple[Column, Column]:
    used = _Used(len(table))
    used.add(column)
    before = -1
    # Ancestors are used too; each round adds a generation.
    while before != (count := used.count()):
        before = count
        used.add(table["parent"][used.rows()])
    kept = table[used.rows()]
    kept["parent"] = used.renumber(kept["parent"])
    return used.renumber(column), kept


class _Used:
    """Which rows of a table are in use, and their numbers once the others are gone."""

    def __init__(self, length: int) -> None:
        self._is_used = np.zeros(length, bool)
        self._is_used[0] = True

    def add(self, column: Column) -> None:
        # Row 0 is in use, and many columns have no other.
        if column.any():
            self._is_used[column] = True

    def count(self) -> int:
        return int(np.count_nonzero(self._is_used))

    def rows(self) -> Column:
        return np.flatnonzero(self._is_used)

    def renumber(self, column: Column) -> Column:
        if not column.any():
            return column
        numbers = np.cumsum(self._is_used, dtype="<u4") - np.uint32(1)
        return numbers[column].astype(column.dtype)
