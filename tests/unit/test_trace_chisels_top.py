"""The chisels that add up: against the same sums made call by call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from chisel_runs import (
    FILES,
    IP,
    PROCESSES,
    does_io,
    failed,
    io_on,
    many_calls,
    on,
    once,
    process_of,
    summed,
    table,
    took,
    transferred,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from trace_rows import Call, batch

from hostler.core.trace.chisel import Given
from hostler.core.trace.chisel_cells import shown
from hostler.core.trace.chisel_groups import BYTES, OTHER, Grouping, measured
from hostler.core.trace.chisel_registry import find
from hostler.core.trace.chisel_results import Heading, Table, Unit
from hostler.core.trace.events import FileType
from hostler.core.trace.fields import find as find_field

SYSDIG_NAMES = {"pread64": "pread", "pwrite64": "pwrite"}
FILE = FileType.FILE


def name_of(call: Call) -> tuple[str] | None:
    return (call.file.name,) if call.file and call.file.name else None


def connection_of(call: Call) -> tuple[str, str] | None:
    protocols = {6: "tcp", 17: "udp"}
    return (protocols[call.file.protocol], call.file.name) if call.file else None


def server_port_of(call: Call) -> tuple[int] | None:
    file = call.file
    if file is None or not file.remote[1]:
        return None
    return ((file.local if file.is_server else file.remote)[1],)


def tid_of(call: Call) -> tuple[int]:
    return (call.tid,)


def failed_on_file(call: Call) -> bool:
    return failed(call) and on(FILE)(call)


def call_of(call: Call) -> tuple[str]:
    return (SYSDIG_NAMES.get(call.name, call.name),)


def check(
    name: str,
    calls: Sequence[Call],
    cut: int,
    where: Callable[[Call], bool],
    key: Callable[[Call], Any],
    value: Callable[[Call], int],
    arguments: Mapping[str, str] | None = None,
) -> None:
    wanted = summed(calls, where, key, value)
    rows = table(name, calls, cut=cut, top="0", **(arguments or {})).rows
    assert {row[:-1]: row[-1] for row in rows} == wanted
    assert [row[-1] for row in rows] == sorted(wanted.values(), reverse=True)


CALLS, CUT = many_calls(), st.integers(0, 40)
SOME = settings(max_examples=40, deadline=None)


@SOME
@given(CALLS, CUT)
def test_topprocs_file_adds_up_bytes_of_files_by_process(calls: list[Call], cut: int) -> None:
    check("topprocs_file", calls, cut, io_on(FILE), process_of, transferred)


@SOME
@given(CALLS, CUT)
def test_topprocs_net_adds_up_bytes_of_ip_by_process(calls: list[Call], cut: int) -> None:
    check("topprocs_net", calls, cut, io_on(*IP), process_of, transferred)


@SOME
@given(CALLS, CUT)
def test_topprocs_errors_counts_failures_by_process(calls: list[Call], cut: int) -> None:
    check("topprocs_errors", calls, cut, failed, process_of, once)


@SOME
@given(CALLS, CUT)
def test_topfiles_bytes_adds_up_bytes_by_file(calls: list[Call], cut: int) -> None:
    check("topfiles_bytes", calls, cut, io_on(FILE), name_of, transferred)


@SOME
@given(CALLS, CUT)
def test_topfiles_time_adds_up_time_by_file(calls: list[Call], cut: int) -> None:
    check("topfiles_time", calls, cut, io_on(FILE), name_of, took)


@SOME
@given(CALLS, CUT)
def test_topfiles_errors_counts_failures_by_file(calls: list[Call], cut: int) -> None:
    check("topfiles_errors", calls, cut, failed_on_file, name_of, once)


@SOME
@given(CALLS, CUT)
def test_topconns_adds_up_bytes_by_connection(calls: list[Call], cut: int) -> None:
    check("topconns", calls, cut, io_on(*IP), connection_of, transferred)


@SOME
@given(CALLS, CUT)
def test_topports_server_adds_up_bytes_by_server_port(calls: list[Call], cut: int) -> None:
    check("topports_server", calls, cut, io_on(*IP), server_port_of, transferred)


@SOME
@given(CALLS, CUT)
def test_topscalls_counts_calls(calls: list[Call], cut: int) -> None:
    check("topscalls", calls, cut, lambda call: True, call_of, once)


@SOME
@given(CALLS, CUT)
def test_topscalls_time_adds_up_time_by_call(calls: list[Call], cut: int) -> None:
    check("topscalls_time", calls, cut, lambda call: True, call_of, took)


@SOME
@given(CALLS, CUT)
def test_fdbytes_by_adds_up_bytes_by_any_field(calls: list[Call], cut: int) -> None:
    key = {"key": "fd.sport"}
    check("fdbytes_by", calls, cut, does_io, server_port_of, transferred, key)


@SOME
@given(CALLS, CUT)
def test_fdtime_by_adds_up_time_by_any_field(calls: list[Call], cut: int) -> None:
    check("fdtime_by", calls, cut, does_io, tid_of, took, {"key": "thread.tid"})


def test_fdbytes_by_groups_by_texts_bools_and_addresses() -> None:
    calls = [Call("read", result=5, file=file, fd=3) for file in (FILES[3], FILES[4])]
    by_address = table("fdbytes_by", calls, key="fd.cip").rows
    assert set(by_address) == {("10.0.0.1", 5), ("::2", 5)}
    assert set(table("fdbytes_by", calls, key="fd.is_server").rows) == {("false", 5), ("true", 5)}


def test_units_and_headings_are_said() -> None:
    headings = table("topprocs_file", []).headings
    assert headings == (
        Heading("process"),
        Heading("pid", Unit.NUMBER),
        Heading("bytes", Unit.BYTES),
    )


def test_hosts_are_summed_or_kept_apart() -> None:
    events = batch([Call("read", result=5, process=PROCESSES[0], file=FILES[0], fd=3)])
    for per_host, wanted in (
        (False, [("/etc/passwd", 10)]),
        (True, [("alpha", "/etc/passwd", 5), ("beta", "/etc/passwd", 5)]),
    ):
        running = find("topfiles_bytes").start({}, per_host=per_host)
        running.take(events, "beta")
        running.take(events, "alpha")
        result = running.result()
        assert isinstance(result, Table)
        assert list(result.rows) == wanted
        assert (result.headings[0].name == "host") == per_host


def test_what_the_top_leaves_out_is_summed_up() -> None:
    calls = [Call("read", result=i, file=FILES[0], fd=3, tid=i) for i in range(1, 6)]
    result = table("fdbytes_by", calls, key="thread.tid", top="2")
    assert result.rows == ((5, 5), (4, 4))
    assert result.other == (OTHER, 6)
    assert result.notes == ()


def grouping(most_keys: int) -> Grouping:
    return Grouping(
        Given({"top": 0}),
        (shown("tid", "thread.tid"),),
        ((BYTES.heading, measured(find_field(BYTES.field))),),
        most_keys,
    )


@settings(deadline=None)
@given(st.lists(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 99)))), st.integers(1, 40))
def test_memory_is_bounded_and_nothing_is_lost(
    batches: list[list[tuple[int, int]]], most_keys: int
) -> None:
    state, truth = grouping(most_keys), dict[int, int]()
    for pairs in batches:
        for tid, count in pairs:
            truth[tid] = truth.get(tid, 0) + count
        calls = [Call("read", result=n, file=FILES[0], fd=3, tid=tid) for tid, n in pairs]
        state.take(batch(calls), "alpha")
    result = state.result()
    shown_sums = {row[0]: row[1] for row in result.rows}
    assert len(shown_sums) <= most_keys
    assert all(shown_sums[tid] <= truth[tid] for tid in shown_sums)
    other = result.other[-1] if result.other else 0
    assert sum(shown_sums.values()) + other == sum(truth.values())
    if len(truth) <= most_keys:
        assert shown_sums == truth and not result.notes
    elif result.other:
        assert "may be too low" in result.notes[0]


def test_what_is_absent_or_negative_adds_nothing() -> None:
    calls = [Call("read", latency_ns=5), Call("poll", latency_ns=7), Call("poll", result=-4)]
    assert measured(find_field("evt.wait_latency"))(batch(calls)).tolist() == [0, 7, 0]
    assert measured(find_field("evt.rawres"))(batch(calls)).tolist() == [0, 0, 0]


def test_sums_are_exact_beyond_what_floats_hold() -> None:
    calls = [Call("read", result=(1 << 53) + 1, file=FILES[0], fd=3) for _ in range(2)]
    assert table("topfiles_bytes", calls).rows == (("/etc/passwd", (1 << 54) + 2),)
