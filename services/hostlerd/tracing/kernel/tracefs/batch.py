"""Calls that tracefs tells become a batch of events."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from hostler.core.trace import events as trace
from hostler.core.trace.events import NO_ID, Column, Flag
from hostler.core.trace.syscalls import Syscall, all_syscalls
from hostlerd.tracing.kernel.capture.calls import DATA, MAKE_FD
from hostlerd.tracing.kernel.capture.kin import Accounts
from hostlerd.tracing.kernel.strace.batch import Rows, process_table
from hostlerd.tracing.kernel.strace.processes import Process
from hostlerd.tracing.kernel.tracefs.pairing import Paired
from hostlerd.tracing.kernel.tracefs.records import Change, What

_CALLS = 1024
_RESULT, _NONE = 6, 7
# Which argument is the effective id from then on.
_CHANGES = {
    **{"setuid": (What.UID, 0), "setreuid": (What.UID, 1), "setresuid": (What.UID, 1)},
    **{"setgid": (What.GID, 0), "setregid": (What.GID, 1), "setresgid": (What.GID, 1)},
    **dict.fromkeys(("chdir", "fchdir", "chroot"), (What.MOVED, 0)),
}
_UNKNOWN_CALL = 0xFFFF


def columns_of(paired: Paired, is_32: npt.NDArray[np.int32], epoch_ns: int) -> dict[str, Column]:
    """The columns of events, in order of their ends; `process` and `file` are still 0."""
    records, entry, left = paired.records, paired.entry, paired.exit
    has_entry, has_exit = entry >= 0, left >= 0
    first = np.where(has_entry, entry, left)
    last = np.where(has_exit, left, entry)
    order = np.argsort(records["time_ns"][last], kind="stable")
    first, last, has_entry, has_exit = (x[order] for x in (first, last, has_entry, has_exit))
    begin_ns = records["time_ns"][first]
    of_32 = np.isin(records["tid"][first], is_32)
    calls = records["id"][first]
    result = np.where(has_exit, records["result"][last], 0)
    columns: dict[str, Column] = {
        name: np.zeros(len(first), k) for name, k in trace.COLUMNS.items()
    }
    columns["time_ns"] = begin_ns + np.uint64(epoch_ns)
    # Clocks of two CPUs may be apart by less than a call takes.
    took_ns = (records["time_ns"][last] - begin_ns).astype("<i8")
    columns["latency_ns"] = np.maximum(took_ns, 0).astype("<u8")
    columns["cpu"] = records["cpu"][last]
    known = (calls >= 0) & (calls < _UNKNOWN_CALL)
    columns["syscall"] = np.where(known, calls, _UNKNOWN_CALL).astype("<u2")
    columns["result"] = result
    for i in range(6):
        columns[f"arg{i}"] = records["args"][:, i][first]
    columns["tid"] = records["tid"][first].astype("<u4")
    place = _place(columns["syscall"], of_32, _FD_AT)
    columns["fd"] = _fds(columns, place, has_entry, has_exit)
    has_data = _place(columns["syscall"], of_32, _HAS_DATA).astype(bool) & (result > 0)
    flags = np.where(of_32, Flag.IS_32_BIT, 0) | np.where(has_exit, 0, Flag.UNFINISHED)
    flags |= np.where(has_entry, 0, Flag.ENTRY_LOST) | np.where(has_data, Flag.DATA_WITHHELD, 0)
    columns["flags"] = flags.astype("<u2")
    return columns


def changes_of(columns: dict[str, Column], ends_ns: npt.NDArray[np.uint64]) -> Iterator[Change]:
    """What these calls have changed of the tasks that made them."""
    done = (columns["result"] == 0) & (columns["flags"] & (Flag.UNFINISHED | Flag.ENTRY_LOST) == 0)
    numbers = columns["syscall"] + (columns["flags"] & Flag.IS_32_BIT) * np.uint16(_CALLS)
    for row in np.flatnonzero(done & np.isin(numbers, list(_CHANGING))).tolist():
        what, at = _CHANGING[int(numbers[row])]
        value = int(columns[f"arg{at}"][row]) & 0xFFFFFFFF
        if value != NO_ID or what is What.MOVED:
            yield Change(int(ends_ns[row]), what, int(columns["tid"][row]), number=value)


def ends_of(columns: dict[str, Column], epoch_ns: int) -> npt.NDArray[np.uint64]:
    """When each call ended, by the clock of the ring."""
    ends: npt.NDArray[np.uint64] = columns["time_ns"] - np.uint64(epoch_ns) + columns["latency_ns"]
    return ends


def events_of(
    columns: dict[str, Column], rows: Rows[Process], accounts: Accounts, lost: int
) -> trace.Events:
    """A batch of them; `process` is a row of `rows`."""
    texts = trace.Texts()
    processes = process_table(rows.values, texts, accounts)
    whole = {name: np.ascontiguousarray(columns[name], k) for name, k in trace.COLUMNS.items()}
    return trace.Events(whole, processes, np.zeros(1, trace.FILE), texts.rows, lost).compact()


def _fds(columns: dict[str, Column], place: Column, has_entry: Column, has_exit: Column) -> Column:
    """The fd that each call is about, or has made; -1 if it has none, or that is not known."""
    arguments = np.stack([columns[f"arg{i}"] for i in range(6)])
    at = np.minimum(place, 5).astype("<i8")
    told = arguments[at, np.arange(arguments.shape[1])].astype("<u4").view("<i4")
    made = np.where(columns["result"] >= 0, columns["result"], -1).astype("<i4")
    made = np.where(has_exit, made, np.int32(-1))
    named = np.where(has_entry, told, np.int32(-1))
    return np.select([place < _RESULT, place == _RESULT], [named, made], np.int32(-1))


def _place(calls: Column, of_32: Column, table: Column) -> Column:
    rows = np.minimum(calls, _CALLS - 1).astype("<i8") + np.where(of_32, _CALLS, 0)
    found: Column = table[rows]
    return found


def _fd_of(call: Syscall) -> int:
    if call.name in MAKE_FD:
        return _RESULT
    at = call.index_of("fd")
    return _NONE if at is None else at


def _tables() -> tuple[Column, Column]:
    """Which argument is an fd, and whether a call carries data: 64-bit programs, then others."""
    fd_at, has_data = np.full(2 * _CALLS, _NONE), np.zeros(2 * _CALLS, bool)
    for call in all_syscalls().values():
        for number, base in ((call.number, 0), (call.number_32, _CALLS)):
            if number is not None:
                fd_at[base + number], has_data[base + number] = _fd_of(call), call.name in DATA
    return fd_at, has_data


def _changing() -> dict[int, tuple[What, int]]:
    """Calls that change a task, and by which argument; those of 32-bit programs after others."""
    found = {}
    for name, change in _CHANGES.items():
        call = all_syscalls()[name]
        if call.number is not None:
            found[call.number] = change
        if call.number_32 is not None:
            found[call.number_32 + _CALLS] = change
    return found


_FD_AT, _HAS_DATA = _tables()
_CHANGING = _changing()
