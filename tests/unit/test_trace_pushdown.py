"""What the kernel decides of a filter: never less than what the filter passes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trace_rows import Call, Process, batch
from trace_trees import BATCHES, TREES, shown

from hostler.core.trace.events import Events, Flag
from hostler.core.trace.filter import compile_filter
from hostler.core.trace.pushdown import FIRST_UNBOUND_CALL, Pushdown, push_down

READ, WRITE, EXECVE, OPEN, GETPID = 0, 1, 59, 2, 39


def bounds(text: str) -> Pushdown:
    return push_down(compile_filter(text))


def ancestors(events: Events, row: int) -> Iterator[int]:
    while row:
        yield int(events.processes["pid"][row])
        yield int(events.processes["ppid"][row])
        row = int(events.processes["parent"][row])


def passes(pushed: Pushdown, events: Events, i: int) -> bool:
    """What a kernel with these bounds does with an event."""
    number, flags = int(events["syscall"][i]), Flag(int(events["flags"][i]))
    row, result = int(events["process"][i]), int(events["result"][i])
    process = events.processes[row]
    listed = pushed.syscalls_32 if flags & Flag.IS_32_BIT else pushed.syscalls
    is_bound = listed is not None and number < FIRST_UNBOUND_CALL
    within = pushed.pids is None or process["pid"] in pushed.pids
    below = not pushed.roots or bool(pushed.roots & set(ancestors(events, row)))
    finished = not flags & Flag.UNFINISHED
    return (
        (not is_bound or number in (listed or ()))
        and (pushed.comms is None or events.texts[process["name"]] in pushed.comms)
        and (within or (bool(pushed.roots) and below))
        and (pushed.cgroups is None or events.texts[process["cgroup"]] in pushed.cgroups)
        and (not pushed.failed_only or (finished and -4095 <= result < 0))
        and int(events["latency_ns"][i]) >= pushed.min_latency_ns
    )


@given(TREES, BATCHES)
def test_what_a_filter_passes_the_kernel_passes(tree: Any, events: Events) -> None:
    wanted = compile_filter(shown(tree))
    pushed = push_down(wanted)
    for i in wanted.matches(events).nonzero()[0].tolist():
        assert passes(pushed, events, i), (pushed, wanted.text)


PUSHED = st.sampled_from(
    [
        *("proc.pid=7", "proc.pid in (1, 7)", "proc.apid=700", "proc.ppid=1", "proc.name=sshd"),
        *("proc.name in (cat, bash)", "evt.type=read", "evt.type!=open", "evt.failed=true"),
        *("evt.res!=SUCCESS", "evt.res=ENOENT", "evt.rawres=-2", "evt.rawres<0", "evt.latency>1us"),
        *("evt.latency<1ms", "evt.wait_latency>=1", "evt.is_io=true", "evt.category=file"),
        *("evt.arg.flags contains O_", "evt.is_open_read=true", "evt.is_syslog=true"),
        *("thread.cgroup=/system.slice/ssh.service", "evt.buflen>0", "evt.count.error=1"),
        *("evt.syscall.is32=true", "evt.type.is.open=1", "proc.apid[1]=700", "proc.apid[0]=7"),
    ]
)
PUSHED_TREES = st.recursive(
    PUSHED,
    lambda inner: st.one_of(
        inner.map("not ({})".format),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(
            lambda parts: "({}) {} ({})".format(*parts)
        ),
    ),
    max_leaves=5,
)


@given(PUSHED_TREES, BATCHES)
def test_what_filters_of_bounds_pass_the_kernel_passes(text: str, events: Events) -> None:
    wanted = compile_filter(text)
    pushed = push_down(wanted)
    for i in wanted.matches(events).nonzero()[0].tolist():
        assert passes(pushed, events, i), (pushed, wanted.text)


def test_nothing_is_bound_without_a_filter_or_by_what_the_kernel_does_not_know() -> None:
    for text in ("", "fd.name contains /etc", "proc.name=a or fd.num=3", "not proc.pid=7"):
        assert bounds(text) == Pushdown()


def test_the_contrary_of_a_conjunction_is_bound_by_none_of_its_tests() -> None:
    assert bounds("not (evt.type=read and evt.failed=false)") == Pushdown()
    assert bounds("not (evt.type!=read or evt.failed=false)") == Pushdown(
        syscalls=frozenset({READ}), syscalls_32=frozenset({3}), failed_only=True
    )


def test_a_conjunction_is_bound_by_each_of_its_tests() -> None:
    pushed = bounds(
        "proc.name=sshd and evt.type in (read, open) and evt.latency > 1ms and fd.num=3"
    )
    assert pushed == Pushdown(
        syscalls=frozenset({READ, OPEN}),
        syscalls_32=frozenset({3, 5}),
        comms=frozenset({b"sshd"}),
        min_latency_ns=1_000_001,
    )


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("evt.type=read", [READ], [WRITE, EXECVE, 600]),
        ("evt.type=pread", [17], [READ]),
        ("evt.syscall.name=pread64", [17], [READ]),
        ("evt.type!=read", [WRITE, EXECVE, 600], [READ]),
        ("not evt.type in (read, write)", [EXECVE, 600], [READ, WRITE]),
        ("evt.type startswith exec", [EXECVE, 322], [READ]),
        ("evt.is_io=true", [READ, WRITE], [EXECVE]),
        ("not evt.is_io=true", [EXECVE, 600], [READ, WRITE]),
        ("evt.io_dir=write", [WRITE], [READ]),
        ("evt.type.is.open=1", [OPEN], [READ]),
        ("evt.category=process", [EXECVE, GETPID, READ], [OPEN, 600]),
        ("evt.is_open_write=true", [OPEN, 257], [READ]),
        ("evt.is_open_write!=false", [OPEN, 257], [READ]),
        ("not evt.is_open_write=false", [OPEN, 257], [READ]),
        ("evt.arg.flags contains O_TRUNC", [OPEN, 257], [READ]),
        ("evt.rawarg.count > 100", [READ, WRITE], [OPEN]),
        ("syslog.message contains x", [WRITE, 44], [READ]),
        ("evt.buflen > 100", [READ, WRITE], [OPEN]),
        ("evt.wait_latency > 1s", [7, 35], [READ]),
    ],
)
def test_calls_are_bound_by_what_a_filter_says_of_them(
    text: str, inside: list[int], outside: list[int]
) -> None:
    syscalls = bounds(text).syscalls
    assert syscalls is not None
    assert syscalls >= set(inside)
    assert not syscalls & set(outside)


@pytest.mark.parametrize(
    "text", ["evt.is_open_read=false", "evt.is_syslog!=true", "not evt.arg.flags contains O_TRUNC"]
)
def test_what_other_calls_pass_too_binds_no_calls(text: str) -> None:
    assert bounds(text).syscalls is None


def test_32_bit_calls_have_their_own_numbers() -> None:
    assert bounds("evt.syscall.is32=true").syscalls == frozenset()
    assert bounds("evt.type=waitpid") == Pushdown(frozenset(), frozenset({7}))


@pytest.mark.parametrize(
    "text",
    [
        *("evt.failed=true", "evt.failed!=false", "not evt.failed=false", "evt.res!=SUCCESS"),
        *(
            "evt.res=ENOENT",
            "evt.res in (ENOENT, EACCES)",
            "evt.rawres=-2",
            "evt.rawres in (-1, -2)",
        ),
        *("evt.count.error=1", "evt.count.error.file exists", "evt.res startswith E"),
    ],
)
def test_failed_calls_alone_are_wanted(text: str) -> None:
    assert bounds(text).failed_only


@pytest.mark.parametrize(
    "text",
    [
        *("evt.failed=false", "not evt.res=SUCCESS", "not evt.res=ENOENT", "evt.rawres<0"),
        *(
            "evt.rawres = -5000",
            "evt.rawres in (-1, 0)",
            "evt.res exists",
            "evt.failed=true or evt.latency>1s",
        ),
    ],
)
def test_other_calls_are_wanted_too(text: str) -> None:
    assert not bounds(text).failed_only


@pytest.mark.parametrize(
    ("text", "latency_ns"),
    [
        ("evt.latency > 1ms", 1_000_001),
        ("evt.latency >= 1ms", 1_000_000),
        ("evt.latency = 5", 5),
        ("evt.latency in (7, 5)", 5),
        ("evt.latency < 1ms", 0),
        ("evt.latency != 5", 0),
        ("not evt.latency < 1ms", 0),
        ("evt.latency > 1ms and evt.latency > 2ms", 2_000_001),
        ("evt.latency > 1ms or evt.latency > 2ms", 1_000_001),
    ],
)
def test_latency_is_bound_from_below(text: str, latency_ns: int) -> None:
    assert bounds(text).min_latency_ns == latency_ns


@pytest.mark.parametrize(
    ("text", "pids", "roots"),
    [
        ("proc.pid=7", {7}, set()),
        ("proc.pid in (7, 8) and proc.pid in (8, 9)", {8}, set()),
        ("proc.pid=7 or proc.pid=8", {7, 8}, set()),
        ("proc.pid=7 or proc.apid=7", {7}, {7}),
        ("proc.ppid=7", set(), {7}),
        ("proc.apid[2]=7", set(), {7}),
        ("proc.apid[0]=7", {7}, set()),
        ("proc.pid=8 and proc.apid=7", {8}, set()),
        ("proc.apid=7 and proc.pid=8", {8}, set()),
        ("proc.pid=-1", set(), set()),
    ],
)
def test_processes_are_bound_by_pid_and_by_ancestor(
    text: str, pids: set[int], roots: set[int]
) -> None:
    assert (bounds(text).pids, bounds(text).roots) == (pids, roots)


def test_names_are_bound_by_what_the_kernel_keeps_of_them() -> None:
    assert bounds("proc.name=systemd-timesyncd").comms == {b"systemd-timesyn"}
    assert bounds("proc.name=a or proc.name in (b, c)").comms == {b"a", b"b", b"c"}
    assert bounds("proc.name=a and proc.name=b").comms == frozenset()
    assert bounds("proc.name startswith a").comms is None


def test_the_witness_of_these_tests_refuses_what_is_outside() -> None:
    sshd = Process(7, "sshd", cgroup="/a")
    events = batch([Call("read", process=sshd), Call("write", result=-2, latency_ns=10)])
    for text, expected in {
        "evt.type=read": [True, False],
        "proc.name=sshd": [True, False],
        "proc.pid=7": [True, False],
        "proc.apid=9": [False, False],
        "thread.cgroup=/a": [True, False],
        "evt.failed=true": [False, True],
        "evt.latency>5": [False, True],
    }.items():
        pushed = bounds(text)
        assert [passes(pushed, events, i) for i in range(2)] == expected
