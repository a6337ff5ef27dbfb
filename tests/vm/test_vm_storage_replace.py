"""Disks of a host are pulled and replaced as a whole: what was on them is there after a boot."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from vm_guest import Guest
from vm_image import SIZE
from vm_replace import (
    MIB,
    digests,
    held_up,
    lasting,
    mounted,
    partition,
    places,
    reasons,
    replaced,
    serial,
    storage,
    table,
    whole,
)
from vm_suite import Suite

pytestmark = [
    *(pytest.mark.vm, pytest.mark.soak, pytest.mark.timeout(3600)),
    pytest.mark.skipif(os.environ.get("HOSTLER_SOAK") != "1", reason="takes minutes"),
]

RAID, SWAP = "A19D880F-05FC-4D3B-A006-743F0F84911E", "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F"
LVM = "E6D6D379-F507-44C2-A23C-238F2A3DF928"
HALVES = f"label: gpt\nsize=48M, type={RAID}\nsize=16M, type={SWAP}\n"
ROOT_UUID = "4b1d6f4e-5a0c-4f0e-9d7a-2f6b1c0d9e8f"
CREATE = "--run --metadata=1.2 --homehost=vm1"


def root_on_mirror(guests: Suite, vm1: Guest) -> str:
    """Have the guest boot from a mirror of two disks of its own alone; answer the array's path."""
    size = SIZE + 64 * MIB
    one, two = (vm1.add_disk(name, size, guests.golden_root) for name in ("r1", "r2"))
    # Both are the same to the byte; md's superblock is behind the filesystem.
    script = f"""set -e
        modprobe raid1
        mdadm --quiet --create /dev/md/boot --run --level=1 --raid-devices=2 --metadata=1.0 \
            --homehost=vm1 --name=boot --bitmap=internal --assume-clean {one} {two}
        e2fsck -fy /dev/md/boot >/dev/null || [ $? -lt 4 ]
        tune2fs -U {ROOT_UUID} /dev/md/boot >/dev/null
        mount /dev/md/boot /mnt
        cd /etc; cp -a hostler hostname hosts machine-id lab.network /mnt/etc/
        echo "UUID={ROOT_UUID} / ext4 rw,noatime 0 0" > /mnt/etc/fstab
        umount /mnt; sync"""
    vm1.run(["sh", "-c", script], timeout_s=300)
    boot = lasting(vm1, "boot")
    vm1.shutdown()
    vm1.root = f"UUID={ROOT_UUID}"
    guests.boot(vm1)
    assert vm1.run(["findmnt", "-no", "SOURCE", "/"]).stdout.startswith("/dev/md")
    return boot


def filled(vm1: Guest, device: str, at: str) -> None:
    """Make a filesystem that a boot mounts, with a file that nobody knows."""
    script = f"""set -e
        mkfs.ext4 -q {device}; udevadm settle; mkdir -p {at}
        echo "UUID=$(blkid -p -s UUID -o value {device}) {at} ext4 nofail 0 2" >> /etc/fstab
        systemctl daemon-reload; mount {at}
        dd if=/dev/urandom of={at}/data bs=1M count=20 conv=fsync status=none"""
    vm1.run(["sh", "-c", script], timeout_s=180)


def declared(guests: Suite) -> str:
    return guests.cli("-H", "vm1", "storage", "declare").stdout


def no_drift(guests: Suite, text: str, file: Path, *pairs: tuple[str, str]) -> None:
    """What is declared names disks of mounts: with the new ones written down, nothing differs."""
    for old, new in pairs:
        text = text.replace(f'"{serial(old)}"', f'"{serial(new)}"')
    assert f'"{serial(pairs[0][1])}"' in text, text
    file.write_text(text)
    drift = guests.cli("-H", "vm1", "-o", "json", "storage", "drift", str(file), check=False)
    assert json.loads(drift.stdout)[0]["result"]["drifts"] == [], drift.stdout


def with_halves(guests: Suite, vm1: Guest) -> str:
    """A mirror of partitions, mounted with data, and a swap area; answer the array's path."""
    partition(vm1, HALVES, 80 * MIB, "one", "two")
    halves = " ".join(f"{vm1.disk(name)}1" for name in ("one", "two"))
    make = f"mdadm --quiet --create /dev/md/data {CREATE} --name=data --level=1 --bitmap=internal"
    vm1.run(["sh", "-c", f"{make} --assume-clean --raid-devices=2 {halves}; udevadm settle"])
    vm1.run(["mkswap", "-q", f"{vm1.disk('one')}2"])
    filled(vm1, "/dev/md/data", "/srv/data")
    storage(guests, "swap", "apply", f"{serial('one')}-part2")
    return lasting(vm1, "data")


def test_half_of_a_mirror_is_replaced_with_its_table_and_swap_and_the_host_boots_from_the_other(
    guests: Suite,
) -> None:
    (vm1,) = guests.take("vm1")
    boot = root_on_mirror(guests, vm1)
    vm1.wake("storage")
    data = with_halves(guests, vm1)
    before, was, text = digests(vm1, "/srv/data/data"), table(vm1, "one"), declared(guests)
    assert not {"MD_DEGRADED", "MD_UNPLUGGED"} & reasons(guests)

    vm1.run(["swapoff", "-a"])
    vm1.pull_disk("one")
    assert {"MD_DEGRADED", "MD_UNPLUGGED"} & reasons(guests)
    vm1.add_disk("new", 96 * MIB)
    told = replaced(guests, "one", "new", held_up(vm1, "data"))
    assert any("serial-one is gone already" in one for one in told), told
    made = table(vm1, "new")
    assert places(made) == places(was) and made["id"] != was["id"]
    assert not {p["uuid"] for p in made["partitions"]} & {p["uuid"] for p in was["partitions"]}
    assert whole(vm1, data) and f"{vm1.disk('new')}2" in vm1.read("/proc/swaps")
    # Half of what the host runs from.
    vm1.pull_disk("r1")
    assert {"MD_DEGRADED", "MD_UNPLUGGED"} & reasons(guests)
    vm1.add_disk("r3", SIZE + 80 * MIB)
    replaced(guests, "r1", "r3")
    assert whole(vm1, boot) and digests(vm1, "/srv/data/data") == before
    again = storage(guests, "replace-disk", serial("one"), serial("new"))
    assert not again["change"]["changed"]

    after_a_boot(guests, vm1, before, text, ("one", "new"), ("r1", "r3"))
    assert vm1.run(["findmnt", "-no", "SOURCE", "/"]).stdout.startswith("/dev/md")
    members = vm1.run(["mdadm", "--detail", boot]).stdout
    assert vm1.disk("r2") in members and vm1.disk("r3") in members


def with_btrfs(vm1: Guest) -> None:
    one, two = (vm1.add_disk(name, 160 * MIB) for name in ("p1", "p2"))
    script = f"""set -e
        modprobe btrfs; mkfs.btrfs -q -L pool -d raid1 -m raid1 {one} {two}; udevadm settle
        mkdir -p /srv/pool; echo "LABEL=pool /srv/pool btrfs nofail,degraded 0 0" >> /etc/fstab
        systemctl daemon-reload; mount /srv/pool
        dd if=/dev/urandom of=/srv/pool/data bs=1M count=24 conv=fsync status=none"""
    vm1.run(["sh", "-c", script], timeout_s=180)


def btrfs_replaced(guests: Suite, vm1: Guest) -> None:
    vm1.pull_disk("p1")
    # systemd unmounts what lies on a device that has gone; the other half is mounted again.
    again = "for i in 1 2 3 4 5 6; do mountpoint -q /srv/pool || mount /srv/pool; sleep 0.5; done"
    vm1.run(["sh", "-c", again])
    assert "BTRFS_DEGRADED" in reasons(guests)
    vm1.add_disk("p3", 176 * MIB)
    replaced(guests, "p1", "p3")
    shown = vm1.run(["btrfs", "filesystem", "show", "/srv/pool"]).stdout
    assert vm1.disk("p3") in shown and "missing" not in shown.lower(), shown
    assert "BTRFS_DEGRADED" not in reasons(guests)


def with_lvm(vm1: Guest) -> None:
    partition(vm1, f"label: gpt\nsize=8M\nsize=64M, type={LVM}\n", 80 * MIB, "v1", "v2")
    parts = " ".join(f"{vm1.disk(name)}2" for name in ("v1", "v2"))
    script = f"""set -e
        vgcreate --quiet vg {parts} > /dev/null
        lvcreate --quiet --yes --type raid1 --mirrors 1 --size 32M --name m vg > /dev/null"""
    vm1.run(["sh", "-c", script], timeout_s=180)
    filled(vm1, "/dev/vg/m", "/srv/lvm")
    vm1.run(
        ["sh", "-c", "until lvs --noheadings -o sync_percent vg/m | grep 100; do sleep 1; done"]
    )


def carriers(vm1: Guest) -> set[str]:
    """The devices of all groups, as LVM's own tool has them."""
    said = vm1.run(["pvs", "--noheadings", "-o", "pv_name", "--select", "vg_name=vg"]).stdout
    return set(said.split())


def lvm_replaced(guests: Suite, vm1: Guest) -> None:
    vm1.pull_disk("v1")
    assert "GROUP_INCOMPLETE" in reasons(guests)
    vm1.add_disk("v3", 96 * MIB)
    replaced(guests, "v1", "v3")
    assert places(table(vm1, "v3")) == places(table(vm1, "v2"))
    assert carriers(vm1) == {f"{vm1.disk(name)}2" for name in ("v2", "v3")}
    said = vm1.run(["lvs", "--noheadings", "-o", "lv_health_status,sync_percent", "vg/m"]).stdout
    assert said.split() == ["100.00"], said
    assert "GROUP_INCOMPLETE" not in reasons(guests)
    # The other one is there still: what it has is moved while it is in use.
    vm1.add_disk("v4", 96 * MIB)
    replaced(guests, "v2", "v4")
    assert carriers(vm1) == {f"{vm1.disk(name)}2" for name in ("v3", "v4")}
    assert "LVM2" not in vm1.run(["blkid", "-p", f"{vm1.disk('v2')}2"], check=False).stdout
    vm1.pull_disk("v2")


def with_whole_disks(vm1: Guest) -> None:
    """Three copies on three disks, and a stripe of two mirrors, with data."""
    names = ("o1", "o2", "o3", "a1", "a2", "b1", "b2")
    disks = [vm1.add_disk(name, 48 * MIB) for name in names]
    offset, *_ = made = ["offset", "a", "b"]
    of = dict(zip(made, (disks[:3], disks[3:5], disks[5:]), strict=True))
    mirror = "--level=1 --bitmap=internal"
    shapes = {offset: "--level=10 --layout=o3 --chunk=64", "a": mirror, "b": mirror}
    script = "set -e\n" + "".join(
        f"mdadm --quiet --create /dev/md/{name} {CREATE} --name={name} --assume-clean {shape}"
        f" --raid-devices={len(of[name])} {' '.join(of[name])}\n"
        for name, shape in shapes.items()
    )
    script += f"""udevadm settle
        mdadm --quiet --create /dev/md/nested {CREATE} --name=nested --level=0 --raid-devices=2 \
            /dev/md/a /dev/md/b
        for one in offset nested; do
            dd if=/dev/urandom of=/dev/md/$one bs=1M count=24 oflag=direct status=none; done
        udevadm settle"""
    vm1.run(["sh", "-c", script], timeout_s=240)


def arrays_replaced(guests: Suite, vm1: Guest) -> None:
    vm1.pull_disk("o2")
    assert {"MD_DEGRADED", "MD_UNPLUGGED"} & reasons(guests)
    vm1.add_disk("o4", 64 * MIB)
    replaced(guests, "o2", "o4", held_up(vm1, "offset"))
    assert whole(vm1, "/dev/md/offset")
    # A leg of a mirror below a stripe, which is there still: it is copied, and then to be pulled.
    vm1.add_disk("a3", 64 * MIB)
    told = replaced(guests, "a2", "a3", held_up(vm1, "a"))
    assert any("pull (" in one and "serial number a2" in one for one in told), told
    assert whole(vm1, "/dev/md/a")
    vm1.pull_disk("a2")
    assert not {"MD_DEGRADED", "MD_UNPLUGGED"} & reasons(guests)


def after_a_boot(
    guests: Suite, vm1: Guest, before: dict[str, str], text: str, *pairs: tuple[str, str]
) -> None:
    """All is there, and nothing differs from what was declared but the names of the disks."""
    vm1.power_cut()
    guests.boot(vm1)
    mounted(vm1, *(path.removesuffix("/data") for path in before if path.endswith("/data")))
    vm1.wake("storage")
    assert digests(vm1, *before) == before
    no_drift(guests, text, guests.folder / "storage.toml", *pairs)
    assert not {"MD_DEGRADED", "BTRFS_DEGRADED", "GROUP_INCOMPLETE"} & reasons(guests)


def test_disks_of_btrfs_are_replaced(guests: Suite) -> None:
    (vm1,) = guests.take("vm1")
    vm1.wake("storage")
    with_btrfs(vm1)
    before, text = digests(vm1, "/srv/pool/data"), declared(guests)
    btrfs_replaced(guests, vm1)
    assert digests(vm1, *before) == before
    after_a_boot(guests, vm1, before, text, ("p1", "p3"))


def test_disks_of_lvm_and_of_arrays_of_arrays_are_replaced(guests: Suite) -> None:
    (vm1,) = guests.take("vm1")
    vm1.wake("storage")
    vm1.run(["modprobe", "-a", "raid1", "raid10", "raid0"])
    with_lvm(vm1)
    with_whole_disks(vm1)
    raw = [lasting(vm1, label) for label in ("offset", "nested")]
    before, text = digests(vm1, "/srv/lvm/data", *raw), declared(guests)
    arrays_replaced(guests, vm1)
    lvm_replaced(guests, vm1)
    assert digests(vm1, *before) == before
    pairs = (("v1", "v3"), ("v2", "v4"), ("o2", "o4"), ("a2", "a3"))
    after_a_boot(guests, vm1, before, text, *pairs)
