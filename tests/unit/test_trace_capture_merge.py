"""Merging: events of several hosts in order, on one clock, and nothing waits for the dead."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from trace_batches import simple

from hostler.core.trace.blocks import exit_ns
from hostler.core.trace.events import Events, concatenate
from hostler.core.trace.merge import Merged, Merger, merge, moved

# For each source: how its clock is off, and how long it takes from event to event in each batch.
SOURCES = st.lists(
    st.tuples(
        st.integers(-(10**10), 10**10),
        st.lists(st.tuples(st.integers(0, 20), st.integers(2, 10_000)), max_size=5),
    ),
    max_size=4,
)


def batches_of(source: int, offset_ns: int, sizes: list[tuple[int, int]]) -> list[Events]:
    """Batches of a host whose clock is `offset_ns` behind the true one."""
    made, number, now = [], 1, 10**18
    for count, step_ns in sizes:
        batch = simple(1, count, start_ns=now - offset_ns, step_ns=step_ns)
        batch.columns["number"] += np.uint64(number - 1)
        batch.texts[1] = b"host%d" % source
        batch.lost = 1
        number += count
        now += (count + 1) * step_ns
        made.append(batch)
    return made


@given(SOURCES)
def test_all_events_come_in_order_and_know_their_source(
    sources: list[tuple[int, list[tuple[int, int]]]],
) -> None:
    given_ = [batches_of(i, offset, sizes) for i, (offset, sizes) in enumerate(sources)]
    merged = list(merge(given_, [offset for offset, _ in sources]))
    ends = [int(end) for each in merged for end in exit_ns(each.events)]
    assert ends == sorted(ends)
    for i, batches in enumerate(given_):
        mine = [int(n) for m in merged for n in m.events["number"][m.source == i]]
        assert mine == [int(n) for batch in batches for n in batch["number"]]
    assert sum(m.events.lost for m in merged) == sum(len(b) for b in given_)
    assert all(name == b"host%d" % source for m in merged for name, source in names(m))


def names(merged: Merged) -> list[tuple[bytes, int]]:
    rows = merged.events.of_process("name").tolist()
    return [(merged.events.texts[r], s) for r, s in zip(rows, merged.source.tolist(), strict=True)]


def test_a_silent_host_holds_the_others_until_it_is_given_up() -> None:
    merger = Merger([0, 0])
    merger.push(0, simple(1, 10))
    assert merger.pop() is None
    assert merger.is_waiting_for(1)
    assert not merger.is_waiting_for(0)
    merger.advance(1, 10**18 + 5500)
    first = merger.pop()
    assert first is not None
    assert first.events["number"].tolist() == [1, 2, 3, 4, 5]
    assert merger.pending_events == 5
    merger.finish(1)
    rest = merger.pop()
    assert rest is not None
    assert rest.events["number"].tolist() == [6, 7, 8, 9, 10]
    assert merger.pending_events == 0


def test_events_of_a_clock_that_is_off_are_moved() -> None:
    merged = list(merge([[simple(1, 1)], [simple(2, 1)]], [3_000_000_000, 0]))
    assert [s for m in merged for s in m.source.tolist()] == [1, 0]
    times = [t for m in merged for t in m.events["time_ns"].tolist()]
    assert times == [10**18 + 2000, 10**18 + 3_000_001_000]


def test_a_batch_is_held_no_longer_than_it_must() -> None:
    taken = []

    def batches(source: int) -> object:
        for i in range(50):
            taken.append(source)
            yield simple(1 + 100 * i, 100)

    merger = merge([batches(0), batches(1)], [0, 0])  # type: ignore[list-item]
    next(merger)
    assert len(taken) <= 4
    assert sum(len(m.events) for m in merger) == 9800


def test_a_trace_begins_by_the_same_clock_as_its_events() -> None:
    behind, right = simple(1, 3, start_ns=1_000), simple(1, 3, start_ns=9_000)
    behind.start_ns, right.start_ns = 400, 8_000
    behind.processes["start_ns"] = 300
    corrected = moved(behind, 7_000)
    assert (corrected.start_ns, corrected["time_ns"][0]) == (7_400, 9_000)
    assert corrected.processes["start_ns"].tolist()[1:] == [7_300] * (len(behind.processes) - 1)
    assert moved(corrected, -7_000).start_ns == 400
    # Of several the first one counts, and one that does not know says nothing.
    for start_ns in (8_000, 0):
        right.start_ns = start_ns
        parts = [merged.events for merged in merge([[behind], [right]], [7_000, 0])]
        assert concatenate(parts).start_ns == 7_400
    assert moved(right, 5).start_ns == 0
