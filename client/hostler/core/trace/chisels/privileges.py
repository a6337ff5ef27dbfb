"""How processes change what they may do."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hostler.core.trace import calls
from hostler.core.trace.chisel import Category, Chisel, Given
from hostler.core.trace.chisel_cells import text
from hostler.core.trace.chisel_lines import LineBuffer
from hostler.core.trace.chisel_results import Heading, Lines, Row, Unit
from hostler.core.trace.events import NO_ID, Column, Events
from hostler.core.trace.fields_args import all_words
from hostler.core.trace.times import finished

MOST_PROCESSES = 65_536
_HEADINGS = (
    *(Heading("time", Unit.TIME), Heading("process"), Heading("pid", Unit.NUMBER)),
    *(Heading("call"), Heading("arguments"), Heading("change")),
    *(Heading("uid", Unit.NUMBER), Heading("gid", Unit.NUMBER)),
)
_IDS = ("setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setgroups")
_CALLS = frozenset(
    (*_IDS, *(f"{name}32" for name in _IDS), "setfsuid", "setfsgid", "setfsuid32", "setfsgid32")
) | {"capset", "chroot", "pivot_root", "setns", "unshare", "seccomp"}
_EXECS = frozenset({"execve", "execveat"})
_PRCTL = frozenset({"prctl"})
# linux/prctl.h
_PRCTL_OPTIONS = {
    8: "PR_SET_KEEPCAPS",
    22: "PR_SET_SECCOMP",
    24: "PR_CAPBSET_DROP",
    28: "PR_SET_SECUREBITS",
    38: "PR_SET_NO_NEW_PRIVS",
    47: "PR_CAP_AMBIENT",
}
_Ids = tuple[int, int]


class _Timeline:
    def __init__(self, given: Given) -> None:
        self._given = given
        host = (Heading("host"),) if given.per_host else ()
        self._buffer = LineBuffer((*host, *_HEADINGS))
        self._ids: dict[tuple[str, int], _Ids] = {}

    def take(self, events: Events, host: str) -> None:
        self._buffer.extend(self._rows(events, host))

    def _rows(self, events: Events, host: str) -> Iterator[Row]:
        start: Row = (host,) if self._given.per_host else ()
        is_exec, times = calls.among(events, _EXECS), finished(events)
        for i in np.flatnonzero(_is_wanted(events)).tolist():
            row = int(events["process"][i])
            process = events.processes[row]
            pid, ids = int(process["pid"]), (int(process["uid"]), int(process["gid"]))
            change = _change(self._before(events, host, row), ids)
            self._remember((host, pid), ids)
            if is_exec[i] and not change:
                continue
            code = calls.code_of(events, i)
            yield (
                *(*start, int(times[i]), text(events.texts[process["name"]]), pid),
                *(calls.name(code), _arguments(events, i), change, *map(_known, ids)),
            )

    def _before(self, events: Events, host: str, row: int) -> _Ids | None:
        """The ids before the call; of a process that was not seen yet, its parent's."""
        processes = events.processes
        known = self._ids.get((host, int(processes["pid"][row])))
        parent = int(processes["parent"][row])
        if known is not None or not parent:
            return known
        return int(processes["uid"][parent]), int(processes["gid"][parent])

    def _remember(self, key: tuple[str, int], ids: _Ids) -> None:
        # The one that was heard of longest ago makes room.
        self._ids.pop(key, None)
        self._ids[key] = ids
        if len(self._ids) > MOST_PROCESSES:
            del self._ids[next(iter(self._ids))]

    def result(self) -> Lines:
        return self._buffer.drain()


def _is_wanted(events: Events) -> Column:
    options = np.isin(events["arg0"] & np.uint64(0xFFFFFFFF), list(_PRCTL_OPTIONS))
    by_prctl = calls.among(events, _PRCTL) & options
    mask: Column = (events["process"] > 0) & (calls.among(events, _CALLS | _EXECS) | by_prctl)
    return mask


def _arguments(events: Events, event: int) -> str:
    words = text(all_words(events, event))
    if calls.name(calls.code_of(events, event)) != "prctl":
        return words
    option = _PRCTL_OPTIONS[int(events["arg0"][event]) & 0xFFFFFFFF]
    return f"{option} {words}"


def _change(before: _Ids | None, after: _Ids) -> str | None:
    if before is None:
        return None
    told = [
        f"{name} {old} → {new}"
        for name, old, new in zip(("uid", "gid"), before, after, strict=True)
        if old != new and NO_ID not in (old, new)
    ]
    return ", ".join(told) or None


def _known(number: int) -> int | None:
    return None if number == NO_ID else number


CHISEL = Chisel(
    "privileges",
    Category.SECURITY,
    "changes of user, group, capabilities, root and namespaces, in order",
    _Timeline,
    "uid and gid are the effective ones after the call. A program is shown that began with other "
    "ids than the one before it had. Which capabilities capset asks for is not in a trace.",
    filter=f"evt.syscall.name in ({', '.join(sorted(_CALLS | _EXECS | _PRCTL))})",
    streams=True,
)
