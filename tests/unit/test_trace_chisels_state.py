"""The chisels that follow processes: what they have open, what they may do, what they did."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from chisel_runs import FILES, lines, run, table
from hypothesis import given, settings
from hypothesis import strategies as st
from trace_rows import START_NS, Call, File, Process, batch

from hostler.core.trace import chisel_open_files
from hostler.core.trace.chisel_registry import find
from hostler.core.trace.chisel_results import Kept
from hostler.core.trace.events import FileType, Flag

A, B = Process(10, "nginx", user="www-data"), Process(20, "sshd", user="root")
LISTENING = File(FileType.IPV4, "0.0.0.0:80", 6, is_server=True, local=(b"", 80))
DATAGRAMS = File(FileType.IPV6, "[::]:53", 17, local=(b"", 53))


@st.composite
def file_calls(draw: st.DrawFn) -> list[Call]:
    calls = list[Call]()
    for _ in range(draw(st.integers(0, 30))):
        process = draw(st.sampled_from((A, B)))
        name = draw(st.sampled_from(("read", "close", "fstat", "exit_group")))
        if name == "exit_group":
            calls.append(Call(name, process=process, flags=Flag.UNFINISHED))
            continue
        file, fd = draw(st.sampled_from(FILES)), draw(st.integers(0, 3))
        result = draw(st.sampled_from((0, -9)))
        calls.append(Call(name, (fd,), result, process, file, fd, tid=process.pid))
    return calls


@settings(max_examples=60, deadline=None)
@given(file_calls(), st.integers(0, 30))
def test_lsof_lists_what_is_open_at_the_end(calls: list[Call], cut: int) -> None:
    opened: dict[tuple[int, int], Call] = {}
    for call in calls:
        assert call.process
        if call.name == "exit_group":
            opened = {key: c for key, c in opened.items() if key[0] != call.process.pid}
        elif call.name == "close" and call.result == 0:
            opened.pop((call.process.pid, call.fd), None)
        else:
            opened[call.process.pid, call.fd] = call
    result = table("lsof", calls, cut=cut)
    wanted = [(pid, fd, c.file.name if c.file else "") for (pid, fd), c in sorted(opened.items())]
    assert [(row[2], row[5], row[7]) for row in result.rows] == wanted
    assert "not known" in result.notes[0]


def test_lsof_shows_whose_and_what() -> None:
    calls = [Call("read", (3,), 1, A, FILES[0], 3, tid=11), Call("read", (4,), 1, B, FILES[3], 4)]
    row = ("alpha", "nginx", 10, 11, "www-data", 3, "file", "/etc/passwd")
    assert table("lsof", calls).rows[0] == row
    assert table("lsof", calls, filter="fd.type=file").rows == (row,)


def test_lsof_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chisel_open_files, "MOST_OPEN", 2)
    calls = [Call("read", (fd,), 1, A, FILES[0], fd) for fd in range(5)]
    result = table("lsof", calls)
    assert len(result.rows) == 2 and "3 were skipped" in result.notes[1]


def test_netstat_lists_sockets_with_their_ends_and_states() -> None:
    calls = [
        Call("read", (3,), 1, A, FILES[3], 3),
        Call("read", (4,), 1, A, FILES[4], 4),
        Call("accept4", (5,), -11, A, LISTENING, 5),
        Call("recvfrom", (6,), 1, B, DATAGRAMS, 6),
        Call("read", (7,), 1, B, FILES[0], 7),
    ]
    assert table("netstat", calls).rows == (
        ("alpha", "tcp", "10.0.0.2:80", "10.0.0.1:4000", "ESTABLISHED", 10, "nginx"),
        ("alpha", "tcp", "[::1]:443", "[::2]:5000", "ESTABLISHED", 10, "nginx"),
        ("alpha", "tcp", "0.0.0.0:80", "*", "LISTEN", 10, "nginx"),
        ("alpha", "udp", "*", "*", None, 20, "sshd"),
    )
    assert len(table("netstat", calls, filter="proc.name=sshd or fd.sport=443").rows) == 2


def test_ps_lists_threads_and_says_which_ended() -> None:
    calls = [
        Call("read", process=A, tid=10),
        Call("read", process=A, tid=11),
        Call("exit", process=A, tid=11, flags=Flag.UNFINISHED),
        Call("read", process=B, tid=20),
    ]
    rows = table("ps", calls).rows
    assert [(row[1], row[2], row[4], row[6], row[8]) for row in rows] == [
        (10, 10, "www-data", "nginx", None),
        (11, 10, "www-data", "nginx", "ended"),
        (20, 20, "root", "sshd", None),
    ]
    assert [row[1] for row in table("ps", calls, filter="proc.name=sshd").rows] == [20]


def near(calls: Sequence[Call], range_ns: int) -> list[int]:
    matched = [(c.tid, c.after_ns) for c in calls if c.result == -13]
    return [
        i + 1
        for i, c in enumerate(calls)
        if any(tid == c.tid and abs(at - c.after_ns) <= range_ns for tid, at in matched)
    ]


@st.composite
def timeline(draw: st.DrawFn) -> list[Call]:
    times = sorted(draw(st.lists(st.integers(0, 20), min_size=4, max_size=40)))
    return [
        Call(
            "openat",
            result=draw(st.sampled_from((3, 3, -13))),
            tid=draw(st.integers(1, 2)),
            after_ns=ms * 1_000_000,
        )
        for ms in times
    ]


@settings(max_examples=60, deadline=None)
@given(timeline(), st.lists(st.integers(0, 20), min_size=1, max_size=5), st.integers(0, 5))
def test_around_keeps_what_a_thread_did_near_a_match(
    calls: list[Call], cuts: list[int], range_ms: int
) -> None:
    running = find("around").start({"match": "evt.res=EACCES", "range_ms": str(range_ms)})
    whole = batch(calls)
    edges = [0, *sorted(min(cut, len(calls)) for cut in cuts), len(calls)]
    for start, end in pairwise(edges):
        running.take(whole.select(slice(start, end)), "alpha")
    result = running.result()
    assert isinstance(result, Kept) and not result.skipped
    found = [n for events in result.by_host.values() for n in events["number"].tolist()]
    assert found == near(calls, range_ms * 1_000_000)
    again = running.result()
    assert isinstance(again, Kept) and not again.by_host


def test_around_looks_back_and_ahead_over_several_batches() -> None:
    running = find("around").start({"match": "evt.res=EACCES", "range_ms": "3"})
    results = (3, 3, 3, -13, 3, 3, 3, 3)
    calls = [Call("openat", result=r, after_ns=i * 1_500_000) for i, r in enumerate(results)]
    whole = batch(calls)
    for i in range(len(calls)):
        running.take(whole.select([i]), "alpha")
    result = running.result()
    assert isinstance(result, Kept)
    assert result.by_host["alpha"]["number"].tolist() == [2, 3, 4, 5, 6]


def test_around_takes_a_filter() -> None:
    calls = [Call("read", tid=1, process=A), Call("read", tid=1, process=A, result=-5)]
    result = run("around", calls, match="evt.failed=true")
    assert isinstance(result, Kept)
    events = result.by_host["alpha"]
    assert len(events) == 2 and events.texts[events.of_process("name")[0]] == b"nginx"


def ids(uid: int, gid: int, name: str = "vsftpd", parent: Process | None = None) -> Process:
    return Process(30, name, parent, uid=uid, gid=gid)


def test_privileges_shows_the_changes_in_order() -> None:
    joe = Process(29, "bash", uid=1000, gid=1000)
    minus_one = (1 << 32) - 1
    calls = [
        Call("execve", process=ids(0, 1000, "su", joe), path="/bin/su"),
        Call("execve", process=ids(0, 1000, "su", joe), path="/bin/su"),
        Call("chroot", process=ids(0, 1000), path="/srv/ftp"),
        Call("setresgid", (33, 33, 33), process=ids(0, 33)),
        Call("setresuid", (minus_one, 33, minus_one), process=ids(33, 33)),
        Call("setuid", (0,), result=-1, process=ids(33, 33)),
        Call("capset", process=ids(33, 33)),
        Call("prctl", (38, 1), process=ids(33, 33)),
        Call("prctl", (15, 1), process=ids(33, 33)),
        Call("read", process=ids(33, 33)),
    ]
    rows = lines("privileges", calls).rows
    assert [(row[3], row[5], row[6], row[7]) for row in rows] == [
        ("execve", "uid 1000 → 0", 0, 1000),
        ("chroot", None, 0, 1000),
        ("setresgid", "gid 1000 → 33", 0, 33),
        ("setresuid", "uid 0 → 33", 33, 33),
        ("setuid", None, 33, 33),
        ("capset", None, 33, 33),
        ("prctl", None, 33, 33),
    ]
    words = [str(row[4]) for row in rows]
    assert "/srv/ftp" in words[1] and "euid=33" in words[3] and "EPERM" in words[4]
    assert words[6].startswith("PR_SET_NO_NEW_PRIVS ")
    assert rows[0][:3] == (START_NS, "su", 30)


def test_privileges_does_not_invent_a_change() -> None:
    unknown = Process(31, "x")
    rows = lines("privileges", [Call("setuid", (5,), process=unknown)]).rows
    assert rows[0][5:] == (None, None, None)
    assert lines("privileges", [Call("execve", process=ids(0, 0))]).rows == ()
