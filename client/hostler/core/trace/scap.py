"""Captures as `.scap` files, which sysdig 0.29 reads.

Each call becomes an enter and an exit event, in the order in which they happened. sysdig knows of
processes and open files what it has seen, so a list of both goes first: as they were when first
seen. What changed them in a way that was not traced, sysdig cannot know; Hostler does.

A call that sysdig does not know becomes its generic event, with the kernel's number. The events
are read twice, since a call that ends late began earlier than much that is written before it.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np

from hostler.core.trace.blocks import exit_ns
from hostler.core.trace.events import Column, Events, Flag
from hostler.core.trace.scap_layout import (
    CLONES,
    DUPS,
    EVENT,
    EVENT_HEAD,
    EVENT_LENGTH_FROM,
    EXITS,
    GENERIC_ENTER,
    GENERIC_EXIT,
    HOST_BYTES,
    MACHINE,
    MACHINE_BODY,
    MAKES_FD,
    PROCESS_EXIT,
    SECTION,
    SECTION_BODY,
    SECTION_MAGIC,
    ScapCall,
    block,
    scap_calls,
)
from hostler.core.trace.scap_parameters import Rows, parameters
from hostler.core.trace.scap_tables import (
    file_blocks,
    file_entry,
    process_blocks,
    thread_entry,
    user_blocks,
)
from hostler.core.trace.syscalls import name_of

_UNKNOWN_CODE = 0

Timed = tuple[int, int, bytes]
"""An event of sysdig: when, in which order among those of the same time, and its block."""


@dataclass(slots=True)
class Exported:
    """What was written; `lost` is what the capture had lost, which sysdig is not told."""

    events: int = 0
    lost: int = 0


def export(
    batches: Callable[[], Iterable[Events]], out: BinaryIO, host: str = "", processors: int = 1
) -> Exported:
    """Write the events as a `.scap` file. `batches` is called twice. Raises OSError."""
    survey = _Survey()
    for events in batches():
        survey.add(events)
    out.write(_head(host, processors))
    out.write(user_blocks(survey.users, survey.groups))
    out.write(process_blocks(survey.threads()))
    for pid, entries in survey.files.items():
        out.write(file_blocks(pid, entries.values()))
    done = Exported()
    late = sorted(survey.late)
    written = horizon = 0
    for events in batches():
        done.events += len(events)
        done.lost += events.lost
        if not len(events):
            continue
        until = max(horizon, int(exit_ns(events).max()))
        before = bisect_left(late, (until, 0, b""))
        timed = heapq.merge(sorted(_timed(events, horizon)), late[written:before])
        out.writelines(data for _, _, data in timed)
        written = before
        horizon = until
    return done


def _head(host: str, processors: int) -> bytes:
    name = host.encode(errors="replace")[: HOST_BYTES - 1]
    section = SECTION_BODY.pack(SECTION_MAGIC, 1, 2, 0xFFFF_FFFF_FFFF_FFFF)
    machine = MACHINE_BODY.pack(processors, 0, 0, name, bytes(32))
    return block(SECTION, section) + block(MACHINE, machine)


@dataclass(slots=True)
class _Survey:
    """The first time through: who there was, what they had open, and which calls end late."""

    files: dict[int, dict[int, bytes]] = field(default_factory=dict)
    late: list[Timed] = field(default_factory=list)
    users: dict[int, bytes] = field(default_factory=dict)
    groups: dict[int, bytes] = field(default_factory=dict)
    _threads: dict[int, tuple[np.void, list[bytes]]] = field(default_factory=dict)
    _children: set[int] = field(default_factory=set)
    _seen_files: set[tuple[int, int]] = field(default_factory=set)
    _horizon: int = 0

    def add(self, events: Events) -> None:
        if not len(events):
            return
        self._add_threads(events)
        self._add_files(events)
        self._add_users(events)
        is_late = events["time_ns"] < np.uint64(self._horizon)
        if is_late.any():
            self.late += [t for t in _timed(events.select(is_late), 0) if not t[1] & 1]
        self._horizon = max(self._horizon, int(exit_ns(events).max()))

    def threads(self) -> Iterator[bytes]:
        """The process list: each thread, and the main thread of each."""
        mains = {int(process["pid"]): (process, texts) for process, texts in self._threads.values()}
        # sysdig refuses a list of files of a process that it does not know.
        for tid, (process, texts) in {**mains, **self._threads}.items():
            yield thread_entry(tid, process, texts, tid in self._children)

    def _add_threads(self, events: Events) -> None:
        tids, first = np.unique(events["tid"], return_index=True)
        for tid, row in zip(tids.tolist(), first.tolist(), strict=True):
            if tid not in self._threads:
                process = events.processes[events["process"][row]]
                self._threads[tid] = (process, events.texts)
        is_clone = _is_named(events, CLONES) & (events["result"] > 0)
        self._children.update(events["result"][is_clone].tolist())

    def _add_users(self, events: Events) -> None:
        columns = (
            (self.users, "uid", "user"),
            (self.users, "loginuid", "loginuser"),
            (self.groups, "gid", "group"),
        )
        for known, number, name in columns:
            named = events.processes[events.processes[name] != 0]
            for each, text in np.unique(named[[number, name]]).tolist():
                known.setdefault(each, events.texts[text])

    def _add_files(self, events: Events) -> None:
        has_file = np.flatnonzero((events["fd"] >= 0) & (events["file"] > 0))
        makes = _is_named(events, MAKES_FD) & (events["result"] >= 0)
        pids = events.of_process("pid").astype("<u8")
        keys = (pids << np.uint64(32)) | events["fd"].astype("<u8")
        _, first = np.unique(keys[has_file], return_index=True)
        told = [(row, int(events["fd"][row])) for row in has_file[first].tolist()]
        # What was copied is the same file, and may never be spoken of again.
        copied = np.flatnonzero(_is_named(events, DUPS) & makes & (events["file"] > 0))
        sources = [(row, int(events["arg0"][row]) & 0x7FFF_FFFF) for row in copied.tolist()]
        for row, fd in sorted(told + sources):
            pid = int(pids[row])
            if (pid, fd) in self._seen_files:
                continue
            self._seen_files.add((pid, fd))
            if not makes[row] or fd != events["result"][row]:
                entry = file_entry(fd, events.files[events["file"][row]], events.texts)
                self.files.setdefault(pid, {})[fd] = entry


def _is_named(events: Events, names: frozenset[str]) -> Column:
    """Which events are of calls that have one of these names."""
    calls = _calls(events)
    codes = np.array([code for code, name in calls.items() if name in names], "<u4")
    answer: Column = np.isin(_codes(events), codes)
    return answer


def _codes(events: Events) -> Column:
    """The number of the call, and above it whether it is one of a 32-bit program."""
    is_32 = (events["flags"] & np.uint16(Flag.IS_32_BIT)).astype("<u4")
    codes: Column = events["syscall"].astype("<u4") | (is_32 << np.uint32(16))
    return codes


def _calls(events: Events) -> dict[int, str]:
    """The names of the calls of a batch, by code."""
    codes = np.unique(_codes(events)).tolist()
    return {code: name_of(code & 0xFFFF, bool(code >> 16)) for code in codes}


def _timed(events: Events, horizon: int) -> Iterator[Timed]:
    """The enter and exit events of a batch, without the enter ones before `horizon`."""
    rows = Rows(events)
    names = _calls(events)
    ends = exit_ns(events).tolist()
    columns = rows.columns
    for row, code in enumerate(_codes(events).tolist()):
        name, flags, begin = names[code], columns["flags"][row], columns["time_ns"][row]
        call = scap_calls().get(name) or ScapCall(
            name, _UNKNOWN_CODE, GENERIC_ENTER, GENERIC_EXIT, (), ()
        )
        if not flags & Flag.ENTRY_LOST and begin >= horizon:
            yield begin, 4 * row, _enter(rows, row, call, begin)
        if not flags & Flag.UNFINISHED:
            yield ends[row], 4 * row + 1, _exit(rows, row, call, ends[row])
        elif name in EXITS:
            yield begin, 4 * row + 3, _process_exit(rows, row, begin)


def _enter(rows: Rows, row: int, call: ScapCall, time_ns: int) -> bytes:
    if call.is_generic:
        made = [_u16(call.code), _u16(rows.columns["syscall"][row])]
    else:
        made = parameters(call.enter)(rows, row)
    return _event(rows, row, call.enter_type, time_ns, made)


def _exit(rows: Rows, row: int, call: ScapCall, time_ns: int) -> bytes:
    made = [_u16(call.code)] if call.is_generic else parameters(call.exit)(rows, row)
    return _event(rows, row, call.exit_type, time_ns, made)


def _process_exit(rows: Rows, row: int, time_ns: int) -> bytes:
    status = rows.arguments[0][row] & 0xFF
    made = [(status << 8).to_bytes(8, "little"), status.to_bytes(8, "little"), bytes(1), bytes(1)]
    return _event(rows, row, PROCESS_EXIT, time_ns, made)


def _event(rows: Rows, row: int, kind: int, time_ns: int, made: list[bytes]) -> bytes:
    lengths = b"".join(_u16(len(each)) for each in made)
    body = lengths + b"".join(made)
    head = EVENT_HEAD.pack(
        rows.columns["cpu"][row],
        time_ns,
        rows.columns["tid"][row],
        EVENT_HEAD.size - EVENT_LENGTH_FROM + len(body),
        kind,
        len(made),
    )
    return block(EVENT, head + body)


def _u16(value: int) -> bytes:
    return value.to_bytes(2, "little")
