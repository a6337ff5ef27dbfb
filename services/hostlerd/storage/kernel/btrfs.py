"""Mounted btrfs filesystems: sysfs, and which device has which id, which only an ioctl tells.

Source: Linux fs/btrfs/sysfs.c, include/uapi/linux/btrfs.h.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from hostlerd.storage.model.observed import (
    Btrfs,
    BtrfsAllocation,
    BtrfsDevice,
    Device,
    Mount,
    Signature,
)
from hostlerd.storage.worker.btrfs_ioctl import DeviceInfo, filesystem
from hostlerd.storage.worker.sysfs import BTRFS, number, text

_KINDS = ("data", "metadata", "system")
_PROFILES = frozenset(
    ("single", "dup", "raid0", "raid1", "raid1c3", "raid1c4", "raid10", "raid5", "raid6")
)


def filesystems(mounts: Iterable[Mount]) -> tuple[Btrfs, ...]:
    """All that are mounted somewhere; none where the kernel has no btrfs."""
    if not BTRFS.is_dir():
        return ()
    infos = _infos(mount for mount in mounts if mount.type == "btrfs")
    return tuple(
        _filesystem(folder, infos.get(folder.name, {}))
        for folder in sorted(BTRFS.iterdir())
        if (folder / "allocation").is_dir()
    )


Again = Callable[[Device], tuple[Signature, ...] | None]
"""What lies on a device now; None if it does not answer."""


def attached(pools: Iterable[Btrfs], devices: Iterable[Device], again: Again) -> tuple[Btrfs, ...]:
    """The same, with what was pulled as missing.

    The kernel goes on to have a device that was pulled by the name that it had, which is soon the
    name of another one: a device is the filesystem's if it has its superblock. The target of a
    replacement, which has the number 0, gets one at the end.
    """
    known: dict[str, Device] = {}
    for device in devices:
        names = (link.rpartition("/")[2] for link in device.links)
        known |= {name: device for name in (*names, device.dm_name) if name and name not in known}
        known[device.name] = device

    def looked_at(pool: Btrfs, one: BtrfsDevice) -> BtrfsDevice:
        if one.is_missing or not one.name or not one.device_id:
            return one
        device = known.get(one.name)
        if device is not None and not _is_of(pool, device.signatures):
            # It may have become one since all devices were looked at.
            now = again(device)
            device = device if now is None or _is_of(pool, now) else None
        if device is None:
            return replace(one, name="", is_missing=True)
        return replace(one, name=device.name)

    return tuple(
        replace(pool, devices=tuple(looked_at(pool, one) for one in pool.devices)) for pool in pools
    )


def _is_of(pool: Btrfs, signatures: Iterable[Signature]) -> bool:
    return any(one.type == "btrfs" and one.uuid == pool.uuid for one in signatures)


def _filesystem(folder: Path, infos: Mapping[int, DeviceInfo]) -> Btrfs:
    return Btrfs(
        uuid=folder.name,
        label=text(folder / "label"),
        devices=tuple(_devices(folder, infos)),
        allocations=tuple(_allocations(folder)),
        exclusive_operation=text(folder / "exclusive_operation"),
    )


def _devices(folder: Path, infos: Mapping[int, DeviceInfo]) -> Iterator[BtrfsDevice]:
    ids = sorted(int(entry.name) for entry in (folder / "devinfo").iterdir())
    for device_id in ids:
        entry = folder / "devinfo" / str(device_id)
        missing = text(entry / "missing") == "1"
        info = infos.get(device_id, DeviceInfo("", 0, 0))
        yield BtrfsDevice(
            name="" if missing else info.name,
            device_id=device_id,
            is_missing=missing,
            errors=_errors(entry),
            size_bytes=info.total_bytes,
            allocated_bytes=info.used_bytes,
        )


def _infos(mounts: Iterable[Mount]) -> dict[str, Mapping[int, DeviceInfo]]:
    """What each filesystem says of its devices, by UUID and id."""
    found: dict[str, Mapping[int, DeviceInfo]] = {}
    seen: set[str] = set()
    for mount in mounts:
        if mount.number in seen:
            continue
        seen.add(mount.number)
        try:
            opened = os.open(mount.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            of, infos = filesystem(opened)
        except OSError:
            continue
        finally:
            os.close(opened)
        found[of] = infos
    return found


def _errors(entry: Path) -> dict[str, int]:
    errors: dict[str, int] = {}
    for line in text(entry / "error_stats").splitlines():
        key, _, value = line.partition(" ")
        if value.isdigit():
            errors[key] = int(value)
    return errors


def _allocations(folder: Path) -> Iterator[BtrfsAllocation]:
    for kind in _KINDS:
        place = folder / "allocation" / kind
        if not place.is_dir():
            continue
        for profile in sorted(entry.name for entry in place.iterdir() if entry.name in _PROFILES):
            yield BtrfsAllocation(
                kind=kind,
                profile=profile,
                total=number(place / profile / "total_bytes"),
                used=number(place / profile / "used_bytes"),
                on_disk_total=number(place / "disk_total"),
                on_disk_used=number(place / "disk_used"),
            )
