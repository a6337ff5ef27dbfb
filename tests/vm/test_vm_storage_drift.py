"""A broken mirror, a foreign RAID, volumes of LVM and an fstab that lies, on disks of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from vm_guest import Guest
from vm_suite import Suite

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

MIB = 1 << 20
# A member of VIA's RAID: libblkid takes it by its last sector. Magic, version, and a sum.
VIA = bytes((0x55, 0xAA)) + bytes(48) + bytes((0xFF,)) + bytes(461)


def told(guests: Suite, verb: str) -> Any:
    done = guests.cli("-H", "vm1", "-o", "json", "storage", verb, check=False)
    (answer,) = json.loads(done.stdout)
    assert answer["ok"], answer
    return answer["result"]


def reasons(guests: Suite) -> dict[str, list[str]]:
    """The words of each code."""
    found: dict[str, list[str]] = {}
    for each in told(guests, "health")["reasons"]:
        print(each["code"], each["message"])
        found.setdefault(each["code"], []).append(each["message"])
    return found


def drifts(guests: Suite, file: Path) -> set[str]:
    done = guests.cli("-H", "vm1", "-o", "json", "storage", "drift", str(file), check=False)
    (answer,) = json.loads(done.stdout)
    print(answer)
    assert done.returncode == (1 if answer["result"]["drifts"] else 0)
    return {each["code"] for each in answer["result"]["drifts"]}


def as_lsblk_has_it(guest: Guest, nodes: list[Any]) -> None:
    """The fields of `lsblk -J -O` that tell what is on a device; guests have udev, as it needs."""
    said = guest.run(["lsblk", "--json", "--output-all", "--bytes", "--list"]).stdout
    rows = {row["name"]: row for row in json.loads(said)["blockdevices"]}
    devices = {node["facts"].get("dm_name", node["name"]): node for node in nodes if node["name"]}
    assert len(set(rows) & set(devices)) > 6
    for name in set(rows) & set(devices):
        node, row = devices[name], rows[name]
        content = [one for one in node["signatures"] if one["usage"] != "partition-table"]
        assert [(one["type"], one["uuid"], one["label"] or None) for one in content] == (
            [(row["fstype"], row["uuid"], row["label"])] if row["fstype"] else []
        ), name
        assert (node["size_bytes"], node["device_number"]) == (row["size"], row["maj:min"])
        assert (node["serial"] or None, node["read_only"]) == (row["serial"], row["ro"])


def test_a_host_on_one_half_of_its_mirror_and_what_else_is_not_as_it_was(
    guests: Suite, tmp_path: Path
) -> None:
    (vm1,) = guests.take("vm1")
    first, second, foreign, pv = (vm1.add_disk(each, 48 * MIB) for each in ("a", "b", "c", "d"))
    script = f"""set -e
        modprobe raid1; modprobe dm-mod
        mdadm --quiet --create /dev/md0 --run --level=1 --raid-devices=2 --metadata=1.0 \\
            --homehost=vm1 --name=data --assume-clean {first} {second}
        mkfs.ext4 -q -L data /dev/md0
        pvcreate -q {pv} && vgcreate -q vg {pv} && lvcreate -q -y -n idle -L 4M vg
        lvcreate -q -y -n lv -L 8M vg && mkfs.ext4 -q /dev/vg/lv && lvchange -an vg/idle
        udevadm settle
        echo "UUID=$(blkid -p -s UUID -o value /dev/md0) /srv ext4 defaults 0 2" >> /etc/fstab
        mount /srv"""
    vm1.run(["sh", "-c", script], timeout_s=180)
    vm1.wake("storage")
    graph = told(guests, "show")
    as_lsblk_has_it(vm1, graph["nodes"])
    names = {node["name"]: node for node in graph["nodes"]}
    assert names["vg"]["kind"] == "NODE_KIND_VOLUME_GROUP"
    assert names["idle"]["state"] == "inactive"
    file = tmp_path / "storage.toml"
    file.write_text(guests.cli("-H", "vm1", "storage", "declare").stdout)
    assert drifts(guests, file) == set()
    assert not reasons(guests).keys() & {"MD_DEGRADED", "RAID_NOT_ACTIVE", "NOT_MOUNTED"}
    survives = {one["name"]: one for one in told(guests, "survival")["volumes"]}
    assert (survives["md0"]["any_disks"], survives["vg"]["any_disks"]) == (1, 0)
    # The array comes up with one leg; the other half is what gets mounted, as if it were whole.
    script = f"""set -e
        umount /srv; mdadm --quiet --stop /dev/md0
        mdadm --quiet --assemble --run /dev/md0 {second}
        mount -t ext4 {first} /srv; mount -t ext4 /dev/vg/lv /mnt
        echo "UUID=0000-0000 /backup ext4 defaults 0 2" >> /etc/fstab"""
    vm1.run(["sh", "-c", script], timeout_s=120)
    vm1.put("/root/via", VIA)
    vm1.run(["dd", "if=/root/via", f"of={foreign}", "bs=512", f"seek={48 * MIB // 512 - 1}"])
    found = reasons(guests)
    half = first.removeprefix("/dev/")
    assert found["RAID_HALF_MOUNTED"][0].startswith(f"/srv is mounted from {half}")
    assert found["STALE_SUPERBLOCK"][0].startswith(f"{half} has a superblock of md0")
    assert "via_raid_member" in found["RAID_NOT_ACTIVE"][0]
    assert {"MD_DEGRADED", "MOUNT_OTHER_DEVICE"} <= set(found)
    assert found["NOT_IN_FSTAB"][0].startswith("/mnt is mounted")
    assert found["NOT_MOUNTED"][0].startswith("/backup of fstab line")
    assert {"MOUNT_OTHER_DISKS", "ARRAY_DISKS", "MOUNT_UNDECLARED"} <= drifts(guests, file)
