"""Mounted btrfs filesystems: sysfs, and which device has which id, which only an ioctl tells.

Source: Linux fs/btrfs/sysfs.c, include/uapi/linux/btrfs.h.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from hostlerd.storage.model.observed import Btrfs, BtrfsAllocation, BtrfsDevice, Mount
from hostlerd.storage.worker.sysfs import number, text

_ROOT = Path("/sys/fs/btrfs")
_KINDS = ("data", "metadata", "system")
_PROFILES = frozenset(
    ("single", "dup", "raid0", "raid1", "raid1c3", "raid1c4", "raid10", "raid5", "raid6")
)


_FS_INFO = 0x8400941F
"""_IOR(0x94, 31, struct btrfs_ioctl_fs_info_args), of 1024 bytes."""
_FS_INFO_HEAD = struct.Struct("=QQ16s")
_DEV_INFO = 0xD000941E
"""_IOWR(0x94, 30, struct btrfs_ioctl_dev_info_args), of 4096 bytes."""
_DEV_INFO_HEAD = struct.Struct("=Q16sQQ")
_DEV_INFO_PATH = 4096 - 1024
_IDS_MOST = 4096


def filesystems(mounts: Iterable[Mount]) -> tuple[Btrfs, ...]:
    """All that are mounted somewhere; none where the kernel has no btrfs."""
    if not _ROOT.is_dir():
        return ()
    names = _names_by_id(mount for mount in mounts if mount.type == "btrfs")
    return tuple(
        _filesystem(folder, names.get(folder.name, {}))
        for folder in sorted(_ROOT.iterdir())
        if (folder / "allocation").is_dir()
    )


def _filesystem(folder: Path, names: Mapping[int, str]) -> Btrfs:
    return Btrfs(
        uuid=folder.name,
        label=text(folder / "label"),
        devices=tuple(_devices(folder, names)),
        allocations=tuple(_allocations(folder)),
    )


def _devices(folder: Path, names: Mapping[int, str]) -> Iterator[BtrfsDevice]:
    ids = sorted(int(entry.name) for entry in (folder / "devinfo").iterdir())
    for device_id in ids:
        entry = folder / "devinfo" / str(device_id)
        missing = text(entry / "missing") == "1"
        name = "" if missing else names.get(device_id, "")
        yield BtrfsDevice(name, device_id, missing, _errors(entry))


def _names_by_id(mounts: Iterable[Mount]) -> dict[str, dict[int, str]]:
    """The kernel's names of the devices of each filesystem, by UUID and id."""
    found: dict[str, dict[int, str]] = {}
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
            of, names = _ask(opened)
        except OSError:
            continue
        finally:
            os.close(opened)
        found[of] = names
    return found


def _ask(opened: int) -> tuple[str, dict[int, str]]:
    info = bytearray(1024)
    fcntl.ioctl(opened, _FS_INFO, info)
    last_id, count, fsid = _FS_INFO_HEAD.unpack_from(info)
    names: dict[int, str] = {}
    for device_id in range(min(last_id, _IDS_MOST) + 1):
        if len(names) == count:
            break
        args = bytearray(4096)
        struct.pack_into("=Q", args, 0, device_id)
        try:
            fcntl.ioctl(opened, _DEV_INFO, args)
        except OSError as e:
            if e.errno == errno.ENODEV:
                continue
            raise
        path = bytes(args[_DEV_INFO_PATH:]).split(b"\0")[0].decode("utf-8", "surrogateescape")
        names[device_id] = Path(path).name if path else ""
    return str(uuid.UUID(bytes=fsid)), names


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
