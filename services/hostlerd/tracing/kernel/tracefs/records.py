"""Records of the ring as columns of system calls, and as changes of tasks. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from hostlerd.tracing.kernel.tracefs.formats import Format, PageFormat
from hostlerd.tracing.kernel.tracefs.pages import Found, Numbers, Words, walk

ENTER, EXIT = 0, 1
RECORD = np.dtype(
    [
        *(("time_ns", "<u8"), ("tid", "<i4"), ("cpu", "<u2"), ("kind", "<u2")),
        *(("id", "<i8"), ("result", "<i8"), ("args", "<u8", 6)),
    ]
)
"""The entry or the exit of a call; what the other alone has is 0."""
_COMM_BYTES = 16


class What(Enum):
    """How a task changes."""

    MADE = "made"
    """`other` is its child, `comm` that one's name, `number` the flags of clone(2)."""
    NAMED = "named"
    RAN = "ran"
    """It has become another program; `comm` is the path of it, as it was called."""
    GONE = "gone"
    UID = "uid"
    """`number` is its effective one from now on; so with the next."""
    GID = "gid"
    MOVED = "moved"
    """Its working directory is another one."""


@dataclass(frozen=True, slots=True)
class Change:
    """A change of the task `tid`."""

    time_ns: int
    what: What
    tid: int
    comm: bytes = b""
    other: int = 0
    number: int = 0


CALLS = {"enter": "raw_syscalls/sys_enter", "exit": "raw_syscalls/sys_exit"}
TASKS = {
    "made": "task/task_newtask",
    "named": "task/task_rename",
    "ran": "sched/sched_process_exec",
    "gone": "sched/sched_process_exit",
}
"""What is recorded, by what it is called here."""


class Reader:
    """Takes records out of pages. Raises FormatUnknown where this kernel has another form."""

    def __init__(self, page: PageFormat, formats: Mapping[str, Format]) -> None:
        self._page = page
        self._tid = formats["enter"].at("common_pid", 4) // 4
        self._number_of = {key: form.number for key, form in formats.items()}
        enter, left = formats["enter"], formats["exit"]
        self._id = {"enter": enter.at("id", 8) // 4, "exit": left.at("id", 8) // 4}
        self._args, self._result = enter.at("args", 48) // 4, left.at("ret", 8) // 4
        made, named, ran = formats["made"], formats["named"], formats["ran"]
        self._child, self._flags = made.at("pid", 4), made.at("clone_flags", 8)
        self._comm_of = {
            "made": made.at("comm", _COMM_BYTES),
            "named": named.at("newcomm", _COMM_BYTES),
        }
        self._renamed = named.at("pid", 4)
        self._path = ran.at("filename", 4)

    def take(
        self, words: Words, cpu_of_page: npt.NDArray[np.uint16]
    ) -> tuple[list[npt.NDArray[np.void]], list[Change]]:
        """The calls' records, in parts, and the changes of tasks, both in no order."""
        found, flat = walk(words, self._page), words.reshape(-1)
        number = flat[found.word] & np.uint32(0xFFFF)
        parts = []
        for key in CALLS:
            rows = np.flatnonzero(number == self._number_of[key])
            parts.append(self._calls(flat, found, rows, key))
            parts[-1]["cpu"] = cpu_of_page[found.page[rows]]
        changes = [
            self._change(flat, found, row, key)
            for key in TASKS
            for row in np.flatnonzero(number == self._number_of[key]).tolist()
        ]
        return parts, changes

    def _calls(self, flat: Words, found: Found, rows: Numbers, key: str) -> npt.NDArray[np.void]:
        words = found.word[rows]
        # A record that is cut off has no room for these: what is there instead is another's.
        calls = np.zeros(len(rows), RECORD)
        calls["time_ns"] = found.time_ns[rows]
        calls["tid"] = flat.take(words + self._tid, mode="clip").view("<i4")
        calls["id"] = _wide(flat, words + self._id[key], 1)[:, 0].view("<i8")
        if key == "enter":
            calls["args"] = _wide(flat, words + self._args, 6)
        else:
            calls["kind"] = EXIT
            calls["result"] = _wide(flat, words + self._result, 1)[:, 0].view("<i8")
        return calls

    def _change(self, flat: Words, found: Found, row: int, key: str) -> Change:
        word = int(found.word[row])
        # A record ends within its page, and a page has the room of any of them.
        record = flat[word : word + self._page.size_bytes // 4].tobytes()
        time_ns, tid = int(found.time_ns[row]), _number(record, self._tid * 4)
        if key == "gone":
            return Change(time_ns, What.GONE, tid)
        if key == "ran":
            place = _number(record, self._path)
            path = record[place & 0xFFFF :][: place >> 16].split(b"\0")[0]
            return Change(time_ns, What.RAN, tid, path)
        begin = self._comm_of[key]
        comm = record[begin : begin + _COMM_BYTES].split(b"\0")[0]
        if key == "named":
            return Change(time_ns, What.NAMED, _number(record, self._renamed), comm)
        child, flags = _number(record, self._child), _number(record, self._flags, 8)
        return Change(time_ns, What.MADE, tid, comm, child, flags)


def in_time(changes: list[Change]) -> Iterator[Change]:
    """Changes in order of time."""
    return iter(sorted(changes, key=lambda change: change.time_ns))


def _wide(flat: Words, words: Numbers, count: int) -> npt.NDArray[np.uint64]:
    """So many numbers of 64 bits from each of these words on."""
    places = words[:, None] + np.arange(2 * count)
    return flat.take(places, mode="clip").view("<u8")


def _number(record: bytes, at: int, size: int = 4) -> int:
    return int.from_bytes(record[at : at + size], "little")
