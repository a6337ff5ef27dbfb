"""Tracing where containers cannot show it: stalled devices, threads of the kernel, other clocks."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hosts_witness import eventually
from vm_guest import Guest
from vm_suite import Suite

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

MIB = 1 << 20


@pytest.fixture
def vm1(guests: Suite) -> Guest:
    (guest,) = guests.take("vm1")
    guest.wake("tracing")
    return guest


def started(guest: Guest, name: str, command: str) -> int:
    """Start a command of sh(1) that goes on by itself; answers its process."""
    file = f"/run/{name}.pid"
    guest.start(["sh", "-c", f"echo $$ > {file}; exec {command}"], timeout_s=600)
    shown = eventually(lambda: guest.run(["cat", file], check=False).stdout.strip(), 60)
    return int(shown)


def state(guest: Guest, pid: int) -> str:
    """The letter that proc(5) has for what a process does."""
    return guest.read(f"/proc/{pid}/stat").rpartition(")")[2].split()[0]


def stuck(guests: Suite) -> dict[int, dict[str, Any]]:
    """What is told of each stuck process of vm1."""
    answer = json.loads(guests.cli("-H", "vm1", "-o", "json", "trace", "stuck").stdout)[0]
    assert answer["ok"], answer
    for finding in answer["result"]["findings"]:
        print(finding["sentence"])
    return {each["process"]["pid"]: each for each in answer["result"]["findings"]}


def test_who_waits_for_a_device_that_does_not_answer_is_told_with_who_serves_it(
    guests: Suite, vm1: Guest
) -> None:
    vm1.run(["modprobe", "nbd"])
    server = started(vm1, "server", "nbdkit -f --unix /run/nbd.sock memory 64M")
    eventually(lambda: not vm1.run(["test", "-S", "/run/nbd.sock"], check=False).returncode, 60)
    # By ioctl(2), as qemu-nbd does: then a process stays that has the kernel's socket.
    client = started(vm1, "client", "nbd-client -L -nofork -unix /run/nbd.sock /dev/nbd0")
    eventually(lambda: vm1.read("/sys/block/nbd0/size").strip() != "0", 60)
    vm1.run(["mkfs.ext4", "-q", "/dev/nbd0"])
    vm1.run(["mount", "/dev/nbd0", "/mnt"])
    vm1.run(["kill", "-STOP", str(server)])
    reader = started(vm1, "reader", "dd if=/dev/nbd0 of=/dev/null bs=4k count=1 iflag=direct")
    writer = started(vm1, "writer", "dd if=/dev/zero of=/mnt/file bs=4k count=1 oflag=direct")
    for pid in (reader, writer):
        eventually(lambda pid=pid: state(vm1, pid) == "D", 60)
    told = stuck(guests)
    assert "stopped by a signal" in told[server]["sentence"]
    for pid in (reader, writer):
        found = told[pid]
        assert (found["state"], found["kind"]) == ("D", "WAIT_KIND_STORAGE")
        assert found["block_device"]["name"] == "nbd0"
        # Direct I/O of two processes, and nothing comes back.
        assert found["block_device"]["in_flight"] >= 2
        assert found["block_device"]["completed"] == 0
        held = {each["process"]["pid"]: each for each in found["holders"]}
        assert set(held) == {client, server}
        assert (
            f"nbdkit ({server}) serves the device and is suspended by a signal"
            in (found["sentence"])
        )
    assert told[reader]["target"] == "/dev/nbd0"
    assert told[writer]["filesystem"]["mount_point"] == "/mnt"
    vm1.run(["kill", "-CONT", str(server)])
    eventually(lambda: not {reader, writer} & set(stuck(guests)), 60)


def test_who_is_frozen_in_a_group_of_version_2_is_told_and_who_waits_for_it(
    guests: Suite, vm1: Guest
) -> None:
    """Freezing the outer group freezes what is in the inner one."""
    outer, inner = "/sys/fs/cgroup/ice", "/sys/fs/cgroup/ice/cube"
    vm1.run(["mkdir", "-p", inner])
    vm1.run(["mkfifo", "/run/pipe"])
    moves = f"echo $$ > {inner}/cgroup.procs; exec sleep 600"
    frozen = started(vm1, "frozen", f"sh -c '{moves}' > /run/pipe")
    waiting = started(vm1, "waiting", "cat /run/pipe")
    eventually(lambda: f"{frozen}\n" in vm1.read(f"{inner}/cgroup.procs"), 60)
    eventually(lambda: vm1.read(f"/proc/{frozen}/comm") == "sleep\n", 60)
    vm1.run(["sh", "-c", f"echo 1 > {outer}/cgroup.freeze"])
    eventually(lambda: "frozen 1" in vm1.read(f"{inner}/cgroup.events"), 60)
    told = stuck(guests)
    assert told[frozen]["kind"] == "WAIT_KIND_FROZEN"
    assert told[frozen]["sentence"].endswith("is frozen with its control group /ice")
    (holder,) = told[waiting]["holders"]
    assert holder["process"]["pid"] == frozen
    assert f"sleep ({frozen}) has the end to write to and is frozen" in told[waiting]["sentence"]
    vm1.run(["sh", "-c", f"echo 0 > {outer}/cgroup.freeze"])
    eventually(lambda: not {frozen, waiting} & set(stuck(guests)), 60)


def test_the_thread_that_fills_a_new_ext4_and_the_writer_in_a_mix_are_found(
    guests: Suite, vm1: Guest
) -> None:
    # So large that it is not filled before anybody looks; its file is only what is written to it.
    disk = vm1.add_disk("data", 64 << 30)
    lazy_words = "lazy_itable_init=1,lazy_journal_init=1"
    vm1.run(["mkfs.ext4", "-q", "-E", lazy_words, disk], timeout_s=180)
    before = vm1.disk_traffic("data")["write"]
    # It begins within 5 s, and then rests ten times as long as it works.
    vm1.run(["mount", disk, "/mnt"])
    (thread,) = map(int, vm1.run(["pgrep", "-x", "ext4lazyinit"]).stdout.split())
    writer = started(vm1, "writer", "dd if=/dev/zero of=/mnt/written bs=64k oflag=dsync")
    started(vm1, "reader", "sh -c 'while :; do cat /etc/services > /dev/null; done'")
    asked = ("-H", "vm1", "-o", "ndjson", "trace", "io", "--interval", "2s", "--count", "4")
    readings: list[dict[str, Any]] = []

    def of_the_thread() -> list[dict[str, Any]]:
        readings[:] = map(json.loads, guests.cli(*asked).stdout.splitlines())
        found = (p for each in readings for p in each["processes"])
        return [p for p in found if p["process"]["pid"] == thread]

    lazy = eventually(of_the_thread, 180)
    during = vm1.disk_traffic("data")["write"] - before
    assert len(readings) == 4
    rows = [{p["process"]["pid"]: p for p in each["processes"]} for each in readings]
    for each in lazy:
        assert (each["process"]["comm"], each["is_kernel_thread"]) == ("ext4lazyinit", True)
        assert each["explanation"] == "fills the inode tables of a new ext4 with zeroes;" + (
            " ends by itself"
        )
        assert each["runs_per_second"] > 0
    busiest = [max(r.values(), key=lambda p: p["write_bytes_per_second"]) for r in rows]
    assert [each["process"]["pid"] for each in busiest].count(writer) >= 3
    # What the disk is said to have written, against what QEMU wrote for it.
    name = disk.removeprefix("/dev/")
    devices = [next(d for d in each["devices"] if d["name"] == name) for each in readings]
    times = [datetime.fromisoformat(each["time"]) for each in readings]
    # A reading that came late is followed by one that comes sooner.
    spans_s = [(later - sooner).total_seconds() for sooner, later in pairwise(times)]
    rates = [each["write_bytes_per_second"] for each in devices[1:]]
    seen = sum(rate * span_s for rate, span_s in zip(rates, spans_s, strict=True))
    told = f"{name} wrote {seen / MIB:.1f} MiB in {sum(spans_s):.2f} s as it is told"
    print(f"{told}, QEMU {during / MIB:.1f} in all")
    assert MIB < seen < during * 1.02


TALKER = """
import pathlib, select, socket, sys, time
pathlib.Path("/proc/self/comm").write_text("talker")
address, begins = (sys.argv[1], 7000), len(sys.argv) > 2
def connected():
    while True:
        try:
            return socket.create_connection(address, 10)
        except OSError:
            time.sleep(0.2)
sock = connected() if begins else socket.create_server(address).accept()[0]
size = 0
while True:
    if size or begins:
        # All that happens happens apart: by more than clocks can be compared to.
        time.sleep(0.3)
        sock.send(bytes(size + 1))
    select.select([sock], [], [])
    time.sleep(0.3)
    size = len(sock.recv(65536))
"""


def test_two_guests_whose_clocks_differ_are_told_in_the_order_in_which_it_happened(
    guests: Suite, tmp_path: Path
) -> None:
    """They answer each other: what is received was sent before, whatever the clocks say."""
    vm1, vm2 = guests.take("vm1", "vm2")
    vm2.set_clock(datetime.now(UTC) + timedelta(seconds=3))
    for guest in (vm1, vm2):
        guest.wake("tracing")
    for guest, words in ((vm2, []), (vm1, ["begins"])):
        guest.start(["python3", "-IS", "-c", TALKER, vm2.ipv4, *words], timeout_s=600)
    sooner, there, later = vm1.clock(), vm2.clock(), vm1.clock()
    margin_s = (later - sooner).total_seconds() / 2
    apart_s = (there - sooner).total_seconds() - margin_s
    assert apart_s - margin_s > 1
    # Written, and merged from the files: a live stream waits for who is late, and not for ever.
    done = guests.cli(
        *("-H", "all", "trace", "live", "--events", "30", "--for", "90s"),
        *("--filter", "proc.name=talker and evt.type in (sendto, recvfrom)"),
        *("-w", str(tmp_path / "talk.htrace")),
    )
    print(done.stderr)
    files = [str(tmp_path / f"talk.{host}.htrace") for host in ("vm1", "vm2")]
    merged = guests.cli("-o", "ndjson", "trace", "read", *files).stdout
    clocks = {
        host: float(off) * (1 if way == "ahead of" else -1)
        for host, off, way in re.findall(
            r"^(vm\d): its clock is ([\d.]+) s (ahead of|behind)", done.stderr, re.MULTILINE
        )
    }
    # One that is off by less than 0.1 s is not told of.
    found_s = clocks["vm2"] - clocks.get("vm1", 0.0)
    print(f"apart by {apart_s:.3f} s ± {margin_s:.3f}, found {found_s:.3f}")
    assert abs(found_s - apart_s) < margin_s + 0.3
    events = [json.loads(line) for line in merged.splitlines()]
    for host in ("vm1", "vm2"):
        assert len([e for e in events if e["host"] == host]) == 30
    # Message n is n bytes long: it is sent, then received, and then message n + 1 is sent.
    order = [2 * e["result"] + (e["syscall"] == "recvfrom") for e in events]
    assert order == sorted(set(order))
    both = set(order) & {n ^ 1 for n in order}
    assert len(both) >= 8, "the traces did not run at the same time"
    # With the clocks as they are it would be wrong.
    as_told = sorted(events, key=lambda e: e["time_unix_ns"] + 3e9 * (e["host"] == "vm2"))
    assert as_told != events
