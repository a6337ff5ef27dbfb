"""What may be traced and at what cost, how a collector speaks, and what is held of a trace."""

from __future__ import annotations

import io
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.core.trace.filter import compile_filter
from hostlerd.tracing.collector.wanted import Wanted
from hostlerd.tracing.kernel import frames
from hostlerd.tracing.kernel.collecting import Blocks
from hostlerd.tracing.kernel.frames import Block, Kind
from hostlerd.tracing.model.trace import DEFAULT, MOST, Budget, Payload, Spec
from hostlerd.tracing.plan import trace as plan

NOW_NS = 1_800_000_000_000_000_000
BUDGETS = st.builds(
    Budget,
    duration_s=st.floats(0, 1e9),
    events=st.integers(0, 2**62),
    size_bytes=st.integers(0, 2**62),
    ring_bytes=st.sampled_from([0, 1 << 16, 1 << 20, 1 << 30]),
    cpu_share=st.floats(0, 64),
)


def fields_at_fault(spec: Spec = Spec(), payload: Payload = Payload()) -> list[str]:  # noqa: B008
    return [field for field, _ in plan.faults(spec, payload, NOW_NS)]


def test_what_is_empty_is_right() -> None:
    assert fields_at_fault() == []


def test_all_faults_are_told_at_once() -> None:
    spec = Spec(
        filter="x" * 20_000,
        pids=(0, 1, 1 << 23),
        cgroup="/a/../b",
        start_unix_ns=NOW_NS + 61_000_000_000,
        budget=Budget(duration_s=-1.0, events=-1, ring_bytes=70_000, cpu_share=float("nan")),
    )
    assert fields_at_fault(spec, Payload(data_bytes=65536)) == [
        *("spec.filter", "spec.pids[0]", "spec.pids[2]", "spec.cgroup", "spec.start_time"),
        *("payload.data_bytes", "spec.budget.duration", "spec.budget.events"),
        *("spec.budget.cpu_share", "spec.budget.ring_bytes"),
    ]
    assert "spec.pids" in fields_at_fault(Spec(pids=tuple(range(1, 1002))))


@pytest.mark.parametrize("cgroup", ["a", "/", "//a", "/a\n", "/a/..", "/" + "a" * 256])
def test_a_control_group_is_a_path(cgroup: str) -> None:
    assert fields_at_fault(Spec(cgroup=cgroup)) == ["spec.cgroup"]
    assert fields_at_fault(Spec(cgroup="/system.slice/a..b@c.service")) == []


@given(BUDGETS)
def test_a_budget_is_filled_in_and_cut_down_to_what_is_allowed(asked: Budget) -> None:
    budget, cut = plan.allowed(asked)
    for each in fields(Budget):
        wanted, given_ = getattr(asked, each.name), getattr(budget, each.name)
        assert given_ == min(wanted or getattr(DEFAULT, each.name), getattr(MOST, each.name))
    assert len(cut) == sum(
        getattr(asked, each.name) > getattr(MOST, each.name) for each in fields(Budget)
    )
    assert plan.allowed(budget) == (budget, ())


def test_a_filter_cannot_ask_for_what_the_trace_does_not_carry() -> None:
    needs = {"data", "cmdline", "environ"}
    assert len(plan.withheld(needs, Payload())) == 3
    assert plan.withheld({"cmdline"}, Payload(data_bytes=10))[0][1].startswith("looks at command")
    assert plan.withheld(needs, Payload(1, True, True)) == ()


CONTENTS = st.one_of(
    st.builds(Block, st.binary(max_size=50), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)),
    st.tuples(
        st.sampled_from([Kind.READY, Kind.STANDING, Kind.END]),
        st.dictionaries(st.text(max_size=3), st.integers(), max_size=3),
    ),
)


@given(st.lists(CONTENTS, max_size=5), st.data())
def test_frames_are_read_as_they_were_written_and_a_cut_is_told(
    contents: list[Block | tuple[Kind, dict[str, int]]], data: st.DataObject
) -> None:
    pipe = io.BytesIO()
    ends = [0]
    for content in contents:
        if isinstance(content, Block):
            frames.write_block(pipe, content)
        else:
            frames.write(pipe, *content)
        ends.append(pipe.tell())
    written = pipe.getvalue()
    source = io.BytesIO(written)
    for content in contents:
        expected = (Kind.BLOCK, content) if isinstance(content, Block) else content
        assert frames.read(source) == expected
    assert frames.read(source) is None
    cut = data.draw(st.integers(0, len(written)))
    source = io.BytesIO(written[:cut])
    if cut in ends:
        for _ in range(ends.index(cut)):
            assert frames.read(source) is not None
        assert frames.read(source) is None
    else:
        with pytest.raises(frames.FrameInvalid):
            while frames.read(source) is not None:
                pass


@pytest.mark.parametrize(
    "data",
    [b"\x09\x00\x00\x00\x00", b"\x02\xff\xff\xff\xff", b"\x01\x02\x00\x00\x00[]", b"\x02\0\0\0\0"],
)
def test_what_is_no_frame_is_refused(data: bytes) -> None:
    with pytest.raises(frames.FrameInvalid):
        frames.read(io.BytesIO(data))


@given(st.lists(st.integers(0, 40), max_size=30), st.data())
def test_who_comes_too_late_is_told_how_much_was_missed(
    sizes: list[int], data: st.DataObject
) -> None:
    blocks = Blocks(most_bytes=100)
    after, seen, missed = 0, [], 0
    for number, size in enumerate(sizes, 1):
        blocks.put(Block(b"x" * size, number, 0))
        if data.draw(st.booleans()):
            taken = blocks.take(after, data.draw(st.integers(1, 5)))
            seen += [block.events for _, block in taken.blocks]
            assert [seq for seq, _ in taken.blocks] == [block.events for _, block in taken.blocks]
            missed += taken.missed
            after = taken.seq
    assert len(seen) + missed == after
    assert seen == sorted(set(seen))


def test_the_engine_keeps_calls_that_have_no_name_here_if_the_filter_passes_them() -> None:
    def kept(text: str) -> frozenset[str]:
        wanted = Wanted(Spec(filter=text), Payload(), ())
        return wanted.capture(compile_filter(text)).filter.syscalls

    assert kept("evt.type=openat") == {"openat"}
    # All but one: a call that came with a later kernel is among them.
    assert kept("evt.type!=openat") == frozenset()
