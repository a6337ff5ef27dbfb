"""Limits of a Hostler process, kept by the kernel of a guest.

Each test starts the same program twice, with the limit and without: what is seen of the first is
the limit's doing. Containers of the lab cannot show it, their control groups have no controllers.
"""

from __future__ import annotations

import time

import pytest
from hosts_witness import eventually
from vm_limits import Box
from vm_suite import Suite

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

MIB = 1 << 20
# Takes 120 MiB in steps of 8, says so after each, and stays.
EATER = """
import time
held = []
for step in range(1, 16):
    held.append(b"x" * (8 << 20))
    print("holds", 8 * step, flush=True)
print("has all", flush=True)
time.sleep(600)
"""
# Keeps as many processors busy as it may have.
SPINNERS = "while :; do :; done & while :; do :; done"
# Starts 20 children, says how many there are when one is refused or all are there, and stays.
FORKER = """
import os, time
count = 0
try:
    while count < 20:
        if os.fork() == 0:
            time.sleep(600)
        count += 1
    print("all", count, flush=True)
except OSError as e:
    print("refused", count, e.errno, flush=True)
time.sleep(600)
"""


@pytest.fixture
def box(guests: Suite) -> Box:
    (guest,) = guests.take("vm1")
    guest.wake("netns")
    one = Box(guests, guest)
    one.create()
    return one


def python(program: str) -> list[str]:
    return ["python3", "-IS", "-c", program]


def test_memory(box: Box) -> None:
    box.start("hog", python(EATER), memory_max_bytes=64 * MIB)
    limit = "/sys/fs/cgroup/system.slice/hostler-run-box.hog.service"
    (line,) = eventually(lambda: [x for x in box.kernel_log() if "oom-kill:" in x], 60)
    assert "constraint=CONSTRAINT_MEMCG" in line
    assert f"oom_memcg={limit.removeprefix('/sys/fs/cgroup')}" in line
    # It had most of what it may have, its interpreter included, and nothing beyond.
    held = [int(x.split()[1]) for x in box.lines("hog") if x.startswith("holds")]
    assert 32 <= held[-1] < 64, held
    status = eventually(lambda: (s := box.status("hog")).state == 5 and s, 60)
    assert (status.exit_signal, status.out_of_memory) == ("SIGKILL", True)
    shown = box.guests.cli("-H", "vm1", "netns", "processes", "box").stdout
    assert "SIGKILL out of memory" in shown

    box.start("free", python(EATER))
    eventually(lambda: "has all" in box.lines("free"), 60)
    assert box.group("free", "memory.max") == "max"
    assert int(box.group("free", "memory.current")) > 120 * MIB
    assert not box.status("free").out_of_memory


def test_memory_of_a_run_that_somebody_stays_with(box: Box) -> None:
    run = ("-H", "vm1", "netns", "run", "box")
    command = ("--", *python(EATER.replace("600", "0")))
    done = box.guests.cli(*run, "--memory", "64M", *command, check=False)
    assert done.returncode == 137, done
    assert "has all" not in done.stdout
    assert "vm1: ended by the kernel: out of memory" in done.stderr
    kills = [x for x in box.kernel_log() if "oom-kill:constraint=CONSTRAINT_MEMCG" in x]
    assert len(kills) == 1
    assert "has all" in box.guests.cli(*run, *command).stdout


def test_cpu(box: Box) -> None:
    box.start("spin", ["sh", "-c", SPINNERS], cpu_max_millicpus=400)
    assert box.group("spin", "cpu.max") == "40000 100000"
    used = box.rate("spin", "cpu.stat", "usage_usec", 10) / 1e6
    throttled = box.counts("spin", "cpu.stat")["nr_throttled"]
    print(f"cpu: {used:.3f} of 0.400 processors, throttled {throttled} times")
    # From below it is bounded loosely: this machine may have had no time for the guest.
    assert 0.25 < used < 0.44
    assert throttled > 10
    box.guests.cli("-H", "vm1", "--yes", "netns", "stop", "box", "spin")

    box.start("free", ["sh", "-c", SPINNERS])
    free = box.rate("free", "cpu.stat", "usage_usec", 5) / 1e6
    print(f"cpu: {free:.3f} processors without a limit")
    assert free > 0.8


def test_tasks(box: Box) -> None:
    box.start("fork", python(FORKER), tasks_max=8)
    (line,) = eventually(lambda: box.lines("fork"), 60)
    # Itself and seven more; errno 11 is EAGAIN, see fork(2).
    assert line == "refused 7 11"
    assert box.group("fork", "pids.max") == "8"
    assert box.group("fork", "pids.current") == "8" == box.shown("fork", "TasksCurrent")
    assert box.counts("fork", "pids.events")["max"] >= 1
    assert any("fork rejected by pids controller" in x for x in box.kernel_log())

    box.start("free", python(FORKER))
    assert eventually(lambda: box.lines("free"), 60) == ["all 20"]
    assert box.group("free", "pids.current") == "21"


@pytest.mark.parametrize(
    ("kind", "key", "io_max", "words"),
    [
        ("write", "wbytes", "wbps=1048576", "if=/dev/zero of=DISK oflag=direct"),
        ("read", "rbytes", "rbps=1048576", "if=DISK of=/dev/null iflag=direct"),
    ],
    ids=["write", "read"],
)
def test_disk_bandwidth(box: Box, kind: str, key: str, io_max: str, words: str) -> None:
    disk = box.guest.add_disk("data", 64 * MIB)
    number = box.guest.run(["cat", f"/sys/block/{disk.removeprefix('/dev/')}/dev"]).stdout.strip()

    def outside(seconds: float) -> float:
        """Bytes per second that reach the disk, by QEMU's count and this machine's clock."""
        begun, start = box.guest.disk_traffic("data")[kind], time.monotonic()
        time.sleep(seconds)
        moved = box.guest.disk_traffic("data")[kind] - begun
        return moved / (time.monotonic() - start)

    # Over and over the first 32 MiB, past the page cache.
    once = f"dd {words.replace('DISK', disk)} bs=64k count=512 2>/dev/null"
    endless = ["sh", "-c", f"while {once}; do :; done"]
    limit = {"device": disk, f"{kind}_bytes_per_second": MIB}
    box.start("limited", endless, devices=[limit])
    line = box.group("limited", "io.max").split()
    assert line[0] == number
    assert io_max in line
    inside = box.rate("limited", "io.stat", key, 6, number)
    seen = outside(6)
    print(f"{kind}: {inside / MIB:.2f} (QEMU: {seen / MIB:.2f}) of 1.00 MiB/s")
    assert 0.6 * MIB < inside < 1.15 * MIB
    assert 0.6 * MIB < seen < 1.25 * MIB
    box.guests.cli("-H", "vm1", "--yes", "netns", "stop", "box", "limited")

    # systemd takes the controller away with the last limit, so only the outside can count.
    box.start("free", endless)
    free = outside(4)
    print(f"{kind}: {free / MIB:.1f} MiB/s without a limit")
    assert free > 3 * MIB
