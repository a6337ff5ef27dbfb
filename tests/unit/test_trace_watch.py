"""The events of several hosts in one order, each told once."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hostler import trace_watch
from hostler.core.trace.blocks import exit_ns
from hostler.core.trace.events import COLUMNS, Events
from hostler.core.trace.merge import Merged
from hostler.trace_watch import InOrder
from hostler.traces import Clock, Piece

S = 1_000_000_000


def batch(ends_s: list[int]) -> Events:
    columns = {name: np.zeros(len(ends_s), kind) for name, kind in COLUMNS.items()}
    columns["time_ns"] = np.array(ends_s, "<u8") * S
    columns["number"] = np.arange(1, len(ends_s) + 1, dtype="<u8")
    return Events(columns)


ENDS = st.lists(st.lists(st.integers(0, 100), max_size=6).map(sorted), min_size=1, max_size=4)


def read(merged: Merged | None) -> list[tuple[int, int]]:
    if merged is None:
        return []
    return list(zip((exit_ns(merged.events) // S).tolist(), merged.source.tolist(), strict=True))


@given(ENDS, st.data())
def test_all_are_told_once_and_in_order(hosts: list[list[int]], data: st.DataObject) -> None:
    order = InOrder(len(hosts))
    left = {host: list(ends) for host, ends in enumerate(hosts)}
    told: list[tuple[int, int]] = []
    while left:
        host = data.draw(st.sampled_from(sorted(left)))
        ends = left[host]
        piece, left[host] = ends[: len(ends) // 2 + 1], ends[len(ends) // 2 + 1 :]
        until_s = left[host][0] if left[host] else 1000
        order.put(host, Piece(batch(piece), until_s * S))
        if not left[host]:
            order.leave(host)
            del left[host]
        told += read(order.ready())
    told += read(order.ready())
    assert [end for end, _ in told] == sorted(end for end, _ in told)
    assert sorted(told) == sorted((end, host) for host, ends in enumerate(hosts) for end in ends)


def test_a_silent_host_holds_the_others_up_for_a_while_and_no_longer() -> None:
    order = InOrder(2)
    order.put(0, Piece(batch([1, 2]), 50 * S))
    assert order.ready() is None
    order._heard_ns[1] -= 2 * trace_watch.PATIENCE_NS
    assert read(order.ready()) == [(1, 0), (2, 0)]
    order.put(1, Piece(batch([1]), 51 * S))
    assert read(order.ready()) == [(1, 1)]


def test_a_clock_that_is_off_is_told_if_that_is_certain() -> None:
    words = Clock(3_000_000_000, 20_000_000).words()
    assert "3.000 s ahead of this machine's, to within 0.020 s" in words
    assert "0.500 s behind" in Clock(-500_000_000, 20_000_000).words()
    assert Clock(50_000_000, 1_000_000).words() == ""
    assert Clock(500_000_000, 600_000_000).words() == ""
