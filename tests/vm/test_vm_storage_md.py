"""Arrays of md on real disks: made, one pulled, mended, damaged in silence, compared, ended."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hosts_witness import eventually
from vm_guest import Guest
from vm_suite import Suite

from hostler.api.common.v1 import job_pb2
from hostler.jobs import WATCH_JOB

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

MIB = 1 << 20
DISK_BYTES = 64 * MIB
DATA_MIB = 8
# Slow enough for a rebuild to be seen, and over in seconds.
MOST = "8M"


def storage(guests: Suite, *words: str, check: bool = True) -> Any:
    """What `hostler storage` answers of vm1, or its error."""
    argv = ("-H", "vm1", "--yes", "-o", "json", "storage", *words)
    answer = json.loads(guests.cli(*argv, check=check, timeout_s=600).stdout)[0]
    return answer["result"] if answer["ok"] else answer["error"]


def watched(guests: Suite, *words: str) -> list[Any]:
    """Make a change as a job, and answer the job as it was told of until its end."""
    argv = ("-H", "vm1", "--yes", "--background", "-o", "json", "storage", *words)
    change = json.loads(guests.cli(*argv).stdout)[0]["result"]["change"]
    request = job_pb2.WatchJobRequest(name=change["job"])
    with guests.client() as client, client.session(client.select("vm1")[0]) as session:
        return [answer.job for answer in session.stream(WATCH_JOB.at("storage"), request)]


def serial(name: str) -> str:
    """What a disk is called by, whatever the kernel calls it."""
    return f"serial-{name}"


def detail(guest: Guest, name: str) -> dict[str, str]:
    """What mdadm(8) says of an array."""
    said = guest.run(["mdadm", "--detail", f"/dev/md/{name}"]).stdout
    return dict(re.findall(r"^\s*([A-Z][A-Za-z /]+?) : (.+?)\s*$", said, re.MULTILINE))


def kernel_name(guest: Guest, name: str) -> str:
    return guest.run(["readlink", "-f", f"/dev/md/{name}"]).stdout.strip().removeprefix("/dev/")


def written(guest: Guest, name: str) -> None:
    guest.run(
        [
            *("dd", "if=/dev/urandom", f"of=/dev/md/{name}", "bs=1M", f"count={DATA_MIB}"),
            *("oflag=direct", "status=none"),
        ]
    )


def digest(guest: Guest, name: str) -> str:
    """Of what an array holds, read from its disks."""
    guest.run(["sh", "-c", "echo 3 > /proc/sys/vm/drop_caches"])
    shown = f"head -c {DATA_MIB * MIB} /dev/md/{name} | sha256sum"
    return guest.run(["sh", "-c", shown], timeout_s=120).stdout.split()[0]


@pytest.fixture
def vm1(guests: Suite) -> Guest:
    (guest,) = guests.take("vm1")
    guest.wake("storage")
    return guest


def test_a_disk_of_a_mirror_below_a_stripe_is_pulled_and_replaced(
    guests: Suite, vm1: Guest
) -> None:
    for name in ("a1", "a2", "b1", "b2", "blank"):
        vm1.add_disk(name, DISK_BYTES)
    for leg in "ab":
        disks = [serial(f"{leg}{number}") for number in (1, 2)]
        storage(guests, "array", "create", leg, "--level", "raid1", *disks)
    legs = [storage(guests, "array", "get", leg)["array"]["id"] for leg in "ab"]
    made = storage(guests, "array", "create", "data", "--level", "raid0", *legs)
    assert made["change"]["changed"] and detail(vm1, "data")["Raid Level"] == "raid0"
    assert detail(vm1, "a")["Raid Level"] == "raid1" and detail(vm1, "a")["Version"] == "1.2"
    written(vm1, "data")
    before = digest(vm1, "data")
    storage(guests, "array", "speed", "a", "--most", MOST)

    vm1.running.monitor.order("device_del", {"id": "a2"})
    eventually(lambda: "a2" not in vm1.run(["lsblk", "-dno", "SERIAL"]).stdout.split(), 60)
    reasons = storage(guests, "health", check=False)["reasons"]
    assert {"MD_UNPLUGGED", "MD_DEGRADED"} & {one["code"] for one in reasons}, reasons
    last = storage(guests, "array", "fail", "a", serial("a1"), check=False)
    assert last["reason"] == "LAST_COPY"
    eventually(lambda: "[2/1]" in vm1.read("/proc/mdstat"), 60)
    # udev has mdadm take out what is unplugged: until it is through, a plan is soon another one.
    vm1.run(["udevadm", "settle", "--timeout=60"], timeout_s=90)

    told = watched(guests, "array", "replace", "a", serial("blank"))
    assert told[-1].state == job_pb2.JOB_STATE_SUCCEEDED, told[-1]
    progress = [one.progress for one in told if one.progress.unit == "bytes"]
    assert any(0 < one.done < one.total for one in progress), progress
    assert progress[-1].done == progress[-1].total > 0
    assert detail(vm1, "a")["State"].startswith(("clean", "active"))
    assert "degraded" not in detail(vm1, "a")["State"]
    assert detail(vm1, "a")["Working Devices"] == "2"
    assert digest(vm1, "data") == before
    # Nothing is left to do.
    again = storage(guests, "array", "replace", "a", serial("blank"))
    assert not again["change"]["changed"]


def test_copies_that_differ_are_found_counted_and_made_alike(guests: Suite, vm1: Guest) -> None:
    legs = [serial(name) for name in ("l1", "l2", "l3")]
    for name in ("l1", "l2", "l3"):
        vm1.add_disk(name, DISK_BYTES)
    shape = ("--level", "raid10", "--layout", "o3", "--chunk", "64K")
    storage(guests, "array", "create", "data", *shape, *legs)
    assert detail(vm1, "data")["Layout"] == "offset=3"
    written(vm1, "data")
    before = digest(vm1, "data")
    array = storage(guests, "array", "get", "data")["array"]
    assert array["layout"] == "o3" and array["spare_losses"] == 2
    eventually(lambda: "resync" not in vm1.read("/proc/mdstat"), 120)

    # Something writes behind md's back: 8 KiB of the second leg, below what is read first.
    folder = f"/sys/block/{kernel_name(vm1, 'data')}/md"
    leg = vm1.disk("l2").removeprefix("/dev/")
    start = 512 * int(vm1.read(f"{folder}/dev-{leg}/offset")) + MIB
    vm1.run(
        [
            *("dd", "if=/dev/urandom", f"of=/dev/{leg}", "bs=4096", "count=2", "status=none"),
            *("oflag=direct", f"seek={start // 4096}", "conv=notrunc"),
        ]
    )
    found = watched(guests, "array", "check", "data")[-1]
    assert found.state == job_pb2.JOB_STATE_SUCCEEDED
    assert [one.code for one in found.change.warnings] == ["ARRAY_MISMATCH"]
    counted = int(vm1.read(f"{folder}/mismatch_cnt"))
    assert counted > 0 and f"{counted} sectors" in found.change.warnings[0].message
    watched(guests, "array", "repair", "data")
    clean = watched(guests, "array", "check", "data")[-1]
    assert not clean.change.warnings and int(vm1.read(f"{folder}/mismatch_cnt")) == 0
    assert digest(vm1, "data") == before

    members = [vm1.disk(name) for name in ("l1", "l2", "l3")]
    storage(guests, "array", "delete", "data")
    assert not vm1.run(["wipefs", "--noheadings", *members]).stdout
    assert "md" not in "".join(vm1.read("/proc/mdstat").splitlines()[1:-1])
