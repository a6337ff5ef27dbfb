"""The parents of traced processes, traced or not, and what the host calls its users."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hostler.core.trace.events import NO_ID, PROCESS, Column

_GENERATIONS_MOST = 64
_READ_BYTES_MOST = 1 << 20
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
# Positions after the name in /proc/PID/stat. Source: proc_pid_stat(5).
_PPID, _SESSION, _TTY, _START = 1, 3, 4, 19

AddText = Callable[[bytes], int]
Known = Callable[[int], Any]


class Kin:
    """Processes that others are children of: a row for each pid.

    `known` answers what the tracer has told of a pid, None if nothing; then /proc is asked.
    `table` has them; row 0 is none, and `parent` is a row of this table.
    """

    def __init__(self, boot_ns: int, add_text: AddText, known: Known) -> None:
        self._boot_ns = boot_ns
        self._known = known
        self._add_text = add_text
        self._rows = np.zeros(64, PROCESS)
        self._used = 1
        self._row_of: dict[int, int] = {}

    def table(self) -> Column:
        """All rows."""
        return self._rows[: self._used]

    def parent_of(self, child: Any) -> int:
        """The row of a process's parent; 0 if it has none, or nobody can tell."""
        first = 0
        before: Any = None
        pid = int(child["ppid"])
        for _ in range(_GENERATIONS_MOST):
            row = self._row_of.get(pid, 0)
            is_done = row != 0
            if not is_done:
                row = self._make(pid)
            if before is not None:
                self._rows[before]["parent"] = row
            first = first or row
            if is_done or not row:
                break
            before, pid = row, int(self._rows[row]["ppid"])
        return first

    def learn(self, process: Any) -> None:
        """Take what the tracer tells of a process that others are children of."""
        row = self._row_of.get(int(process["pid"]))
        if row is not None:
            parent = self._rows[row]["parent"]
            self._rows[row] = process
            self._rows[row]["parent"] = parent

    def keep(self, used: Column, add_text: AddText) -> Column:
        """Keep those rows and their ancestors; answers the new row of each old one.

        Their texts are still the old ones, and `add_text` is for what is read from now on.
        """
        self._add_text = add_text
        kept = np.zeros(self._used, bool)
        kept[0] = True
        rows = used
        while len(rows := rows[~kept[rows]]):
            kept[rows] = True
            rows = self._rows["parent"][rows]
        new = np.where(kept, np.cumsum(kept) - 1, 0).astype("<u4")
        self._rows = self._rows[: self._used][kept]
        self._rows["parent"] = new[self._rows["parent"]]
        self._used = len(self._rows)
        self._row_of = {pid: int(new[row]) for pid, row in self._row_of.items() if kept[row]}
        return new

    def _make(self, pid: int) -> int:
        """A new row for a pid; 0 if nothing is known of it."""
        told = self._known(pid)
        if told is None:
            return self._read(pid)
        row = self._new_row(pid)
        self._rows[row] = told
        self._rows[row]["parent"] = 0
        return row

    def _read(self, pid: int) -> int:
        if pid <= 0:
            return 0
        folder = Path(f"/proc/{pid}")
        try:
            name, _, rest = _bytes(folder / "stat").partition(b"(")[2].rpartition(b")")
            words = rest.split()
            row = self._new_row(pid)
            told = self._rows[row]
            told["ppid"], told["sid"] = int(words[_PPID]), int(words[_SESSION])
            told["tty"] = max(0, int(words[_TTY]))
            told["start_ns"] = self._boot_ns + int(words[_START]) * _TICK_NS
            told["name"] = self._add_text(name)
        except (OSError, IndexError, ValueError):
            return 0
        told["uid"], told["gid"] = _ids(folder)
        told["loginuid"] = _number(folder / "loginuid")
        for column, link in (("exe", "exe"), ("cwd", "cwd")):
            told[column] = self._add_text(_link(folder / link))
        return row

    def _new_row(self, pid: int) -> int:
        if self._used == len(self._rows):
            self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])
        row = self._used
        self._used += 1
        self._rows[row]["pid"] = self._rows[row]["vpid"] = pid
        self._row_of[pid] = row
        return row


class Accounts:
    """What this host calls its users and groups, by /etc/passwd and /etc/group as they are now."""

    def __init__(self) -> None:
        self._users = dict(_entries(Path("/etc/passwd")))
        self._groups = dict(_entries(Path("/etc/group")))

    def user(self, uid: int) -> bytes:
        """A user's name, empty if it has none."""
        return self._users.get(uid, b"")

    def group(self, gid: int) -> bytes:
        """A group's name, empty if it has none."""
        return self._groups.get(gid, b"")


def _entries(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        lines = _bytes(path).splitlines()
    except OSError:
        return
    for line in reversed(lines):
        name, _, rest = line.partition(b":")
        number = rest.split(b":")[1:2]
        if number and number[0].isdigit():
            yield int(number[0]), name


def _bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_READ_BYTES_MOST)


def _ids(folder: Path) -> tuple[int, int]:
    """The effective uid and gid."""
    try:
        lines = dict(line.split(b":", 1) for line in _bytes(folder / "status").splitlines())
        return int(lines[b"Uid"].split()[1]), int(lines[b"Gid"].split()[1])
    except (OSError, KeyError, ValueError):
        return NO_ID, NO_ID


def _number(path: Path) -> int:
    try:
        return int(_bytes(path))
    except (OSError, ValueError):
        return NO_ID


def _link(path: Path) -> bytes:
    try:
        return os.fsencode(path.readlink())
    except OSError:
        return b""
