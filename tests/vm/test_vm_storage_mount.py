"""Mounts and swap areas on real disks, with udev and systemd, and what a boot brings up."""

from __future__ import annotations

import json
from typing import Any

import pytest
from vm_guest import Guest
from vm_suite import Suite

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]
MIB = 1 << 20
WHERE = "/srv/data"


def storage(guests: Suite, *words: str, check: bool = True) -> Any:
    argv = ("-H", "vm1", "--yes", "-o", "json", "storage", *words)
    answer = json.loads(guests.cli(*argv, check=check, timeout_s=300).stdout)[0]
    return answer["result"] if answer["ok"] else answer["error"]


def findmnt(guest: Guest) -> str:
    said = guest.run(["findmnt", "-no", "SOURCE,OPTIONS", "--mountpoint", WHERE], check=False)
    return said.stdout.strip()


def test_disks_are_mounted_and_swapped_to_by_units_that_wait_for_udev(guests: Suite) -> None:
    (vm1,) = guests.take("vm1")
    data, area = vm1.add_disk("data", 64 * MIB), vm1.add_disk("area", 64 * MIB)
    script = f"mkfs.ext4 -q {data}; mkswap -q {area}; udevadm settle"
    vm1.run(["sh", "-ec", script], timeout_s=120)
    vm1.wake("storage")
    made = storage(guests, "mount", "apply", WHERE, "serial-data", "-o", "noatime")
    assert made["change"]["changed"] and made["unit"] == "srv-data.mount"
    assert findmnt(vm1).startswith(f"{data} ") and "nosuid" in findmnt(vm1)
    swapped = storage(guests, "swap", "apply", "serial-area", "--priority", "7")
    assert area in vm1.read("/proc/swaps")
    # systemd knows the disk by its unit, and waits for what udev says of it.
    shown = ["systemctl", "show", "--value", "-p", "ActiveState,UnitFileState,Requires,BindsTo"]
    mount_unit, swap_unit = (
        vm1.run([*shown, one]).stdout.split() for one in (made["unit"], swapped["unit"])
    )
    assert {"active", "enabled"} <= set(mount_unit) & set(swap_unit)
    assert f"dev-{data.removeprefix('/dev/')}.device" in mount_unit
    holder = vm1.start(["sh", "-c", f"cd {WHERE}; echo in; exec sleep 600"], timeout_s=600)
    busy = storage(guests, "mount", "delete", WHERE, check=False)
    assert busy["reason"] == "MOUNT_BUSY" and "sleep (" in busy["metadata"]["used_by"]
    vm1.run(["pkill", "-x", "sleep"])
    holder.wait(check=False)
    # What a boot brings up.
    wants = ["systemctl", "show", "--value", "-p", "Wants", "local-fs.target", "swap.target"]
    # It quotes names that have a backslash, and doubles that.
    names = vm1.run(wants).stdout.replace('"', "").replace("\\\\", "\\").split()
    assert {made["unit"], swapped["unit"]} <= set(names)
    # Down and up again, by what is written alone.
    vm1.run(["systemctl", "stop", made["unit"], swapped["unit"]])
    listed = {one["where"]: one for one in storage(guests, "mount", "list")["mounts"]}
    assert listed[WHERE]["differs"] == ["NOT_MOUNTED"] and area not in vm1.read("/proc/swaps")
    vm1.run(["systemctl", "start", made["unit"], swapped["unit"]])
    assert findmnt(vm1).startswith(f"{data} ") and area in vm1.read("/proc/swaps")
    assert storage(guests, "mount", "delete", WHERE)["change"]["changed"]
    assert storage(guests, "swap", "delete", "serial-area")["change"]["changed"]
    assert not findmnt(vm1) and area not in vm1.read("/proc/swaps")
    assert "srv-data" not in vm1.run(["ls", "-R", "/etc/systemd/system"]).stdout
