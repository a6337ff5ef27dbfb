"""What two looks at tasks mean: who is stuck, on what, held by whom."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostlerd.tracing.model.evidence import (
    Details,
    Evidence,
    Filesystem,
    Futex,
    Opener,
    Peer,
    Process,
    Target,
    TargetKind,
)
from hostlerd.tracing.model.finding import Finding, WaitKind
from hostlerd.tracing.model.task import Call, DiskCounters, Sample, Task
from hostlerd.tracing.plan import stuck

PRIVATE_WAIT = 0x80
READ = Call("read", (3, 0, 0, 0, 0, 0), fd=3)
WRITE = Call("write", (4, 0, 0, 0, 0, 0), fd=4)
NAMES = {pid: Process(pid, f"p{pid}") for pid in range(1, 60)}


def task(pid: int, call: Call | None = None, **more: object) -> Task:
    base = Task(pid, pid, f"p{pid}", "S", 1, 100, call=call, runs=7)
    return replace(base, **more)  # type: ignore[arg-type]


def futex(address: int = 0x1000, operation: int = PRIVATE_WAIT, timeout: int = 0) -> Call:
    return Call("futex", (address, operation, 2, timeout, 0, 0))


def look(*tasks: Task, disks: dict[str, DiskCounters] | None = None) -> Sample:
    return Sample({each.tid: each for each in tasks}, disks or {})


def judge(first: Sample, evidence: Evidence, second: Sample | None = None) -> list[Finding]:
    second = second or first
    evidence = replace(evidence, processes=NAMES)
    waits = stuck.stuck(first, stuck.waiting(first, second), evidence)
    kinds = {wait.task.tid: wait.kind for wait in waits}
    seen = stuck.Seen(first, second, evidence, kinds, {})
    return list(stuck.findings(stuck.grouped(waits, evidence), seen))


def test_who_waits_for_work_is_not_stuck() -> None:
    idle = [
        task(2, Call("epoll_wait", (4, 0, 0, 0, 0, 0), fd=4)),
        task(3, Call("wait4", (0, 0, 0, 0, 0, 0))),
        task(4, futex(timeout=0x5000)),
        task(5, state="R"),
        task(6, None, is_kernel=True, state="I"),
    ]
    assert stuck.suspects(look(*idle)) == ()


def test_who_has_run_between_the_looks_is_not_stuck() -> None:
    before, after = task(2, state="D"), task(2, state="D", runs=8)
    assert judge(look(before), Evidence(), look(after)) == []
    assert len(judge(look(before), Evidence(), look(before))) == 1


def test_a_number_that_is_another_process_now_is_not_stuck() -> None:
    before, after = task(2, READ), task(2, READ, started_ticks=999)
    assert stuck.waiting(look(before), look(after)) == ()


def test_the_owner_of_a_mutex_is_named() -> None:
    waiter = task(2, futex(), tid=21)
    first = look(task(2, futex(0x2000, timeout=1)), waiter, task(9, READ))
    evidence = Evidence(futexes={21: Futex(owner=2)})
    (found,) = judge(first, evidence)
    assert (found.kind, found.holders[0].process.pid) == (WaitKind.FUTEX, 2)
    assert found.sentence == (
        "p2 (2), thread p2 (21), waits in futex; p2 (2) owns the lock, itself in futex"
    )


def test_an_owner_that_ended_is_told() -> None:
    evidence = Evidence(futexes={2: Futex(owner=7, owner_is_gone=True)})
    (found,) = judge(look(task(2, futex()), task(2, READ, tid=22)), evidence)
    assert found.sentence.endswith("the owner of the lock, 7, is gone")


def test_threads_that_only_wait_for_each_other_are_stuck() -> None:
    threads = [task(2, futex(), tid=tid) for tid in (2, 21, 22)]
    evidence = Evidence(futexes={tid: Futex() for tid in (2, 21, 22)})
    (found,) = judge(look(*threads), evidence)
    assert found.same_threads == 2
    assert "nobody seen could wake them" in found.sentence
    # One that could wake them makes a pool of workers of it.
    awake = task(2, Call("epoll_wait", (4, 0, 0, 0, 0, 0)), tid=23)
    assert judge(look(*threads, awake), evidence) == []


@pytest.mark.parametrize(
    ("opened", "is_stuck"),
    [
        ((), True),
        ((Opener(2, 3, True, False),), True),
        ((Opener(2, 4, False, True),), True),
        ((Opener(8, 5, True, False),), True),
        ((Opener(8, 5, False, True),), False),
    ],
)
def test_a_pipe_that_nobody_else_writes_is_stuck(
    opened: tuple[Opener, ...], is_stuck: bool
) -> None:
    evidence = Evidence(targets={2: Target(TargetKind.PIPE, "pipe:[5]")}, openers={2: opened})
    found = judge(look(task(2, READ), task(8, Call("poll", (0,) * 6))), evidence)
    assert bool(found) is is_stuck
    # Where somebody hides, nobody can be said to be nobody.
    hiding = judge(look(task(2, READ)), replace(evidence, hidden=1))
    assert not hiding


def test_a_full_pipe_names_who_should_read_it() -> None:
    evidence = Evidence(
        targets={2: Target(TargetKind.PIPE, "pipe:[5]")},
        openers={2: (Opener(8, 0, True, False), Opener(2, 4, False, True))},
    )
    (found,) = judge(look(task(2, WRITE), task(8, state="T")), evidence)[1:]
    assert found.sentence == (
        "p2 (2) waits in write on fd 4 → pipe:[5]; p8 (8) has the end to read from and is "
        "suspended by a signal"
    )


def test_a_chain_is_followed_to_its_end() -> None:
    """5 asks 4 by a socket, 4 reads what 3 should write, and 3 is frozen: all three are stuck."""
    first = look(task(5, READ), task(4, READ), task(3, Call("poll", (0,) * 6)))
    evidence = Evidence(
        targets={
            5: Target(TargetKind.SOCKET, "socket:[1]"),
            4: Target(TargetKind.PIPE, "pipe:[2]"),
        },
        peers={5: Peer("a unix socket to /run/x", (4,), 0)},
        openers={4: (Opener(3, 1, False, True),)},
        frozen={3: "/system.slice/x"},
    )
    found = judge(first, evidence)
    assert [each.process.pid for each in found] == [3, 4, 5]
    assert found[1].holders[0].trouble == "is frozen with its control group /system.slice/x"
    assert found[2].holders[0].trouble == "is stuck itself"
    assert judge(first, replace(evidence, frozen={})) == []


def test_the_full_disk_of_a_suspended_daemon_is_told() -> None:
    device = Target(TargetKind.DEVICE, "/dev/audit")
    call = Call("ioctl", (3, 0, 0, 0, 0, 0), fd=3)
    evidence = Evidence(
        targets={31: device},
        openers={31: (Opener(31, 3, True, True), Opener(4, 5, True, True))},
        writes_to={4: Filesystem("/var/log/audit", "ext4", "/dev/sda1", 83.2)},
    )
    found = judge(look(task(31, call), task(4, state="T")), evidence)
    assert found[1].sentence == (
        "p31 (31) waits in ioctl on fd 3 → /dev/audit; p4 (4) has it open and is suspended by a "
        "signal and its disk at /var/log/audit is 83 % full"
    )
    assert found[1].filesystem is not None


def test_who_serves_a_device_of_the_network_holds_up_who_waits_for_it() -> None:
    waits, client = task(2, READ, state="D"), task(5, Call("ioctl", (3, 0, 0, 0, 0, 0), fd=3))
    server = task(6, state="T")
    target = Target(TargetKind.BLOCK_DEVICE, "/dev/nbd0", None, "43:0")
    first = look(waits, client, server, disks={"43:0": DiskCounters("nbd0", 100, 3)})
    found = judge(first, Evidence(targets={2: target}, servers={2: (5, 6)}))
    assert [each.process.pid for each in found] == [6, 2]
    assert found[1].sentence.endswith(
        "; p5 (5) serves the device, itself in ioctl;"
        " p6 (6) serves the device and is suspended by a signal"
    )


def test_a_disk_that_does_not_answer_is_named() -> None:
    place = Filesystem("/data", "ext4", "/dev/sdb1")
    evidence = Evidence(targets={2: Target(TargetKind.FILE, "/data/x", place, "8:17")})
    waits = task(2, Call("fsync", (3, 0, 0, 0, 0, 0), fd=3), state="D")
    first = look(waits, disks={"8:17": DiskCounters("sdb1", 100, 3)})
    second = look(waits, disks={"8:17": DiskCounters("sdb1", 100, 4)})
    (found,) = judge(first, evidence, second)
    assert found.kind is WaitKind.STORAGE
    assert "sdb1 (8:17) has 4 requests in flight and finished 0 meanwhile" in found.sentence


def test_whoever_is_asked_for_is_told_whatever_it_does() -> None:
    first = look(task(2, Call("epoll_wait", (4, 0, 0, 0, 0, 0), fd=4)), task(3, READ))
    waits = stuck.as_asked(first, first, Evidence(), {2})
    assert [(wait.task.pid, wait.kind) for wait in waits] == [(2, WaitKind.IDLE)]
    assert stuck.named(first, "p3") == {3}
    later = look(task(2, READ, runs=9))
    ran = stuck.as_asked(look(task(2, READ)), later, Evidence(), {2})
    assert [wait.kind for wait in ran] == [WaitKind.RUNNING]


def test_a_lock_of_a_file_names_all_who_share_it() -> None:
    call = Call("flock", (5, 2, 0, 0, 0, 0), fd=5)
    evidence = Evidence(
        targets={2: Target(TargetKind.FILE, "/var/lock/x")},
        lock_holders={2: (3, 4, 5, 6)},
    )
    (found,) = judge(look(task(2, call), *(task(pid, state="R") for pid in (3, 4, 5))), evidence)
    assert found.kind is WaitKind.FILE_LOCK
    assert found.sentence == (
        "p2 (2) waits in flock on fd 5 → /var/lock/x; p3 (3) holds the lock; p4 (4) holds the "
        "lock; p5 (5) holds the lock; and 1 more do"
    )
    assert found.holders[3].trouble == "has ended"


def test_a_fifo_is_opened_by_nobody_that_can_be_seen() -> None:
    call = Call("openat", (0xFFFFFF9C, 0x7000, 1, 0, 0, 0), path=0x7000)
    evidence = Evidence(
        targets={2: Target(TargetKind.FIFO, "/tmp/fifo")}, wchans={2: "wait_for_partner"}, hidden=1
    )
    (found,) = judge(look(task(2, call)), evidence)
    assert found.kind is WaitKind.FIFO_OPEN
    assert found.sentence == (
        "p2 (2) waits in openat of /tmp/fifo; nobody that can be seen has opened the other end"
    )


def test_a_tracer_is_named() -> None:
    (found,) = judge(look(task(2, state="t"), task(7, READ)), Evidence(tracers={2: 7}))
    assert found.sentence == "p2 (2) is held by a tracer; p7 (7) traces it, itself in read"


def test_a_child_that_is_stuck_is_told_to_who_asks_for_its_parent() -> None:
    first = look(task(2, Call("wait4", (0,) * 6)), task(3, state="T", parent=2))
    waits = stuck.as_asked(first, first, Evidence(), {2})
    seen = stuck.Seen(first, first, Evidence(processes=NAMES), {3: WaitKind.STOPPED}, {})
    (found,) = stuck.findings(stuck.grouped(waits, Evidence()), seen)
    assert found.kind is WaitKind.CHILD
    assert found.holders[0].trouble == "is suspended by a signal"


def test_the_server_of_a_file_system_is_named() -> None:
    place = Filesystem("/mnt", "fuse", "none")
    evidence = Evidence(
        targets={2: Target(TargetKind.FILE, "/mnt/x", place)},
        wchans={2: "request_wait_answer"},
        openers={2: (Opener(8, 3, True, True),)},
    )
    call = Call("newfstatat", (0, 0x7000, 0, 0, 0, 0), path=0x7000)
    (found,) = judge(look(task(2, call), task(8, state="D")), evidence, None)[1:]
    assert found.kind is WaitKind.STORAGE
    assert "p8 (8) serves such file systems and is held up in the kernel" in found.sentence


def test_a_frozen_file_system_and_a_thread_of_the_kernel() -> None:
    place = Filesystem("/mnt", "ext4", "/dev/sda1")
    evidence = Evidence(
        targets={2: Target(TargetKind.FILE, "/mnt/x", place)},
        wchans={2: "percpu_rwsem_wait", 3: "md_do_sync"},
    )
    call = Call("openat", (0, 0x7000, 0, 0, 0, 0), path=0x7000)
    first = look(task(2, call, state="D"), task(3, state="D", is_kernel=True))
    file, thread = judge(first, evidence)
    assert file.sentence.endswith("the file system is ext4 at /mnt, frozen as it seems")
    assert (thread.kind, thread.sentence) == (
        WaitKind.OTHER,
        "p3 (3) waits in the kernel at md_do_sync",
    )


def test_a_lock_in_shared_memory_is_held_by_those_that_map_it() -> None:
    """Nobody is known to own it: it counts if all of them are in trouble, and not otherwise."""
    call = Call("futex", (0x1000, 0, 1, 0, 0, 0))
    evidence = Evidence(futexes={2: Futex(is_shared=True, mapped_by=(8,))})
    assert judge(look(task(2, call), task(8, READ)), evidence) == []
    found = judge(look(task(2, call), task(8, state="T")), evidence)
    assert [each.process.pid for each in found] == [8, 2]
    assert "p8 (8) has the lock's memory mapped and is suspended" in found[1].sentence


def test_a_device_is_waited_for_in_calls_that_should_be_answered() -> None:
    evidence = Evidence(targets={2: Target(TargetKind.TERMINAL, "/dev/pts/1")})
    assert judge(look(task(2, READ)), evidence) == []
    assert [f.kind for f in judge(look(task(2, WRITE)), evidence)] == [WaitKind.DEVICE]
    # A state D without storage behind it: told by what it is about.
    evidence = Evidence(targets={2: Target(TargetKind.PIPE, "pipe:[1]")})
    assert judge(look(task(2, WRITE, state="D")), evidence)[0].kind is WaitKind.PIPE


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.5, ""), (90, ", for 90 s"), (7200, ", for 2 h"), (200000, ", for 2 d")],
)
def test_times_are_told_in_units(seconds: float, words: str) -> None:
    first = look(task(2, state="T"))
    waits = stuck.stuck(first, stuck.waiting(first, first), Evidence())
    seen = stuck.Seen(first, first, Evidence(), {}, {2: Details(not_run_for_s=seconds)})
    (found,) = stuck.findings(stuck.grouped(waits, Evidence()), seen)
    assert found.sentence == f"p2 (2) is stopped by a signal{words}"


def test_how_long_is_told() -> None:
    first = look(task(2, state="T"))
    waits = stuck.stuck(first, stuck.waiting(first, first), Evidence())
    seen = stuck.Seen(first, first, Evidence(), {}, {2: Details(not_run_for_s=840)})
    (found,) = stuck.findings(stuck.grouped(waits, Evidence()), seen)
    assert found.sentence == "p2 (2) is stopped by a signal, for 14 min"


calls = st.sampled_from(
    [None, READ, WRITE, futex(), futex(timeout=9), Call("poll", (0,) * 6), Call("wait4", (0,) * 6)]
)
tasks = st.lists(
    st.builds(
        task,
        st.integers(2, 12),
        calls,
        state=st.sampled_from("RSDTtZI"),
        tid=st.integers(2, 40),
    ),
    max_size=12,
    unique_by=lambda each: each.tid,
)
evidences = st.builds(
    Evidence,
    targets=st.dictionaries(
        st.integers(2, 40),
        st.builds(Target, st.sampled_from(TargetKind), st.just("x")),
        max_size=8,
    ),
    futexes=st.dictionaries(
        st.integers(2, 40), st.builds(Futex, st.integers(0, 50), st.booleans()), max_size=8
    ),
    openers=st.dictionaries(
        st.integers(2, 40),
        st.lists(
            st.builds(Opener, st.integers(2, 12), st.just(1), st.booleans(), st.booleans()),
            max_size=3,
        ).map(tuple),
        max_size=8,
    ),
    peers=st.dictionaries(
        st.integers(2, 40),
        st.builds(Peer, st.just("x"), st.lists(st.integers(2, 12)).map(tuple)),
        max_size=4,
    ),
    frozen=st.dictionaries(st.integers(2, 12), st.just("/x"), max_size=2),
)


@given(tasks, evidences)
def test_anything_is_judged_and_told(seen: list[Task], evidence: Evidence) -> None:
    first = look(*seen)
    found = judge(first, evidence)
    assert len({each.task.tid for each in found}) == len(found)
    for each in found:
        assert each.task.state != "R" or each.kind is WaitKind.FROZEN
        assert f"({each.task.pid})" in each.sentence
        assert "\n" not in each.sentence
    # Whoever went on in the meantime is never called stuck, unless its group is frozen.
    moved = look(*(replace(each, runs=8) for each in seen))
    assert all(each.kind is WaitKind.FROZEN for each in judge(first, evidence, moved))
