"""Memory, I/O, links and sockets: the arithmetic of what the kernel counts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostlerd.tracing.model.io import DeviceCount, IoReading, ProcessCount
from hostlerd.tracing.model.link import LinkCount, LinkReading, rates
from hostlerd.tracing.model.memory import Zones
from hostlerd.tracing.model.socket import Entry, Selection, joined, select
from hostlerd.tracing.plan.io import device_rates, explain, process_rates
from hostlerd.tracing.plan.memory import account, estimate_available

MIB = 1 << 20
INFO = {
    "MemTotal": 1000 * MIB,
    "MemFree": 300 * MIB,
    "MemAvailable": 450 * MIB,
    "Buffers": 20 * MIB,
    "Cached": 280 * MIB,
    "Shmem": 100 * MIB,
    "AnonPages": 250 * MIB,
    "Active(file)": 120 * MIB,
    "Inactive(file)": 80 * MIB,
    "SReclaimable": 60 * MIB,
    "SUnreclaim": 40 * MIB,
    "KernelStack": 4 * MIB,
    "PageTables": 6 * MIB,
    "VmallocUsed": 14 * MIB,
    "Percpu": 5 * MIB,
    "HugePages_Total": 10,
    "Hugepagesize": 2 * MIB,
}
NO_ZONES = Zones(0, 0)


def parts(info: dict[str, int]) -> dict[str, int]:
    return {part.name: part.bytes for part in account(info, NO_ZONES).parts}


def test_tmpfs_is_not_cache_and_stacks_count_once() -> None:
    found = {name: size // MIB for name, size in parts(INFO).items()}
    assert found["page_cache"] == 200
    assert found["tmpfs"] == 100
    assert found["vmalloc"] == 10
    assert found["huge_pages"] == 20
    assert sum(found.values()) == 1000
    assert found["other"] == 1000 - 300 - 200 - 100 - 250 - 60 - 40 - 6 - 4 - 10 - 5 - 20
    assert account(INFO, NO_ZONES).unaccounted_percent == pytest.approx(0.5)
    assert account(INFO, NO_ZONES).used == 550 * MIB


def test_what_goes_to_tmpfs_lowers_available_and_not_the_old_formula() -> None:
    """300 MiB into /dev/shm: from free to cached and shmem."""
    moved = 300 * MIB
    after = {
        **INFO,
        "MemFree": INFO["MemFree"] - moved,
        "Cached": INFO["Cached"] + moved,
        "Shmem": INFO["Shmem"] + moved,
    }
    del after["MemAvailable"]
    was, now = account({**INFO}, NO_ZONES), account(after, NO_ZONES)
    assert was.free_buffers_cached == now.free_buffers_cached
    assert parts(after)["tmpfs"] - parts(INFO)["tmpfs"] == moved
    assert now.is_estimate and not was.is_estimate
    before = estimate_available(INFO, NO_ZONES)
    assert before - now.available == moved


def test_the_estimate_leaves_the_kernel_what_it_keeps() -> None:
    zones = Zones(low=10 * MIB, reserve=25 * MIB)
    # 300 - 25 free, 200 of files and 60 of slab, each less 10.
    assert estimate_available(INFO, zones) == (275 + 190 + 50) * MIB


@given(
    st.dictionaries(st.sampled_from([*INFO, "Hugetlb", "KReclaimable"]), st.integers(0, 1 << 50))
)
def test_no_numbers_are_too_odd(info: dict[str, int]) -> None:
    found = account(info, NO_ZONES)
    assert all(part.bytes >= 0 for part in found.parts)
    assert all(0 <= part.reclaimable <= part.bytes for part in found.parts)


def reading(at_s: float, *counts: ProcessCount, **devices: DeviceCount) -> IoReading:
    return IoReading(at_s, 0.0, {each.pid: each for each in counts}, devices, True)


DD = ProcessCount(5, 100, "dd", False, 1000, 2000, 0, 10)


def test_rates_are_of_the_time_between_two_readings() -> None:
    later = replace(DD, read=3000, written=12000, blocked_ticks=110)
    (rate,) = process_rates(reading(1.0, DD), reading(3.0, later))
    assert (rate.read, rate.written, rate.blocked_percent) == (1000, 5000, 50)
    assert process_rates(reading(1.0, DD), reading(3.0, DD)) == []
    assert process_rates(reading(1.0, DD), reading(1.0, later)) == []


def test_a_number_that_is_another_process_now_starts_at_nothing() -> None:
    other = replace(DD, started_ticks=200, read=500, written=0, blocked_ticks=0)
    (rate,) = process_rates(reading(0.0, DD), reading(1.0, other))
    assert (rate.read, rate.written) == (500, 0)


def test_the_busiest_come_first_and_only_so_many() -> None:
    counts = [replace(DD, pid=pid, written=pid * 1000) for pid in range(1, 6)]
    busy = process_rates(reading(0.0), reading(1.0, *counts), top=2)
    assert [rate.count.pid for rate in busy] == [5, 4]


def test_delays_are_not_told_where_they_are_not_counted() -> None:
    later = replace(reading(2.0, replace(DD, read=9000)), counts_delays=False)
    (rate,) = process_rates(reading(1.0, DD), later)
    assert rate.blocked_percent is None


def test_devices_that_do_nothing_are_left_out() -> None:
    idle, busy = DeviceCount("sda", 1, 1, 1, 0), DeviceCount("sdb", 0, 0, 0, 0)
    later = reading(2.0, sda=idle, sdb=replace(busy, written=4096, busy_ms=500))
    (rate,) = device_rates(reading(1.0, sda=idle, sdb=busy), later)
    assert (rate.count.name, rate.written, rate.busy_percent) == ("sdb", 4096, 50)
    stuck = reading(2.0, sda=replace(idle, in_flight=3))
    assert [r.count.name for r in device_rates(reading(1.0, sda=idle), stuck)] == ["sda"]


@pytest.mark.parametrize(
    ("comm", "word"),
    [
        ("ext4lazyinit", "inode tables"),
        ("jbd2/sda1-8", "journal"),
        ("kswapd0", "frees memory"),
        ("md0_resync", "resync"),
        ("kworker/u8:3+flush-8:0", "writeback"),
        ("kworker/0:1", "put off"),
        ("loop0", "loop device"),
        ("something", ""),
    ],
)
def test_threads_of_the_kernel_are_explained(comm: str, word: str) -> None:
    assert word in explain(comm)
    count = replace(DD, comm=comm, is_kernel=True, read=5000)
    (rate,) = process_rates(reading(1.0, DD), reading(2.0, count))
    assert rate.explanation == explain(comm)
    # A program that only calls itself so is not one.
    (rate,) = process_rates(reading(1.0, DD), reading(2.0, replace(count, is_kernel=False)))
    assert rate.explanation == ""


def test_a_thread_that_counts_no_bytes_is_seen_at_work() -> None:
    thread = replace(DD, comm="ext4lazyinit", is_kernel=True, runs=10)
    (rate,) = process_rates(reading(1.0, thread), reading(3.0, replace(thread, runs=30)))
    assert (rate.runs, rate.read, rate.written) == (10, 0, 0)
    assert process_rates(reading(1.0, thread), reading(3.0, thread)) == []
    # Others work for much else.
    other = replace(thread, comm="kworker/0:1")
    assert process_rates(reading(1.0, other), reading(3.0, replace(other, runs=30))) == []


def test_links_have_rates_from_the_second_reading_on() -> None:
    before = LinkCount("eth0", 1000, 500, 10, 5, 0)
    after = LinkCount("eth0", 2000, 700, 20, 7, 2)
    first = LinkReading(1.0, 0.0, {"eth0": before})
    second = LinkReading(3.0, 0.0, {"eth0": after})
    assert rates(None, first)[0].rx_bits == 0
    (rate,) = rates(first, second)
    assert (rate.rx_bits, rate.tx_bits, rate.rx_packets, rate.lost) == (4000, 800, 5, 1)
    # Made anew: what it shows it has carried since.
    (rate,) = rates(second, LinkReading(4.0, 0.0, {"eth0": before}))
    assert rate.rx_bits == 8000
    assert len(rates(None, LinkReading(1.0, 0.0, {n: before for n in "abc"}), top=2)) == 2


def test_sockets_are_selected_and_paged() -> None:
    entries = [
        Entry("tcp", "LISTEN", "*:22", "", 0, 0, 7, (1,)),
        Entry("tcp", "ESTABLISHED", "a:1", "b:2", 0, 0, 5, (2, 1)),
        Entry("unix-stream", "LISTEN", "/run/x", "", 0, 5, 3, (1,)),
        Entry("unix-dgram", "CLOSE", "/run/y", "", 0, 0, 9),
    ]
    start = ("", 0)
    assert [e.inode for e in select(entries, Selection(), start)] == [5, 7, 9, 3]
    assert [e.inode for e in select(entries, Selection("unix"), start)] == [9, 3]
    assert [e.inode for e in select(entries, Selection(listening=True), start)] == [7, 3]
    assert [e.inode for e in select(entries, Selection("tcp", pid=2), start)] == [5]
    assert [e.inode for e in select(entries, Selection(), ("tcp", 5))] == [7, 9, 3]
    assert (joined("::1", 22), joined("192.0.2.1", 0)) == ("[::1]:22", "192.0.2.1:*")
