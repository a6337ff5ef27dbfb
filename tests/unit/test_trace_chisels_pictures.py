"""The chisels that draw: what they count, and that what they draw can be read."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
from chisel_runs import many_calls, run
from hypothesis import given, settings
from hypothesis import strategies as st
from trace_rows import Call, batch

from hostler.core.trace.chisel_latency import BINS, EDGES_NS, at_most_ns, bins_of, label
from hostler.core.trace.chisel_picture import Panel, bars_svg, bars_text, grid_text, level
from hostler.core.trace.chisel_registry import find
from hostler.core.trace.chisel_results import Picture
from hostler.core.trace.chisels import spectrogram

SVG = "{http://www.w3.org/2000/svg}"


def picture(name: str, calls: Sequence[Call], cut: int = 0, **arguments: str) -> Picture:
    result = run(name, calls, cut=cut, **arguments)
    assert isinstance(result, Picture)
    assert ElementTree.fromstring(result.svg).tag == SVG + "svg"  # noqa: S314
    return result


def latencies(*each: int) -> list[Call]:
    return [Call("read", latency_ns=latency) for latency in each]


def test_bins_are_tenths_of_powers_of_ten() -> None:
    assert BINS == 90 and int(EDGES_NS[-1]) == 79_432_823_472
    assert all(1.25 < b / a < 1.27 for a, b in pairwise(EDGES_NS.tolist()))
    assert [label(i) for i in (0, 1, 10, 20, 70)] == ["0", "126ns", "1us", "10us", "1s"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 1 << 40), max_size=30))
def test_each_latency_is_in_its_bin(each: list[int]) -> None:
    rows, bins = bins_of(batch(latencies(*each)))
    edges = EDGES_NS.tolist()
    wanted = [(i, sum(edge <= value for edge in edges)) for i, value in enumerate(each) if value]
    assert list(zip(rows.tolist(), bins.tolist(), strict=True)) == wanted


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 10**10), min_size=1, max_size=50), st.sampled_from((0.5, 0.9, 1.0)))
def test_percentiles_hold_for_so_many_calls(each: list[int], share: float) -> None:
    _, bins = bins_of(batch(latencies(*each)))
    most_ns = at_most_ns(np.bincount(bins, minlength=BINS), share)
    assert most_ns is not None
    assert sum(latency < most_ns for latency in each) >= share * len(each)
    bin_before = [edge for edge in (0, *EDGES_NS.tolist()) if edge < most_ns][-1]
    assert sum(latency < bin_before for latency in each) < share * len(each)


def test_latency_histogram_draws_a_bar_for_each_latency() -> None:
    drawn = picture("latency_histogram", latencies(1000, 1000, 1100, 0, 5_000_000), cut=2)
    first, last = drawn.text.splitlines()[1], drawn.text.splitlines()[-1]
    assert first.split() == ["1us", "█" * 50, "3"]
    assert last.split()[0] == "3.98ms" and last.split()[-1] == "1"
    assert drawn.notes == (
        "of 4 calls 50% took less than 1.26us, 90% took less than 5.01ms, "
        "99% took less than 5.01ms, 99.9% took less than 5.01ms",
    )
    bars = ElementTree.fromstring(drawn.svg).iter(SVG + "rect")  # noqa: S314
    assert max(int(bar.get("width", 0)) for bar in bars if bar.get("x")) == 400
    assert picture("latency_histogram", []).text == ""


@settings(max_examples=40, deadline=None)
@given(many_calls(), st.integers(0, 40))
def test_latency_histogram_counts_each_call(calls: list[Call], cut: int) -> None:
    drawn = picture("latency_histogram", calls, cut)
    counted = sum(int(line.split()[-1]) for line in drawn.text.splitlines()[1:])
    assert counted == sum(call.latency_ns > 0 for call in calls)


def test_spectrogram_draws_a_row_for_each_while() -> None:
    second_ns = 1_000_000_000
    calls = [
        *latencies(*[1000] * 20, 10_000),
        Call("read", after_ns=2 * second_ns, latency_ns=1_000_000),
    ]
    drawn = picture("spectrogram", calls, refresh_time="1000").text.splitlines()
    assert len(drawn) == 5
    assert [line.split()[0] for line in drawn[1:4]] == [
        "23:33:20.000",
        "23:33:21.000",
        "23:33:22.000",
    ]
    start = len("23:33:20.000 ")
    assert drawn[1][start + 10] == "█" and drawn[1][start + 20] in "·░▒▓"
    assert drawn[1][start:].replace(" ", "").strip("█·░▒▓") == ""
    assert len(drawn[2]) < start and drawn[3][start + 40] != " "
    assert drawn[4][start + 20 :].startswith("|10us")


def test_spectrogram_of_a_long_trace_has_longer_rows() -> None:
    most = spectrogram.MOST_SLOTS
    calls = [Call("read", after_ns=i * 500_000_000, latency_ns=1000) for i in range(most * 3)]
    drawn = picture("spectrogram", calls, cut=most)
    assert most / 2 - 1 <= len(drawn.text.splitlines()) - 2 <= most
    assert drawn.notes == ("the trace is long: a row is 2s",)
    state = find("spectrogram").start({}).state
    assert isinstance(state, spectrogram.Spectrogram)
    state.take(batch(calls), "alpha")
    assert sum(int(counts.sum()) for counts in state.hosts[""].values()) == len(calls)


def test_hosts_have_panels_of_their_own() -> None:
    for name in ("spectrogram", "latency_histogram"):
        running = find(name).start({}, per_host=True)
        for host in ("beta<script>", "alpha"):
            running.take(batch(latencies(1000)), host)
        result = running.result()
        assert isinstance(result, Picture)
        titles = [line for line in result.text.splitlines() if line in ("alpha", "beta<script>")]
        assert titles == ["alpha", "beta<script>"]
        assert "<script>" not in result.svg and "beta&lt;script&gt;" in result.svg


def test_what_is_there_is_seen() -> None:
    assert level(0, 10, 6) == 0
    assert level(1, 10**9, 6) == 1
    assert level(10**9, 10**9, 6) == 5
    panel = Panel("t\x1b", ("a", "b"), ((1, 10**9),))
    assert "▏ 1" in bars_text([panel])
    assert "\x1b" not in bars_svg("x\x00", [panel])
    assert grid_text([Panel("t", ("a",), ((0, 1),))], [(0, "0")]) == "t\na  █\n  |0"
