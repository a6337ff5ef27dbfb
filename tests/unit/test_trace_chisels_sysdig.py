"""Each chisel that works from calls answers as sysdig's does on the exported trace."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scap_world import SYSDIG, World, chisel_lines, chisel_rows, told_events, write_scap
from trace_batches import Story

from hostler.core.trace.chisel_registry import all_chisels, find
from hostler.core.trace.chisel_results import Kept, Lines, Row, Table
from hostler.core.trace.events import Events
from hostler.core.trace.filter import compile_filter
from hostler.core.trace.times import finished

pytestmark = pytest.mark.skipif(SYSDIG is None, reason="sysdig is not installed")

NOT_COMPARED = {
    "topprocs_cpu": "sysdig's reads procinfo events of the scheduler, which calls do not have",
    "proc_exec_time": "a .scap does not tell when its processes started",
    "spectrogram": "sysdig's draws on a terminal alone",
    "privileges": "sysdig has none",
    "dirs": "sysdig has none",
    "latency_histogram": "sysdig has none",
}
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(scope="module", params=[1, 2, 3])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    events = World(request.param).events(400)
    path = tmp_path_factory.mktemp("chisels") / "a.scap"
    return events, write_scap(path, events)


def ours(name: str, events: Events, **given: str) -> Table | Lines:
    running = find(name).start(given)
    half = np.arange(len(events)) < len(events) // 2
    for part in (events.select(half), events.select(~half)):
        running.take(part, "web1")
    result = running.result()
    assert isinstance(result, Table | Lines)
    return result


def told(path: Path, name: str, *arguments: str, filter: str = "") -> list[str]:
    lines = (COLOUR.sub("", line) for line in chisel_lines(path, name, *arguments, filter=filter))
    return [line for line in lines if line.strip()]


def words(rows: Iterable[Row | list[Any]]) -> list[list[str]]:
    return [[str(cell) for cell in row] for row in rows]


TABLES: list[tuple[str, Mapping[str, str], str]] = [
    *((f"topprocs_{what}", {}, "") for what in ("file", "net", "errors")),
    *((f"topfiles_{what}", {}, "") for what in ("bytes", "time", "errors")),
    *((name, {}, "") for name in ("topconns", "topports_server", "topscalls_time")),
    # To sysdig a call is two events, of which the latter is the call that returned.
    ("topscalls", {}, "evt.dir=<"),
    *(("fdbytes_by", {"key": key}, "") for key in ("fd.name", "proc.name", "fd.sport", "fd.type")),
    *(("fdtime_by", {"key": key}, "") for key in ("thread.tid", "evt.type", "fd.directory")),
]


@pytest.mark.parametrize(("name", "given", "filter"), TABLES)
def test_tables_are_the_same(world: Any, name: str, given: dict[str, str], filter: str) -> None:
    events, path = world
    seen = events.select(compile_filter(filter).matches(events))
    mine = words(ours(name, seen, **given).rows)
    theirs = words(chisel_rows(path, name, *given.values(), filter=filter))
    assert sorted(mine) == sorted(theirs) and len(mine) > 1
    assert [row[-1] for row in mine] == [row[-1] for row in theirs]


@pytest.mark.parametrize("by", ["ncalls", "bytes", "time"])
def test_httptop_is_the_same(world: Any, by: str) -> None:
    events, path = world
    index = 2 + ("ncalls", "bytes", "time").index(by)
    mine = [[*row[:2], row[index]] for row in ours("httptop", events, by=by).rows]
    # sysdig takes the end of the header's line for a part of the name.
    theirs = [[m, url.replace("..", ""), int(n)] for m, url, n in chisel_rows(path, "httptop", by)]
    assert [row[:2] for row in mine] == [row[:2] for row in theirs] and mine
    # It counts nanoseconds since 1970 as floats, which hold every 128th.
    most = 256 if by == "time" else 0
    assert all(abs(a[2] - b[2]) <= most for a, b in zip(mine, theirs, strict=True))


@pytest.mark.parametrize("key", ["proc.name", "fd.type", "thread.tid"])
def test_fdcount_by_is_the_same(world: Any, key: str) -> None:
    events, path = world
    theirs = [line.split("\t") for line in told(path, "fdcount_by", key)]
    assert sorted(words(ours("fdcount_by", events, key=key).rows)) == sorted(theirs)


@pytest.mark.parametrize("name", ["iobytes", "iobytes_file", "iobytes_net"])
def test_iobytes_are_the_same(world: Any, name: str) -> None:
    events, path = world
    theirs = [re.findall(r"in:(\d+) out:(\d+) tot:(\d+)", line)[0] for line in told(path, name)]
    mine = [tuple(str(cell) for cell in row[1:]) for row in ours(name, events).rows]
    # sysdig says nothing of a second that is not over.
    assert mine[: len(theirs)] == theirs and len(theirs) == len(mine) - 1 > 0


def test_bottlenecks_are_the_same(world: Any) -> None:
    events, path = world
    form = re.compile(r"\d+\) (\d+)\.(\d{9}) (\S+) \((\d+)\) < (\S+)")
    found = (form.match(line) for line in told(path, "bottlenecks"))
    theirs = [(int(m[1] + m[2]), m[3], int(m[4]), m[5]) for m in found if m]
    mine = [(row[0], *row[3:6]) for row in ours("bottlenecks", events).rows]
    assert mine == theirs and len(mine) == 10


def test_scallslower_is_the_same(world: Any) -> None:
    events, path = world
    theirs = [line.split() for line in told(path, "scallslower", "3")[2:]]
    shown = [(name, round(float(ms) * 1e6), call) for _, _, name, ms, call in theirs]
    mine = [(row[1], row[3], row[4]) for row in ours("scallslower", events, min_ms="3").rows]
    assert mine == shown and len(mine) > 100


@pytest.mark.parametrize("name", ["fileslower", "netlower"])
def test_slow_io_is_the_same(world: Any, name: str) -> None:
    events, path = world
    theirs = [line.split()[2:] for line in told(path, name, "1")[2:]]
    rows = ours(name, events, min_ms="1").rows
    mine = words((row[1], row[2], int(str(row[3])) // 1_000_000, row[4]) for row in rows)
    assert mine == theirs and len(mine) > 10


def test_echo_fds_is_the_same(world: Any) -> None:
    events, path = world
    form = re.compile(r"------ (Read|Write) (\d+)B (?:from|to)\s+(\S+) \((\S+)\)")
    theirs = [m.groups() for line in told(path, "echo_fds") if (m := form.match(line))]
    rows = ours("echo_fds", events).rows
    mine = [(str(row[1]).capitalize(), *map(str, row[2:5])) for row in rows]
    assert mine == theirs and len(mine) > 100


@pytest.mark.parametrize("direction", ["R", "W", "RW"])
@pytest.mark.parametrize("name", ["", "/srv/data/a", "/dev/pts/0"])
def test_spy_file_is_the_same(world: Any, direction: str, name: str) -> None:
    events, path = world
    form = re.compile(r"\d+:\d+:[\d.]+ (\S+)\((\d+)\) ([RW]) (\d+)B (\S+)")
    lines = told(path, "spy_file", direction, *((name,) if name else ()))
    theirs = [m.groups() for line in lines if (m := form.match(line))]
    rows = ours("spy_file", events, read_or_write=direction, spy_on_file_name=name).rows
    mine = [(str(r[1]), str(r[2]), str(r[3])[0].upper(), str(r[4]), str(r[5])) for r in rows]
    assert mine == theirs and len(mine) > 5


@pytest.mark.parametrize("name", ["stdin", "stdout", "stderr"])
def test_standard_streams_are_the_same(world: Any, name: str) -> None:
    events, path = world
    mine = [str(row[0]) for row in ours(name, events).rows]
    assert mine == told(path, name) and mine


# sysdig has the names of RFC 5424, where others than Linux have cron at 15.
FACILITIES = {"cron": "clock", "clock": "cron", "audit": "logaudit", "alert": "logalert"}


def test_spy_syslog_is_the_same(world: Any) -> None:
    events, path = world
    rows = ours("spy_syslog", events).rows
    facilities = [FACILITIES.get(str(row[1]), row[1]) for row in rows]
    mine = [
        f"{facility}.{row[2]} {row[3]}[{row[4]}] {row[5]}"
        for facility, row in zip(facilities, rows, strict=True)
    ]
    assert mine == told(path, "spy_syslog") and mine


# What made it no call is open to the end.
NO_ENDS = compile_filter("evt.type != exit_group")


def test_lsof_is_the_same(world: Any) -> None:
    events, path = world
    form = re.compile(r"(\S+)\s+(\d+)\s+\d+\s+<NA>\s+(\d+)\s+(\S+)\s+(\S+)")
    theirs = {m.groups() for line in told(path, "lsof") if (m := form.match(line))}
    rows = ours("lsof", events.select(NO_ENDS.matches(events))).rows
    mine = {(str(r[1]), str(r[2]), str(r[5]), str(r[6]), str(r[7])) for r in rows}
    assert mine == theirs and len(mine) > 10


def test_netstat_is_the_same(world: Any) -> None:
    events, path = world
    split = [re.split(r"[\s/]+", line) for line in told(path, "netstat")[1:]]
    theirs = {(*fields[:4], *fields[5:7]) for fields in split}
    assert {tuple(map(str, row[1:])) for row in ours("netstat", events).rows} == theirs
    assert len(theirs) == 3


def test_ps_is_the_same(world: Any) -> None:
    events, path = world
    split = [line.split() for line in told(path, "ps")[1:]]
    theirs = {(fields[0], fields[1], fields[-1]) for fields in split}
    assert {(str(r[1]), str(r[2]), str(r[6])) for r in ours("ps", events).rows} == theirs


def test_around_is_the_same(world: Any, tmp_path: Path) -> None:
    events, path = world
    match = "evt.failed=true and evt.type=futex"
    saved = tmp_path / "around.scap"
    told(path, "around", str(saved), "50", filter=match)
    # It keeps the ends that are near; of a call that began in time and ended late the beginning.
    ends = told_events(saved, "%evt.rawtime %thread.tid", "evt.dir=<")
    running = find("around").start({"match": match, "range_ms": "50"})
    running.take(events, "web1")
    kept = running.result()
    assert isinstance(kept, Kept)
    near = kept.by_host["web1"].select(NO_ENDS.matches(kept.by_host["web1"]))
    times, tids = finished(near).tolist(), near["tid"].tolist()
    mine = [f"{time_ns} {tid}" for time_ns, tid in zip(times, tids, strict=True)]
    assert mine == ends and len(mine) > 10


def shell_story() -> Events:
    story = Story()
    ids = {"uid": 0, "gid": 0}
    init = story.process(1, "systemd", vpid=1, **ids)

    def process(pid: int, name: str, parent: int, ppid: int, *line: str) -> int:
        joined = b"".join(word.encode() + b"\0" for word in line)
        more = {"vpid": pid, "ppid": ppid, "exe": f"/bin/{name}", "cmdline": joined, **ids}
        return story.process(pid, name, parent=parent, **more)

    sshd = process(50, "sshd", init, 1, "sshd")
    shell = process(100, "bash", sshd, 50, "-bash")
    other = process(200, "zsh", sshd, 50, "-zsh")
    cron = process(300, "cron", init, 1, "cron")
    story.tell("getpid", init, result=1)
    for parent, ppid, pid, name, *line in (
        (shell, 100, 110, "ls", "ls", "/srv"),
        (other, 200, 210, "vi", "vi", "a.py"),
        (cron, 300, 310, "run-parts", "run-parts", "/etc"),
        (shell, 100, 120, "make", "make", "all"),
    ):
        story.tell("getpid", parent, result=ppid)
        before = story.process(
            pid, "x", parent=parent, ppid=ppid, vpid=pid, exe="/bin/x", cmdline=b"x\0", **ids
        )
        story.tell("getpid", before, result=pid)
        story.tell("execve", process(pid, name, parent, ppid, *line), path=f"/bin/{name}")
    story.tell("chdir", shell, path="/srv")
    story.tell("chdir", cron, path="/")
    return story.events()


def test_spy_users_and_list_login_shells_are_the_same(tmp_path: Path) -> None:
    events = shell_story()
    path = write_scap(tmp_path / "a.scap", events)
    form = re.compile(r"\s*(\d+) \d+:\d+:\d+ \S+\) (.*)")
    theirs = [m.groups() for line in told(path, "spy_users") if (m := form.match(line))]
    mine = [(str(row[2]), str(row[3]).strip()) for row in ours("spy_users", events).rows]
    assert mine == [(shell, command.strip()) for shell, command in theirs]
    assert len(mine) == 4
    shells = {str(row[0]) for row in ours("list_login_shells", events).rows}
    # sysdig's means to list all, and keeps the last one.
    assert told(path, "list_login_shells")[-1] in shells
    assert shells == {"100", "200"}
    only = {str(r[0]) for r in ours("list_login_shells", events, command="vi").rows}
    assert only == {told(path, "list_login_shells", "vi")[-1]}


def test_every_chisel_is_compared_or_says_why_not() -> None:
    here = Path(__file__).read_text().partition("TABLES:")[2]
    compared = {name for name in all_chisels() if f'"{name}"' in here} | {
        name for name, *_ in TABLES
    }
    assert compared | set(NOT_COMPARED) == set(all_chisels())
    assert not compared & set(NOT_COMPARED)
