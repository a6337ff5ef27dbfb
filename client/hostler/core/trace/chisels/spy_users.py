"""What users do in their shells: the commands that they start and the directories they go to."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hostler.core.trace import calls
from hostler.core.trace.chisel import Argument, Category, Chisel, Given, Kind
from hostler.core.trace.chisel_cells import text
from hostler.core.trace.chisel_lines import LineBuffer
from hostler.core.trace.chisel_results import Heading, Lines, Row, Unit
from hostler.core.trace.events import Events
from hostler.core.trace.field import Need
from hostler.core.trace.fields_proc import MOST_ANCESTORS, arguments
from hostler.core.trace.times import finished

_HEADINGS = (
    Heading("time", Unit.TIME),
    Heading("user"),
    Heading("shell", Unit.NUMBER),
    Heading("command"),
)
_INDENT = "  "


class _Spying:
    def __init__(self, given: Given) -> None:
        self._given = given
        host = (Heading("host"),) if given.per_host else ()
        self._buffer = LineBuffer((*host, *_HEADINGS))

    def take(self, events: Events, host: str) -> None:
        start: Row = (host,) if self._given.per_host else ()
        self._buffer.extend((*start, *row) for row in self._rows(events))

    def _rows(self, events: Events) -> Iterator[Row]:
        is_chdir = calls.among(events, frozenset({"chdir"}))
        times = finished(events).tolist()
        for i in np.flatnonzero(events["process"]).tolist():
            process = int(events["process"][i])
            found = _login_shell(events, process, itself=bool(is_chdir[i]))
            if found is None or found[1] > self._given.number("max_depth"):
                continue
            shell, depth = found
            if is_chdir[i]:
                command = "cd " + text(events.texts[events["path"][i]])
            else:
                command = _command(events, process)
            user = text(events.texts[events.processes["user"][process]])
            pid = int(events.processes["pid"][shell])
            yield (
                times[i],
                user or str(events.processes["uid"][process]),
                pid,
                (_INDENT * depth + command),
            )

    def result(self) -> Lines:
        return self._buffer.drain()


def _login_shell(events: Events, process: int, *, itself: bool) -> tuple[int, int] | None:
    """Answer the oldest shell above a process, or that it is, and how far below it is."""
    found, row, parents = None, process, events.processes["parent"]
    for depth in range(MOST_ANCESTORS):
        if (depth or itself) and _is_shell(events, row):
            found = row, max(0, depth - 1)
        row = int(parents[row])
        if not row:
            break
    return found


def _is_shell(events: Events, process: int) -> bool:
    # To sysdig it is one if its name ends so.
    return bool(events.texts[events.processes["name"][process]].endswith(b"sh"))


def _command(events: Events, process: int) -> str:
    words = arguments(events, process) or [events.texts[events.processes["exe"][process]]]
    return text(b" ".join(words))


CHISEL = Chisel(
    "spy_users",
    Category.SECURITY,
    "commands that users start in shells, directories they go to",
    _Spying,
    "A command is indented by how far it is below the login shell, whose pid is shown.",
    filter="(evt.type in (execve, execveat) or evt.type=chdir and proc.name contains sh "
    "and not proc.name contains sshd) and evt.rawres >= 0",
    arguments=(Argument("max_depth", Kind.NUMBER, "how far below a login shell to look", "64"),),
    needs=Need.CMDLINE,
    streams=True,
)
