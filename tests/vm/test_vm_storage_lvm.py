"""LVM on real disks: a mirror whose disk is pulled, snapshots that are merged, thin volumes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from vm_guest import Guest
from vm_suite import Suite

from hostler.api.common.v1 import job_pb2
from hostler.jobs import WATCH_JOB

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

MIB = 1 << 20
DISK_BYTES = 96 * MIB
ODD = ("a b", "../x", ".", "-x", "x_rimage_0", "snapshot1", "d\u00e4ta")
AT = "/mnt/at"


def storage(guests: Suite, *words: str, check: bool = True) -> Any:
    """What `hostler storage` answers of vm1, or its error."""
    argv = ("-H", "vm1", "--yes", "-o", "json", "storage", *words)
    answer = json.loads(guests.cli(*argv, check=check, timeout_s=600).stdout)[0]
    return answer["result"] if answer["ok"] else answer["error"]


def refusal(guests: Suite, *words: str) -> Any:
    return storage(guests, *words, check=False)


def watched(guests: Suite, *words: str) -> list[Any]:
    """Make a change as a job, and answer the job as it was told of until its end."""
    argv = ("-H", "vm1", "--yes", "--background", "-o", "json", "storage", *words)
    change = json.loads(guests.cli(*argv).stdout)[0]["result"]["change"]
    request = job_pb2.WatchJobRequest(name=change["job"])
    with guests.client() as client, client.session(client.select("vm1")[0]) as session:
        return [answer.job for answer in session.stream(WATCH_JOB.at("storage"), request)]


def bytes_told(jobs: list[Any]) -> list[Any]:
    """How far the job was, each time that it was told of; it must have ended well."""
    assert jobs[-1].state == job_pb2.JOB_STATE_SUCCEEDED, jobs[-1]
    return [one.progress for one in jobs if one.progress.unit == "bytes"]


def serial(*names: str) -> list[str]:
    """What disks are called by, whatever the kernel calls them."""
    return [f"serial-{name}" for name in names]


def lvs(guest: Guest, fields: str, name: str) -> list[str]:
    """What LVM's own tool says of a volume."""
    said = guest.run(["lvs", "--noheadings", "--separator=|", "-o", fields, name]).stdout
    return [word.strip() for word in said.strip().split("|")]


def names(guest: Guest, command: str, field: str) -> set[str]:
    return set(guest.run([command, "--noheadings", "-o", field]).stdout.split())


def volume(guests: Suite, name: str) -> Any:
    """A volume as the API has it."""
    group, _, own = name.partition("/")
    found = storage(guests, "lvm", "get", group)["group"]["volumes"]
    return next(one for one in found if one["name"] == own)


def write(guest: Guest, path: str, mib: int = 8) -> str:
    """Write what nobody knows, down to the disk; answer its SHA-256."""
    dd = ["dd", "if=/dev/urandom", f"of={path}", "bs=1M", f"count={mib}", "conv=fsync"]
    guest.run([*dd, "status=none"], timeout_s=120)
    return digest(guest, path)


def digest(guest: Guest, path: str) -> str:
    """SHA-256 of a file as the disks have it."""
    guest.run(["sh", "-c", "sync; echo 3 > /proc/sys/vm/drop_caches"], timeout_s=120)
    return guest.run(["sha256sum", path], timeout_s=120).stdout.split()[0]


def mount(guest: Guest, device: str) -> None:
    guest.run(["mkdir", "-p", AT])
    guest.run(["mount", device, AT])


@pytest.fixture
def vm1(guests: Suite) -> Guest:
    (guest,) = guests.take("vm1")
    guest.wake("storage")
    return guest


def test_a_disk_of_a_mirror_is_pulled_and_replaced_while_it_is_mounted(
    guests: Suite, vm1: Guest
) -> None:
    for name in ("a", "b", "blank"):
        vm1.add_disk(name, DISK_BYTES)
    made = storage(guests, "lvm", "create-group", "vg", *serial("a", "b"))
    assert made["change"]["changed"] and names(vm1, "vgs", "vg_name") == {"vg"}
    again = storage(guests, "lvm", "create-group", "vg", *serial("a", "b"))
    assert not again["change"]["changed"]
    told = watched(guests, "lvm", "create", "vg/m", "--kind", "mirror", "--size", "32M")
    bytes_told(told)
    assert lvs(vm1, "segtype,sync_percent,stripes", "vg/m") == ["raid1", "100.00", "2"]
    on = {one.partition("(")[0] for one in names(vm1, "pvs", "pv_name")}
    assert on == {vm1.disk("a"), vm1.disk("b")}

    storage(guests, "filesystem", "make", "/dev/vg/m", "ext4")
    mount(vm1, "/dev/vg/m")
    before = write(vm1, f"{AT}/data")
    # Slow enough for a rebuild to be seen, and over in a minute: KiB a second.
    vm1.run(["lvchange", "--maxrecoveryrate", "512", "vg/m"])
    codes = {one["code"] for one in storage(guests, "health", check=False)["reasons"]}
    assert "GROUP_INCOMPLETE" not in codes

    vm1.pull_disk("b")
    reasons = storage(guests, "health", check=False)["reasons"]
    assert "GROUP_INCOMPLETE" in {one["code"] for one in reasons}, reasons
    assert storage(guests, "lvm", "get", "vg")["group"]["missing"] == 1
    assert digest(vm1, f"{AT}/data") == before
    refused = refusal(guests, "lvm", "create", "vg/x", "--size", "4M")
    assert refused["reason"] == "GROUP_INCOMPLETE"
    assert refusal(guests, "lvm", "reduce", "vg")["reason"] == "PHYSICAL_VOLUME_IN_USE"

    progress = bytes_told(watched(guests, "lvm", "replace", "vg/m", *serial("blank")))
    assert any(0 < one.done < one.total for one in progress), progress
    assert progress[-1].done == progress[-1].total > 0
    assert lvs(vm1, "lv_health_status,sync_percent", "vg/m") == ["", "100.00"]
    assert digest(vm1, f"{AT}/data") == before
    again = storage(guests, "lvm", "replace", "vg/m", *serial("blank"))
    assert not again["change"]["changed"]
    storage(guests, "lvm", "reduce", "vg")
    assert storage(guests, "lvm", "get", "vg")["group"]["missing"] == 0
    codes = {one["code"] for one in storage(guests, "health", check=False)["reasons"]}
    assert "GROUP_INCOMPLETE" not in codes
    # From the new disk alone: what it was given is what was there.
    vm1.run(["umount", AT])
    assert vm1.run(["e2fsck", "-fn", "/dev/vg/m"], timeout_s=120).stdout
    assert len(storage(guests, "lvm", "backups")["backups"]) >= 3


def test_a_snapshot_is_merged_and_a_volume_grows_with_its_filesystem(
    guests: Suite, vm1: Guest
) -> None:
    vm1.add_disk("a", DISK_BYTES)
    storage(guests, "lvm", "create-group", "vg", *serial("a"))
    storage(guests, "lvm", "create", "vg/data", "--size", "32M")
    storage(guests, "filesystem", "make", "/dev/vg/data", "ext4")
    mount(vm1, "/dev/vg/data")
    before = write(vm1, f"{AT}/data")
    storage(guests, "lvm", "snapshot", "vg/data", "before", "--size", "24M")
    assert lvs(vm1, "origin", "vg/before") == ["data"]
    codes = {one["code"] for one in storage(guests, "health", check=False)["reasons"]}
    assert "SAME_UUID" not in codes
    assert write(vm1, f"{AT}/data") != before
    busy = refusal(guests, "lvm", "merge", "vg/before")
    assert busy["reason"] == "DEVICE_BUSY" and AT in busy["metadata"]["used_by"]
    busy = refusal(guests, "lvm", "delete", "vg/data")
    assert busy["reason"] in ("DEVICE_BUSY", "VOLUME_NEEDED")
    vm1.run(["umount", AT])
    bytes_told(watched(guests, "lvm", "merge", "vg/before"))
    assert names(vm1, "lvs", "lv_name") == {"data"}
    mount(vm1, "/dev/vg/data")
    assert digest(vm1, f"{AT}/data") == before

    grown = storage(guests, "lvm", "grow", "vg/data", "--size", "48M", "--filesystem")
    kinds = [one["kind"] for one in grown["change"]["plan"]["steps"]]
    assert kinds == ["GrowVolume", "GrowFilesystem"]
    df = vm1.run(["df", "--output=size", "-BM", AT]).stdout.split()[1]
    assert int(df.rstrip("M")) > 36 and digest(vm1, f"{AT}/data") == before
    vm1.run(["umount", AT])


def test_thin_volumes_their_snapshots_and_the_end_of_a_group(guests: Suite, vm1: Guest) -> None:
    vm1.add_disk("a", DISK_BYTES)
    storage(guests, "lvm", "create-group", "vg", *serial("a"))
    storage(guests, "lvm", "create", "vg/pool", "--kind", "thin-pool", "--size", "64M")
    thin = ("--kind", "thin", "--pool", "pool", "--size", "128M")
    made = storage(guests, "lvm", "create", "vg/t", *thin)
    assert [one["code"] for one in made["change"]["warnings"]] == ["THIN_OVERCOMMITTED"]
    storage(guests, "filesystem", "make", "/dev/vg/t", "ext4")
    mount(vm1, "/dev/vg/t")
    before = write(vm1, f"{AT}/data", 4)
    vm1.run(["umount", AT])
    storage(guests, "lvm", "snapshot", "vg/t", "ts")
    assert not volume(guests, "vg/ts").get("active")
    mount(vm1, "/dev/vg/t")
    assert write(vm1, f"{AT}/data", 4) != before
    vm1.run(["umount", AT])
    assert refusal(guests, "lvm", "delete", "vg/pool")["reason"] == "VOLUME_NEEDED"
    storage(guests, "lvm", "merge", "vg/ts")
    mount(vm1, "/dev/vg/t")
    assert digest(vm1, f"{AT}/data") == before
    vm1.run(["umount", AT])
    for name in ("t", "pool"):
        storage(guests, "lvm", "delete", f"vg/{name}")
    assert names(vm1, "lvs", "lv_name") == set()
    storage(guests, "lvm", "delete-group", "vg")
    assert not vm1.run(["wipefs", "--noheadings", vm1.disk("a")]).stdout


def test_a_template_is_cloned_grown_and_made_a_host_of_its_own(guests: Suite, vm1: Guest) -> None:
    vm1.add_disk("a", DISK_BYTES)
    storage(guests, "lvm", "create-group", "vg", *serial("a"))
    storage(guests, "lvm", "create", "vg/pool", "--kind", "thin-pool", "--size", "64M")
    thin = ("--kind", "thin", "--pool", "pool", "--size", "32M")
    storage(guests, "lvm", "create", "vg/debian", *thin)
    storage(guests, "filesystem", "make", "/dev/vg/debian", "ext4")
    refused = refusal(guests, "lvm", "clone", "vg/debian", "empty")
    assert refused["reason"] == "NOT_A_SYSTEM" and names(vm1, "lvs", "lv_name") == {
        *("pool", "debian"),
    }
    mount(vm1, "/dev/vg/debian")
    root = f"mkdir -p {AT}/etc/ssh; cp /etc/machine-id {AT}/etc/; echo old > {AT}/etc/hostname; "
    root += f"echo key > {AT}/etc/ssh/ssh_host_rsa_key"
    vm1.run(["sh", "-ec", root])
    before = write(vm1, f"{AT}/data", 4)
    vm1.run(["umount", AT])
    words = ("vg/debian", "web", "--size", "48M", "--hostname", "web")
    made = storage(guests, "lvm", "clone", *words)
    assert made["clone"]["active"] and made["clone"]["size_bytes"] == 48 * MIB
    assert not storage(guests, "lvm", "clone", *words)["change"]["changed"]
    uuids = [
        vm1.run(["blkid", "-p", "-s", "UUID", "-o", "value", f"/dev/vg/{one}"]).stdout
        for one in ("debian", "web")
    ]
    assert len(set(uuids)) == 2
    mount(vm1, "/dev/vg/web")
    assert digest(vm1, f"{AT}/data") == before
    assert vm1.read(f"{AT}/etc/machine-id") == "" and vm1.read(f"{AT}/etc/hostname") == "web\n"
    assert vm1.run(["ls", f"{AT}/etc/ssh"]).stdout == ""
    df = vm1.run(["df", "--output=size", "-BM", AT]).stdout.split()[1]
    assert int(df.rstrip("M")) > 36
    vm1.run(["umount", AT])
    mount(vm1, "/dev/vg/debian")
    assert vm1.read(f"{AT}/etc/hostname") == "old\n" and vm1.read(f"{AT}/etc/machine-id")


def test_what_is_in_a_group_is_refused_elsewhere_and_moved_while_it_is_used(
    guests: Suite, vm1: Guest
) -> None:
    for name in ("a", "b", "c"):
        vm1.add_disk(name, DISK_BYTES)
    storage(guests, "lvm", "create-group", "vg", *serial("a", "b"))
    # No volume is active yet: O_EXCL would let everybody in.
    for words in (
        ("filesystem", "make", *serial("a"), "ext4"),
        ("filesystem", "wipe", *serial("a")),
        ("array", "create", "x", "--level", "raid1", *serial("a", "c")),
        ("lvm", "create-group", "other", *serial("a")),
    ):
        busy = refusal(guests, *words)
        assert busy["reason"] == "DEVICE_BUSY" and busy["metadata"]["device"] == "serial-a", busy
        assert "vg" in busy["message"]
    for odd in ODD:
        assert refusal(guests, "lvm", "create", f"vg/{odd}", "--size", "4M")["reason"] in (
            "INVALID_REQUEST",
        )
    assert refusal(guests, "lvm", "create", "vg/x", "--size", "1G")["reason"] == "GROUP_FULL"

    storage(guests, "lvm", "create", "vg/data", "--size", "64M", "--on", *serial("a"))
    storage(guests, "filesystem", "make", "/dev/vg/data", "ext4")
    mount(vm1, "/dev/vg/data")
    before = write(vm1, f"{AT}/data", 16)
    refused = refusal(guests, "lvm", "reduce", "vg", *serial("a"))
    assert refused["reason"] == "PHYSICAL_VOLUME_IN_USE"
    bytes_told(watched(guests, "lvm", "move", "vg", *serial("a"), *serial("b")))
    assert lvs(vm1, "devices", "vg/data")[0].startswith(vm1.disk("b"))
    assert digest(vm1, f"{AT}/data") == before
    storage(guests, "lvm", "reduce", "vg", *serial("a"))
    assert not vm1.run(["wipefs", "--noheadings", vm1.disk("a")]).stdout
    busy = refusal(guests, "lvm", "deactivate", "vg/data")
    assert busy["reason"] == "DEVICE_BUSY" and AT in busy["metadata"]["used_by"]
    vm1.run(["umount", AT])

    storage(guests, "lvm", "rename", "vg/data", "kept")
    storage(guests, "lvm", "deactivate", "vg/kept")
    assert lvs(vm1, "lv_active", "vg/kept") == [""]
    storage(guests, "lvm", "delete", "vg/kept")
    assert names(vm1, "lvs", "lv_name") == set()
    # What was kept before the volume was deleted brings it back: nothing has been written since.
    kept = storage(guests, "lvm", "backups")["backups"][0]
    storage(guests, "lvm", "restore", "vg", kept["name"])
    storage(guests, "lvm", "activate", "vg/kept")
    mount(vm1, "/dev/vg/kept")
    assert digest(vm1, f"{AT}/data") == before

    # Somebody changes the group behind the plan's back.
    planned = storage(guests, "lvm", "get", "vg")["group"]
    vm1.run(["lvcreate", "--quiet", "-n", "other", "-l", "1", "vg"])
    assert storage(guests, "lvm", "get", "vg")["group"]["etag"] != planned["etag"]
