"""What is seen of block devices is what lsblk(8), blkid(8) and btrfs(8) say of them."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from hostlerd.storage.kernel import Kernel
from hostlerd.storage.model.graph import Kind
from hostlerd.storage.plan.graph import build
from hostlerd.storage.plan.health import health
from hostlerd.storage.plan.space import spaces

pytestmark = pytest.mark.kernel

MIB = 1 << 20


def run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, (argv, done.stdout, done.stderr)
    return done.stdout


@contextmanager
def loop(folder: Path, name: str, size_mib: int) -> Iterator[str]:
    """A loop device on a file of its own."""
    path = folder / name
    with path.open("wb") as file:
        file.truncate(size_mib * MIB)
    device = run("/usr/sbin/losetup", "--find", "--show", str(path)).strip()
    try:
        yield device
    finally:
        run("/usr/sbin/losetup", "--detach", device)


@contextmanager
def mounted(folder: Path, *argv: str) -> Iterator[Path]:
    """A filesystem that is mounted for a while."""
    folder.mkdir()
    run("/usr/bin/mount", *argv, str(folder))
    try:
        yield folder
    finally:
        run("/usr/bin/umount", str(folder))


def lsblk() -> dict[str, Any]:
    told = json.loads(run("/usr/bin/lsblk", "--json", "--output-all", "--bytes", "--list"))
    return {one["name"]: one for one in told["blockdevices"]}


def name_of(device: str) -> str:
    return device.removeprefix("/dev/")


def test_devices_are_those_that_lsblk_lists(tmp_path: Path) -> None:
    with ExitStack() as stack:
        plain = stack.enter_context(loop(tmp_path, "plain", 16))
        ext4 = stack.enter_context(loop(tmp_path, "ext4", 16))
        run("/usr/sbin/mkfs.ext4", "-q", "-L", "a label", ext4)
        swap = stack.enter_context(loop(tmp_path, "swap", 16))
        run("/usr/sbin/mkswap", "--label", "swapped", swap)
        place = stack.enter_context(mounted(tmp_path / "at", ext4))
        seen, told = Kernel().look(), lsblk()
        mine = {name_of(each) for each in (plain, ext4, swap)}
        devices = {each.name: each for each in seen.devices}
        assert mine <= set(devices)
        # Others may come and go meanwhile: their devices are theirs.
        for name in mine | ({each.name for each in seen.devices if each.name in told} - mine):
            device, row = devices[name], told[name]
            if name not in mine and name.startswith("loop"):
                continue
            assert device.number == row["maj:min"]
            assert device.size_bytes == row["size"]
            assert device.logical_sector_bytes == row["log-sec"]
            assert device.physical_sector_bytes == row["phy-sec"]
            assert device.is_read_only == row["ro"]
            assert device.is_removable == row["rm"]
            assert device.is_rotational == row["rota"]
            assert device.serial == (row["serial"] or device.serial)
            assert (device.model or None) in (row["model"], None)
        signatures = {each.name: each.signatures for each in seen.devices}
        (found,) = signatures[name_of(ext4)]
        superblock = dict(
            line.split(":", 1) for line in run("/usr/sbin/tune2fs", "-l", ext4).splitlines()[1:]
        )
        uuid = superblock["Filesystem UUID"].strip()
        assert (found.type, found.uuid) == ("ext4", uuid)
        assert found.label == superblock["Filesystem volume name"].strip() == "a label"
        (found,) = signatures[name_of(swap)]
        assert (found.type, found.label) == ("swap", "swapped")
        assert signatures[name_of(plain)] == ()
        graph = build(seen)
        nodes = {node.name: node for node in graph.nodes}
        assert nodes[str(place)].kind is Kind.MOUNT
        (filesystem,) = graph.lower(nodes[str(place)].id)
        assert filesystem == f"filesystem-{uuid}"
        assert graph.lower(filesystem) == (nodes[name_of(ext4)].id,)
        assert nodes[name_of(ext4)].facts["backing_file"] == str(tmp_path / "ext4")


def test_what_is_mounted_and_its_room_is_what_lsblk_says(tmp_path: Path) -> None:
    """What lies on devices it takes from udev, which guests have: tests/vm compares that."""
    with ExitStack() as stack:
        ext4, blank = (stack.enter_context(loop(tmp_path, each, 16)) for each in ("ext4", "blank"))
        run("/usr/sbin/mkfs.ext4", "-q", ext4)
        place = stack.enter_context(mounted(tmp_path / "at", ext4))
        again = stack.enter_context(mounted(tmp_path / "again", ext4))
        seen, told = Kernel().look(), lsblk()
        for path in (ext4, blank):
            (device,) = [each for each in seen.devices if each.name == name_of(path)]
            row = told[device.name]
            assert (device.wwn, device.transport, device.state) == tuple(
                row[key] or "" for key in ("wwn", "tran", "state")
            )
            at = {one.path for one in seen.mounts if one.number == device.number}
            assert at == {each for each in row["mountpoints"] if each}
        assert at == set() != {str(place), str(again)}
        row, room = told[name_of(ext4)], seen.rooms[min(str(place), str(again), key=len)]
        assert room.size_bytes == int(row["fssize"])
        assert room.available_bytes == int(row["fsavail"])
        assert room.size_bytes - room.free_bytes == int(row["fsused"])


def test_old_signatures_beside_new_ones_are_all_told(tmp_path: Path) -> None:
    """The beginning of an ext4 on a btrfs, whose superblock is further in: blkid cannot choose."""
    with ExitStack() as stack:
        device = stack.enter_context(loop(tmp_path, "twice", 128))
        run("/usr/sbin/mkfs.ext4", "-q", device)
        with Path(device).open("rb") as opened:
            saved = opened.read(4 << 10)
        run("/usr/sbin/mkfs.btrfs", "-q", "-f", device)
        with Path(device).open("r+b") as opened:
            opened.write(saved)
        (one,) = [each for each in Kernel().look().devices if each.name == name_of(device)]
        assert {each.type for each in one.signatures} == {"ambivalent", "ext4", "btrfs"}
        told = json.loads(run("/usr/sbin/wipefs", "--no-act", "--json", device))["signatures"]
        assert {each.type for each in one.signatures[:-1]} == {each["type"] for each in told}
        found = [each for each in health(Kernel().look())[1] if each.code == "STALE_SUPERBLOCK"]
        words = f"{name_of(device)} has signatures of btrfs, ext4:"
        assert any(each.message.startswith(words) for each in found)


def test_a_foreign_raid_that_nothing_has_put_together(tmp_path: Path) -> None:
    """A member of VIA's RAID, crafted: libblkid takes it by its last sector."""
    with loop(tmp_path, "via", 16) as device:
        record = bytearray(512)
        # Magic 0xAA55, version 0, a count of disks, and a sum of the first 50 bytes.
        record[0:4] = bytes((0x55, 0xAA, 0, 0))
        record[50] = sum(record[:50]) & 0xFF
        with Path(device).open("r+b") as opened:
            opened.seek(16 * MIB - 512)
            opened.write(record)
        told = run("/usr/sbin/blkid", "-p", "-o", "export", device)
        assert "TYPE=via_raid_member" in told
        found = [each for each in health(Kernel().look())[1] if name_of(device) in each.message]
        assert [each.code for each in found] == ["RAID_NOT_ACTIVE"]
        assert "via_raid_member" in found[0].message


def test_a_btrfs_of_two_devices_its_room_and_its_errors(tmp_path: Path) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(loop(tmp_path, "first", 300))
        second = stack.enter_context(loop(tmp_path, "second", 300))
        run("/usr/sbin/mkfs.btrfs", "-q", "-d", "raid1", "-m", "raid1", first, second)
        argv = ("-o", f"device={second}", first)
        place = stack.enter_context(mounted(tmp_path / "at", *argv))
        (place / "data").write_bytes(os.urandom(20 * MIB))
        run("/usr/bin/btrfs", "filesystem", "sync", str(place))
        seen = Kernel().look()
        uuid = run("/usr/sbin/blkid", "-s", "UUID", "-o", "value", "-p", first).strip()
        (pool,) = [each for each in seen.btrfs if each.uuid == uuid]
        assert [(each.device_id, each.name) for each in pool.devices] == [
            (1, name_of(first)),
            (2, name_of(second)),
        ]
        (room,) = [each for each in spaces(seen) if each.mount == str(place)]
        usage = run("/usr/bin/btrfs", "filesystem", "usage", "--raw", str(place))
        told = {
            key.strip(): value for key, value in re.findall(r"^ +([^:\n]+):\s+(\d+)", usage, re.M)
        }
        assert room.physical == int(told["Device size"])
        assert room.physical_used == int(told["Device allocated"])
        assert room.ratio == 2.0
        assert 20 * MIB <= room.used <= 22 * MIB
        assert room.free_least <= room.free_most
        assert room.free_most <= int(told["Device unallocated"]) // 2 + int(
            told["Device allocated"]
        )
        assert not [one for one in health(seen)[1] if one.id == f"filesystem-{uuid}"]
        # What really fits lies between the two numbers.
        written = filled(place / "filler")
        assert room.free_least * 0.8 <= written <= room.free_most * 1.02


def filled(path: Path) -> int:
    """Write until there is no room; answer how many bytes fitted."""
    written, block = 0, os.urandom(MIB)
    with path.open("wb", buffering=0) as file:
        while True:
            try:
                written += file.write(block)
                if written % (32 * MIB) == 0:
                    os.fsync(file.fileno())
            except OSError:
                return written


def test_silent_damage_shows_in_the_health(tmp_path: Path) -> None:
    """One of two copies is overwritten behind the filesystem's back; a scrub finds it."""
    with ExitStack() as stack:
        first = stack.enter_context(loop(tmp_path, "first", 300))
        second = stack.enter_context(loop(tmp_path, "second", 300))
        run("/usr/sbin/mkfs.btrfs", "-q", "-d", "raid1", "-m", "raid1", first, second)
        mark = os.urandom(64)
        with mounted(tmp_path / "before", "-o", f"device={second}", first) as place:
            (place / "data").write_bytes(mark * 100_000)
        damage(tmp_path / "second", mark)
        place = stack.enter_context(mounted(tmp_path / "at", "-o", f"device={second}", first))
        run("/usr/bin/btrfs", "scrub", "start", "-B", str(place))
        found = [one for one in health(Kernel().look())[1] if one.code == "BTRFS_ERRORS"]
        assert any(name_of(second) in one.message for one in found)
        assert (place / "data").read_bytes() == mark * 100_000


def damage(path: Path, mark: bytes) -> None:
    """Overwrite the middle of what was written, where it lies in the file of a device."""
    data = path.read_bytes()
    at = data.index(mark * 4)
    with path.open("r+b") as file:
        file.seek(at + 100_000)
        file.write(bytes(8192))
