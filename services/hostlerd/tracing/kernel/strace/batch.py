"""Calls become a batch of events, each process, file and text once."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Generic, TypeVar

import numpy as np

from hostler.core.trace import events as trace
from hostlerd.tracing.kernel.capture.kin import Accounts
from hostlerd.tracing.kernel.strace.calls import Call
from hostlerd.tracing.kernel.strace.naming import NOTHING, File
from hostlerd.tracing.kernel.strace.processes import Process
from hostlerd.tracing.model.cgroup import container_of, unit_of

Value = TypeVar("Value", bound=Hashable)


class Rows(Generic[Value]):
    """Values in the order in which they came up; row 0 is none."""

    def __init__(self, none: Value) -> None:
        self.values: list[Value] = [none]
        self._rows = {none: 0}

    def of(self, value: Value) -> int:
        """The row of a value, which is added if it is new."""
        row = self._rows.get(value)
        if row is None:
            row = self._rows[value] = len(self.values)
            self.values.append(value)
        return row


def events_of(calls: Sequence[Call], first_number: int, accounts: Accounts) -> trace.Events:
    """A batch of these calls, numbered from `first_number`."""
    texts = trace.Texts()
    processes, files = Rows(Process(0)), Rows(NOTHING)
    rows = [
        (
            first_number + i,
            call.time_ns,
            call.latency_ns,
            0,
            call.flags,
            call.syscall,
            call.result,
            *call.arguments,
            call.tid,
            processes.of(call.process),
            files.of(call.file),
            call.fd,
            texts.add(call.path),
            texts.add(call.path2),
            texts.add(call.data),
        )
        for i, call in enumerate(calls)
    ]
    told = np.array(rows, np.dtype(list(trace.COLUMNS.items())))
    return trace.Events(
        {name: np.ascontiguousarray(told[name]) for name in trace.COLUMNS},
        process_table(processes.values, texts, accounts),
        file_table(files.values, texts),
        texts.rows,
    )


def process_table(
    values: Sequence[Process], texts: trace.Texts, accounts: Accounts
) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    """These processes as events have them; row 0 is none."""
    table = np.zeros(len(values), trace.PROCESS)
    row_of = {process.pid: row for row, process in enumerate(values)}
    for row, process in enumerate(values[1:], 1):
        told = table[row]
        for name in ("pid", "ppid", "uid", "gid", "loginuid", "sid", "tty", "start_ns"):
            told[name] = getattr(process, name)
        told["vpid"] = process.pid
        told["parent"] = row_of.get(process.ppid, 0) if process.ppid else 0
        words = {
            "name": process.comm,
            "exe": process.exe,
            "cwd": process.cwd,
            "cgroup": process.cgroup,
            "unit": unit_of(process.cgroup),
            "container": container_of(process.cgroup),
            "user": accounts.user(process.uid),
            "group": accounts.group(process.gid),
            "loginuser": accounts.user(process.loginuid),
        }
        for name, text in words.items():
            told[name] = texts.add(text)
    return table


def file_table(
    values: Sequence[File], texts: trace.Texts
) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    """These files as events have them; row 0 is none."""
    table = np.zeros(len(values), trace.FILE)
    for row, file in enumerate(values[1:], 1):
        told = table[row]
        told["type"], told["protocol"] = file.type, file.protocol
        told["name"] = texts.add(file.name)
        told["local_ip"], told["local_port"] = file.local
        told["remote_ip"], told["remote_port"] = file.remote
    return table
