"""The other chisels that add up, against the same made call by call."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import pytest
from chisel_runs import FILES, IP, READS, does_io, io_on, many_calls, process_of, table
from hypothesis import given, settings
from hypothesis import strategies as st
from trace_rows import START_NS, Call, File, Process, batch

from hostler.core.trace import chisel_seconds
from hostler.core.trace.chisel_registry import find
from hostler.core.trace.chisel_results import Table
from hostler.core.trace.events import FileType, Flag

SOME = settings(max_examples=40, deadline=None)
CALLS, CUT = many_calls(), st.integers(0, 40)
SECOND_NS = 1_000_000_000


def by_second(calls: list[Call]) -> list[tuple[int, int, int, int]]:
    sums: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    for call in calls:
        if call.result > 0:
            ended = START_NS + call.after_ns + call.latency_ns
            sums[ended // SECOND_NS * SECOND_NS][call.name not in READS] += call.result
    return [(second, r, w, r + w) for second, (r, w) in sorted(sums.items())]


@SOME
@given(CALLS, CUT)
def test_iobytes_adds_up_by_second(calls: list[Call], cut: int) -> None:
    assert list(table("iobytes", calls, cut=cut).rows) == by_second(list(filter(does_io, calls)))


@SOME
@given(CALLS, CUT)
def test_iobytes_file_adds_up_files(calls: list[Call], cut: int) -> None:
    wanted = by_second(list(filter(io_on(FileType.FILE), calls)))
    assert list(table("iobytes_file", calls, cut=cut).rows) == wanted


@SOME
@given(CALLS, CUT)
def test_iobytes_net_adds_up_sockets(calls: list[Call], cut: int) -> None:
    wanted = by_second(list(filter(io_on(*IP), calls)))
    assert list(table("iobytes_net", calls, cut=cut).rows) == wanted


def test_iobytes_keeps_the_newest_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chisel_seconds, "MOST_SECONDS", 2)
    calls = [Call("read", result=n, file=FILES[0], after_ns=n * SECOND_NS) for n in (1, 2, 3, 4)]
    result = table("iobytes", calls, cut=3)
    assert [row[-1] for row in result.rows] == [3, 4]
    assert result.other == (None, 3, 0, 3)


@SOME
@given(CALLS, CUT)
def test_fdcount_by_counts_files_once(calls: list[Call], cut: int) -> None:
    files: dict[int, set[tuple[int, str]]] = defaultdict(set)
    for call in calls:
        if call.file and call.fd > 0 and call.process:
            files[call.process.pid].add((call.fd, call.file.name))
    rows = table("fdcount_by", calls, cut=cut, key="proc.pid").rows
    assert dict(rows) == {pid: len(found) for pid, found in files.items()}
    assert [row[1] for row in rows] == sorted((row[1] for row in rows), reverse=True)


@SOME
@given(CALLS, CUT, st.integers(1, 12))
def test_bottlenecks_shows_the_slowest(calls: list[Call], cut: int, top: int) -> None:
    numbers = [*range(1, cut + 1), *range(1, len(calls) + 1)]
    slowest = sorted((-c.latency_ns, numbers[i]) for i, c in enumerate(calls) if c.latency_ns)[:top]
    rows = table("bottlenecks", calls, cut=cut, top=str(top)).rows
    assert [row[0] for row in rows] == [-latency for latency, _ in slowest]


def test_bottlenecks_shows_calls_in_full() -> None:
    calls = [
        Call("read", (3, 0, 100), 5, Process(7, "cat"), FILES[0], 3, tid=7, latency_ns=9),
        Call("getpid", latency_ns=5),
        Call("exit_group", flags=Flag.UNFINISHED),
    ]
    rows = table("bottlenecks", calls).rows
    assert rows[0][:6] == (9, 1, START_NS + 9, "cat", 7, "read")
    assert "fd=3(<f>/etc/passwd)" in str(rows[0][6]) and "res=5" in str(rows[0][6])
    assert [row[0] for row in rows] == [9, 5]


@st.composite
def threads(draw: st.DrawFn) -> list[Call]:
    """Calls of threads, each of which makes one after the other."""
    clocks, calls = dict[int, int](), list[Call]()
    for _ in range(draw(st.integers(0, 30))):
        tid, process = draw(st.sampled_from(((1, 0), (7, 1), (8, 1), (9, 2))))
        start = clocks.get(tid, 0) + draw(st.integers(0, 1000))
        latency = draw(st.integers(0, 1000))
        clocks[tid] = start + latency
        name = draw(st.sampled_from(("read", "futex", "futex", "exit")))
        calls.append(
            Call(
                name,
                process=[Process(1, "systemd"), Process(7, "java"), Process(9, "cc")][process],
                tid=tid,
                after_ns=start,
                latency_ns=latency,
            )
        )
    return sorted(calls, key=lambda call: call.after_ns)


@SOME
@given(threads(), CUT)
def test_topprocs_cpu_adds_up_the_time_between_calls(calls: list[Call], cut: int) -> None:
    returned: dict[int, int | None] = {}
    gaps: dict[tuple[str, int] | None, int] = defaultdict(int)
    for call in calls:
        before = returned.get(call.tid)
        if before is not None:
            gaps[process_of(call)] += call.after_ns - before
        ended = call.after_ns + call.latency_ns
        returned[call.tid] = None if call.name == "exit" else ended
    result = table("topprocs_cpu", calls, cut=cut)
    wanted = {key: gap for key, gap in gaps.items() if gap}
    assert {row[:2]: row[2] for row in result.rows} == wanted
    assert "calls do not tell CPU time" in result.notes[0]


def test_topprocs_cpu_says_that_events_were_lost() -> None:
    running = find("topprocs_cpu").start({})
    running.take(replace(batch([Call("read")]), lost=3))
    result = running.result()
    assert isinstance(result, Table)
    assert result.notes[-1] == "3 calls were lost, whose time is counted in"


REQUEST = b"GET /a HTTP/1.1\r\nHost: example.org\r\nAccept: */*\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n"
CLIENT = Process(50, "curl")


def http(name: str, data: bytes, after_ns: int, fd: int = 5, file: File = FILES[3]) -> Call:
    return Call(
        name, result=len(data), process=CLIENT, file=file, fd=fd, data=data, after_ns=after_ns
    )


def test_httptop_counts_requests_that_are_answered() -> None:
    calls = [
        http("write", REQUEST, 0),
        http("write", REQUEST, 10, fd=6),
        http("write", b"POST /long HTTP/1.1\r\n\r\n", 10, fd=7),
        http("read", ANSWER, 100),
        http("read", ANSWER, 310, fd=6),
        http("read", b"HTTP/1.1 204 No Content\r\n\r\n", 9010, fd=7),
        http("write", b"GET /unanswered HTTP/1.1\r\n\r\n", 20),
        http("read", b"HTTP/1.1 200 OK\r\n\r\n", 20, fd=8),
        http("write", b"GET /file HTTP/1.1\r\n\r\n", 20, fd=9, file=FILES[0]),
        http("read", ANSWER, 20, fd=9, file=FILES[0]),
    ]
    get, post = ("GET", "example.org/a", 2, 2468, 200), ("POST", "/long", 1, 0, 9000)
    for cut in range(len(calls)):
        assert table("httptop", calls, cut=cut).rows == (get, post)
    assert table("httptop", calls, by="bytes").rows == (get, post)
    assert table("httptop", calls, by="time").rows == (post, get)
    first = table("httptop", calls, by="time", top="1")
    assert first.rows == (post,) and first.other == ("(other)", None, 2, 2468, 200)


ETC, SSH = File(FileType.FILE, "/etc/ssh/keys/a"), File(FileType.DIRECTORY, "/etc/ssh")


def test_dirs_says_who_touches_what_below_a_path() -> None:
    calls = [
        Call("openat", result=3, process=CLIENT, path="/etc/passwd"),
        Call("openat", result=-2, process=CLIENT, path="/etc/ssh/none"),
        Call("read", result=100, process=CLIENT, file=ETC, fd=3),
        Call("write", result=7, process=CLIENT, file=ETC, fd=3),
        Call("unlink", process=CLIENT, path="/etc/ssh/x"),
        Call("fstat", process=CLIENT, file=SSH, fd=4),
        Call("read", result=9, process=CLIENT, file=FILES[3], fd=5),
        Call("openat", result=3, process=CLIENT, path="/etcetera/x"),
        Call("openat", result=3, process=CLIENT, path="relative"),
    ]
    assert table("dirs", calls, path="/etc").rows == (
        ("/etc/ssh", "curl", 4, 0, 1, 100, 7, 1),
        ("/etc", "curl", 2, 1, 0, 0, 0, 0),
    )
    deep = {row[0] for row in table("dirs", calls, path="/etc/", depth="2").rows}
    assert deep == {"/etc", "/etc/ssh", "/etc/ssh/keys"}
    assert {row[0] for row in table("dirs", calls).rows} == {"/etc", "/etcetera"}
    assert [row[0] for row in table("dirs", calls, depth="0").rows] == ["/"]
    assert table("dirs", calls, path="/etc/passwd").rows[0][0] == "/etc/passwd"
