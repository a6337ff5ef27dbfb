"""Calls of a `.scap` file gathered into batches of events. Pure."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from hostler.core.trace.events import COLUMNS, FILE, PROCESS, PROCESS_TEXTS, Events, Texts
from hostler.core.trace.scap_layout import ScapUser
from hostler.core.trace.scap_lists import File, Process
from hostler.core.trace.scap_state import Call

_MAX_EVENTS = 8 * 1024
_MAX_TEXT_BYTES = 8 * 1024 * 1024
_MAX_USERS = 64 * 1024


class Batch:
    """Events on their way into a batch; each process and file has one row."""

    def __init__(self) -> None:
        self._number = 0
        self._start_ns = 0
        self._users: dict[int, bytes] = {}
        self._groups: dict[int, bytes] = {}
        self._start()

    def _start(self) -> None:
        self.count = 0
        self._columns: dict[str, list[int]] = {name: [] for name in COLUMNS}
        self._texts = Texts()
        self._text_bytes = 0
        self._processes: dict[Process | None, int] = {None: 0}
        self._files: dict[File, int] = {File(): 0}

    def know(self, what: int, number: int, name: bytes) -> None:
        """Learn what a user or a group is called."""
        known = self._users if what == ScapUser.USER else self._groups
        if len(known) < _MAX_USERS:
            known[number] = name

    @property
    def is_full(self) -> bool:
        """Whether it should be taken."""
        return self.count >= _MAX_EVENTS or self._text_bytes >= _MAX_TEXT_BYTES

    def add(self, call: Call, process: Process, fd: int, file: File) -> None:
        """Add a call."""
        self.count += 1
        self._number += 1
        # Nor does sysdig know more of when a capture began than its first event.
        self._start_ns = self._start_ns or call.time_ns
        row = {"number": self._number, "syscall": call.number, "fd": fd}
        row |= {f"arg{i}": argument for i, argument in enumerate(call.arguments)}
        for name in ("time_ns", "latency_ns", "cpu", "flags", "result", "tid"):
            row[name] = int(getattr(call, name))
        for name in ("path", "path2", "data"):
            text = call.texts.get(name, b"")
            self._text_bytes += len(text)
            row[name] = self._texts.add(text)
        row["process"] = self._processes.setdefault(process, len(self._processes))
        row["file"] = self._files.setdefault(file, len(self._files))
        for name, value in row.items():
            self._columns[name].append(value)

    def _name_users(self, process: np.void) -> None:
        process["user"] = self._texts.add(self._users.get(int(process["uid"]), b""))
        process["group"] = self._texts.add(self._groups.get(int(process["gid"]), b""))
        process["loginuser"] = self._texts.add(self._users.get(int(process["loginuid"]), b""))

    def take(self) -> Events:
        """The batch; a new one begins."""
        processes = np.zeros(len(self._processes), PROCESS)
        for process, at in self._processes.items():
            for field in fields(Process) if process else ():
                value = getattr(process, field.name)
                is_text = field.name in PROCESS_TEXTS
                processes[at][field.name] = self._texts.add(value) if is_text else value
        for at in range(1, len(processes)):
            self._name_users(processes[at])
        files = np.zeros(len(self._files), FILE)
        for file, at in self._files.items():
            for field in fields(File):
                value = getattr(file, field.name)
                files[at][field.name] = self._texts.add(value) if field.name == "name" else value
        columns = {name: np.array(self._columns[name], kind) for name, kind in COLUMNS.items()}
        texts = self._texts.rows
        events = Events(columns, processes, files, texts, start_ns=self._start_ns)
        self._start()
        return events
