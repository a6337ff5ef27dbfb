"""The report of the benchmarks: ratios, targets, the table and bench.json."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report import Row, as_json, as_table, percentile
from rounds import in_turn, wait_until

AHEAD = Row("make", "ms each", (9.0, 10.0, 30.0), (20.0, 10.0, 21.0), "tool", 1.5)


def test_a_ratio_is_of_medians_and_its_range_of_rounds():
    assert AHEAD.ratio == 0.5
    assert AHEAD.ratios == (9 / 20, 1.0, 30 / 21)


@pytest.mark.parametrize(
    ("ours", "peer", "target", "met"),
    [
        ((3.0,), (2.0,), 1.5, True),
        ((3.1,), (2.0,), 1.5, False),
        ((3.0,), (2.0,), None, None),
        ((0.0,), (), 0.0, True),
        ((1.0,), (), 0.0, False),
        ((0.0,), (50.0,), 0.0, True),
        # A peer of nothing gives no ratio: then ours itself is judged.
        ((2.0,), (0.0,), 1.0, False),
    ],
)
def test_a_target_is_the_largest_ratio_that_meets_it(ours, peer, target, met):
    assert Row("n", "m", ours, peer, "p", target).met is met


def test_the_json_has_these_fields_and_no_others():
    alone = Row("idle", "MB", (41.23456,))
    assert json.loads(as_json([AHEAD, alone])) == [
        {
            "name": "make",
            "metric": "ms each",
            "ours": 10.0,
            "peer": 20.0,
            "peer_name": "tool",
            "ratio": 0.5,
            "target": 1.5,
            "met": True,
        },
        {
            "name": "idle",
            "metric": "MB",
            "ours": 41.23,
            "peer": None,
            "peer_name": None,
            "ratio": None,
            "target": None,
            "met": None,
        },
    ]


def test_the_table_shows_the_noise_and_a_missed_target():
    lines = as_table([AHEAD, Row("slow", "ms", (2000.0,), (1000.0,), "quick", 1.5)]).splitlines()
    assert "10 (9..30)" in lines[2] and "0.5 (0.45..1.43)" in lines[2] and "<= 1.5" in lines[2]
    assert lines[2].split()[-1] == "yes" and lines[3].split()[-1] == "NO"
    assert "2000" in lines[3] and "(" not in lines[3]


def test_the_columns_of_the_table_are_aligned():
    lines = as_table([AHEAD, Row("another", "a longer metric, in ms", (1.0,))]).splitlines()
    start = lines[0].index("ours")
    assert lines[2][start:].startswith("10 (") and lines[3][start:].startswith("1 ")


def test_an_empty_report_is_a_heading_and_an_empty_list():
    assert as_table([]).startswith("benchmark") and json.loads(as_json([])) == []


def test_percentiles():
    assert percentile([5.0], 99) == 5.0
    assert percentile([float(i) for i in range(101)], 99) == 99.0


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200), st.integers(1, 99))
def test_a_percentile_lies_among_its_values(values, percent):
    slack = 1e-6 * max(values)
    assert min(values) - slack <= percentile(values, percent) <= max(values) + slack


def test_contestants_run_in_turn():
    order = []
    runs = {"we": lambda: order.append("we"), "they": lambda: order.append("they")}
    found = in_turn(runs, rounds=3, budget_s=60)
    assert order == ["we", "they"] * 3 and [len(f) for f in found.values()] == [3, 3]


def test_a_spent_budget_ends_the_rounds_but_not_the_first():
    assert in_turn({"we": lambda: 1.0}, rounds=9, budget_s=-1) == {"we": [1.0]}


def test_waiting_ends():
    wait_until(lambda: True, 0, "nothing")
    with pytest.raises(TimeoutError, match="the sun"):
        wait_until(lambda: False, 0, "the sun")
