"""The fields of an event's process and thread: proc.*, thread.*. Pure.

The process is as it was at the end of the call. Ancestors are those that the trace knew.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from hostler.core.trace import times
from hostler.core.trace.events import Column, Events
from hostler.core.trace.field import ArgumentInvalid, Family, Field, Kind, Need, several, single
from hostler.core.trace.values import (
    Numbers,
    Values,
    Words,
    by_process,
    of_known_process,
    process_texts,
    texts,
)

MOST_ANCESTORS = 64
"""How many generations are looked at."""


def arguments(events: Events, row: int) -> list[bytes]:
    """The arguments of a row of processes, the program's name first; empty if not known."""
    joined = events.texts[events.processes["cmdline"][row]]
    return joined.removesuffix(b"\0").split(b"\0") if joined else []


def command_line(events: Events, row: int) -> bytes | None:
    """The process's name and its arguments, as sysdig joins them; None if they are not known."""
    words = arguments(events, row)
    if not words:
        return None
    return b" ".join([events.texts[events.processes["name"][row]], *words[1:]])


def ancestor(events: Events, rows: Column, generation: int) -> Column:
    """The rows of processes that are so many generations above; 0 where they are not known."""
    for _ in range(generation):
        rows = events.processes["parent"][rows]
    return rows


def _generations(events: Events) -> Iterator[Column]:
    rows = events["process"]
    for _ in range(MOST_ANCESTORS):
        rows = events.processes["parent"][rows]
        if not rows.any():
            return
        yield rows


def _exe(events: Events, row: int) -> bytes | None:
    words = arguments(events, row)
    return words[0] if words else None


def _args(events: Events, row: int) -> bytes | None:
    words = arguments(events, row)
    return b" ".join(words[1:]) if words else None


def _exeline(events: Events, row: int) -> bytes | None:
    words = arguments(events, row)
    return b" ".join(words) if words else None


def _environ(events: Events, row: int) -> bytes | None:
    joined = events.texts[events.processes["environ"][row]]
    return joined.removesuffix(b"\0").replace(b"\0", b" ") if joined else None


def _cwd(events: Events, row: int) -> bytes | None:
    # sysdig's always ends in a slash.
    path = events.texts[events.processes["cwd"][row]]
    return path.rstrip(b"/") + b"/" if path else None


def _parent_command_line(events: Events, row: int) -> bytes | None:
    parent = int(events.processes["parent"][row])
    return command_line(events, parent) if parent else None


def _pname(events: Events) -> Words:
    return _ancestor_name(events, 1)


def _ancestor_name(events: Events, generation: int) -> Words:
    rows = ancestor(events, events["process"], generation)
    return texts(events, events.processes["name"][rows])


def _ancestor_pid(events: Events, generation: int) -> Numbers:
    if generation == 1:
        return of_known_process(events, "ppid")
    rows = ancestor(events, events["process"], generation)
    return Numbers(events.processes["pid"][rows], rows > 0)


def _ancestor_names(events: Events) -> tuple[Values, ...]:
    names = events.processes["name"]
    return tuple(texts(events, names[rows]) for rows in _generations(events))


def _ancestor_pids(events: Events) -> tuple[Values, ...]:
    # The parent's pid is known even where the parent is not.
    first = of_known_process(events, "ppid")
    pids = events.processes["pid"]
    higher = [Numbers(pids[rows], rows > 0) for rows in _generations(events)][1:]
    return (first, *higher)


def _login_shell(events: Events) -> Numbers:
    """The pid of the oldest shell: to sysdig, a process whose name ends in `sh`."""
    names, processes = events.texts, events.processes
    is_shell = np.fromiter((names[n].endswith(b"sh") for n in processes["name"]), bool)
    is_shell[0] = False
    oldest = np.where(is_shell[events["process"]], events["process"], 0)
    for rows in _generations(events):
        oldest = np.where(is_shell[rows], rows, oldest)
    return Numbers(processes["pid"][oldest], oldest > 0)


def _session_leader(events: Events) -> Words:
    """The name of the oldest known process of the same session."""
    processes = events.processes
    session = events.of_process("sid")
    oldest = events["process"]
    for rows in _generations(events):
        oldest = np.where((rows > 0) & (processes["sid"][rows] == session), rows, oldest)
    return texts(events, processes["name"][oldest])


def _duration(events: Events) -> Numbers:
    start, now = events.of_process("start_ns"), times.finished(events)
    return Numbers(now - start, (start > 0) & (start <= now))


def _vpid(events: Events) -> Numbers:
    vpids = events.of_process("vpid")
    return Numbers(vpids, vpids > 0)


def _is_main(events: Events) -> Numbers:
    is_main = events["tid"] == events.of_process("pid")
    return Numbers(is_main.astype(np.uint8), events["process"] > 0)


def _generation(argument: str) -> int:
    if not argument.isascii() or not argument.isdigit() or int(argument) > MOST_ANCESTORS:
        raise ArgumentInvalid(f"a generation is a number up to {MOST_ANCESTORS}: 1 is the parent")
    return int(argument)


def _apid(argument: str) -> Field:
    generation = _generation(argument)
    read = partial(_ancestor_pid, generation=generation)
    return single(f"proc.apid[{generation}]", Kind.INTEGER, "the pid of an ancestor", read)


def _aname(argument: str) -> Field:
    generation = _generation(argument)
    read = partial(_ancestor_name, generation=generation)
    return single(f"proc.aname[{generation}]", Kind.TEXT, "the name of an ancestor", read)


def _text(name: str, meaning: str, column: str) -> Field:
    return single(name, Kind.TEXT, meaning, lambda events: process_texts(events, column))


def _integer(name: str, meaning: str, column: str) -> Field:
    return single(name, Kind.INTEGER, meaning, lambda events: of_known_process(events, column))


FIELDS: tuple[Field, ...] = (
    _integer("proc.pid", "the process", "pid"),
    _integer("proc.ppid", "its parent", "ppid"),
    single("proc.vpid", Kind.INTEGER, "its pid in its own pid namespace", _vpid),
    _integer("proc.sid", "its session", "sid"),
    _integer("proc.tty", "its terminal's device number, 0 for none", "tty"),
    _text("proc.name", "its name (comm), at most 15 bytes", "name"),
    _text("proc.exepath", "the path of its program", "exe"),
    _text("proc.unit", "its systemd unit", "unit"),
    single(
        "proc.exe",
        Kind.TEXT,
        "its first argument, by which it was called",
        lambda events: by_process(events, partial(_exe, events)),
        needs=Need.CMDLINE,
    ),
    single(
        "proc.args",
        Kind.TEXT,
        "its other arguments, joined by blanks",
        lambda events: by_process(events, partial(_args, events)),
        needs=Need.CMDLINE,
    ),
    single(
        "proc.cmdline",
        Kind.TEXT,
        "proc.name and proc.args",
        lambda events: by_process(events, partial(command_line, events)),
        needs=Need.CMDLINE,
    ),
    single(
        "proc.exeline",
        Kind.TEXT,
        "proc.exe and proc.args",
        lambda events: by_process(events, partial(_exeline, events)),
        needs=Need.CMDLINE,
    ),
    single(
        "proc.pcmdline",
        Kind.TEXT,
        "the proc.cmdline of its parent",
        lambda events: by_process(events, partial(_parent_command_line, events)),
        needs=Need.CMDLINE,
    ),
    single(
        "proc.env",
        Kind.TEXT,
        "its environment, joined by blanks",
        lambda events: by_process(events, partial(_environ, events)),
        needs=Need.ENVIRON,
    ),
    single(
        "proc.cwd",
        Kind.TEXT,
        "its current directory, with a slash at the end",
        lambda events: by_process(events, partial(_cwd, events)),
    ),
    single("proc.pname", Kind.TEXT, "the name of its parent", _pname),
    several(
        "proc.apid",
        Kind.INTEGER,
        "the pid of any ancestor",
        _ancestor_pids,
        differs_in_any=True,
    ),
    several(
        "proc.aname",
        Kind.TEXT,
        "the name of any ancestor",
        _ancestor_names,
        differs_in_any=True,
    ),
    single(
        "proc.loginshellid",
        Kind.INTEGER,
        "the pid of the oldest shell among it and its ancestors",
        _login_shell,
    ),
    single("proc.sname", Kind.TEXT, "the name of the leader of its session", _session_leader),
    single("proc.duration", Kind.DURATION, "how long it has run", _duration),
    single("thread.tid", Kind.INTEGER, "the thread", lambda events: Numbers(events["tid"])),
    single("thread.ismain", Kind.BOOL, "whether it is the first one of its process", _is_main),
    _text("thread.cgroup", "its cgroup in the unified hierarchy", "cgroup"),
    _text("thread.cgroups", "the same: in the unified hierarchy there is one", "cgroup"),
)

FAMILIES: tuple[Family, ...] = (
    Family(
        "proc.apid",
        "[N]",
        Kind.INTEGER,
        "the pid of an ancestor; 0 is the process, 1 its parent",
        _apid,
    ),
    Family(
        "proc.aname",
        "[N]",
        Kind.TEXT,
        "the name of an ancestor; 0 is the process, 1 its parent",
        _aname,
    ),
)
