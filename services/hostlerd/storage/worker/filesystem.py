"""Filesystems: made, wiped, labelled, grown."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hostlerd.privileged.grammar import one_of, text, whole
from hostlerd.storage.model.filesystem import KINDS, label_fault, uuid_fault
from hostlerd.storage.worker import tools
from hostlerd.storage.worker.grammar import target
from hostlerd.storage.worker.identity import Device
from hostlerd.storage.worker.operation import Operation, Request
from hostlerd.storage.worker.refused import Refused
from hostlerd.storage.worker.tools import Tools
from hostlerd.storage.worker.use import number_of, plain

_FS_IOC_SETFSLABEL = 0x41009432
_LABEL_FIELD_BYTES = 256
_ANY = re.compile(r"[^\x00-\x1f\x7f]{0,255}")
_GROWN = tuple(name for name, kind in KINDS.items() if kind.grows)
# resize2fs asks for a check of the whole filesystem before, and that takes its time.
_CHECK_TIMEOUT_S = 3600.0
_CORRECTED = (0, 1)


def make(request: Request, tools_: Tools) -> dict[str, Any]:
    """Make a filesystem. What was saved is zeroed first, so that no older superblock shines on."""
    device, kind = request.device("device"), str(request["type"])
    label, uuid = str(request["label"]), str(request["uuid"])
    _refuse(kind, label, uuid)
    request.erase(device)
    tools_.run(_MAKE[kind](device.path, label, uuid))
    found = tools.signatures(device.path)
    if [one.type for one in found] != [kind]:
        raise Refused("NOT_MADE", f"no {kind} is to be seen there", device=device.target.id)
    return {"uuid": found[0].uuid}


def _refuse(kind: str, label: str, uuid: str) -> None:
    faults = [
        (field, why)
        for field, why in (("label", label_fault(kind, label)), ("uuid", uuid_fault(kind, uuid)))
        if why
    ]
    if faults:
        raise Refused("INVALID", "; ".join(f"{f}: {why}" for f, why in faults), faults)


# None of them discards: what nobody has overwritten yet could still be read, if it was a mistake.
def _ext4(path: str, label: str, uuid: str) -> tuple[str, ...]:
    more = (*_option("-L", label), *_option("-U", uuid))
    # -F for a device that is no partition; one that is mounted would take it twice.
    return ("/usr/sbin/mkfs.ext4", "-q", "-F", "-E", "nodiscard", *more, path)


def _btrfs(path: str, label: str, uuid: str) -> tuple[str, ...]:
    more = (*_option("-L", label), *_option("-U", uuid))
    return ("/usr/sbin/mkfs.btrfs", "-q", "--nodiscard", *more, path)


def _xfs(path: str, label: str, uuid: str) -> tuple[str, ...]:
    more = (*_option("-L", label), *(("-m", f"uuid={uuid}") if uuid else ()))
    return ("/usr/sbin/mkfs.xfs", "-q", "-K", *more, path)


def _vfat(path: str, label: str, uuid: str) -> tuple[str, ...]:
    more = (*_option("-n", label), *_option("-i", uuid.replace("-", "")))
    return ("/usr/sbin/mkfs.vfat", "-I", "--mbr=n", *more, path)


def _swap(path: str, label: str, uuid: str) -> tuple[str, ...]:
    return ("/usr/sbin/mkswap", *_option("-L", label), *_option("-U", uuid), path)


def _option(name: str, value: str) -> tuple[str, ...]:
    return (name, value) if value else ()


_MAKE = {"ext4": _ext4, "btrfs": _btrfs, "xfs": _xfs, "vfat": _vfat, "swap": _swap}


def wipe(request: Request, _: Tools) -> dict[str, Any]:
    """Zero what was saved, and see that nothing is found any more."""
    device = request.device("device")
    request.erase(device)
    if left := tools.signatures(device.path):
        words = ", ".join(one.type for one in left)
        raise Refused("NOT_WIPED", f"{words} is still to be seen", device=device.target.id)
    return {}


def set_label(request: Request, tools_: Tools) -> dict[str, Any]:
    """Set a label: through the kernel where the filesystem is mounted, else by its tool."""
    device, kind, label = request.device("device"), str(request["type"]), str(request["label"])
    _refuse(kind, label, "")
    _refuse_unless_same(device)
    place = mount_of(device)
    if place is None:
        tools_.run(_LABEL[kind](device.path, label))
    elif KINDS[kind].labels_in_use:
        _set_mounted(place, label)
    else:
        raise Refused(
            "DEVICE_BUSY",
            f"{device.target.id} is in use: {kind} takes a label only while it is not",
            device=device.target.id,
        )
    return {}


def _set_mounted(place: str, label: str) -> None:
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _FS_IOC_SETFSLABEL, label.encode().ljust(_LABEL_FIELD_BYTES, b"\0"))
    finally:
        os.close(fd)


_LABEL: Mapping[str, Callable[[str, str], tuple[str, ...]]] = {
    "ext4": lambda path, label: ("/usr/sbin/tune2fs", "-L", label, path),
    "btrfs": lambda path, label: ("/usr/bin/btrfs", "filesystem", "label", path, label),
    "xfs": lambda path, label: ("/usr/sbin/xfs_admin", "-L", label or "--", path),
    "vfat": lambda path, label: (
        ("/usr/sbin/fatlabel", path, label) if label else ("/usr/sbin/fatlabel", "-r", path)
    ),
    "swap": lambda path, label: ("/usr/sbin/swaplabel", "-L", label, path),
}


def grow(request: Request, tools_: Tools) -> dict[str, Any]:
    """Grow a filesystem to the end of its device, mounted or, for ext4, not."""
    device, kind = request.device("device"), str(request["type"])
    _refuse_unless_same(device)
    place = mount_of(device)
    if place is None and not KINDS[kind].grows_unmounted:
        raise Refused(
            "NOT_MOUNTED",
            f"{device.target.id}: {kind} grows only while it is mounted",
            device=device.target.id,
        )
    if kind == "ext4":
        if place is None:
            check = ("/usr/sbin/e2fsck", "-f", "-p", device.path)
            tools_.run(check, timeout_s=_CHECK_TIMEOUT_S, good=_CORRECTED)
        tools_.run(("/usr/sbin/resize2fs", device.path), timeout_s=_CHECK_TIMEOUT_S)
    elif kind == "xfs":
        tools_.run(("/usr/sbin/xfs_growfs", "-d", str(place)))
    else:
        resize = ("/usr/bin/btrfs", "filesystem", "resize", f"{_device_id(device)}:max", str(place))
        tools_.run(resize)
    return {}


def _device_id(device: Device) -> int:
    """The number of a device in its btrfs. Source: Linux fs/btrfs, struct btrfs_super_block."""
    return int.from_bytes(os.pread(device.fd, 8, 0x10000 + 0xC9), "little")


def _refuse_unless_same(device: Device) -> None:
    found = tuple(f"{one.type} {one.uuid}".rstrip() for one in tools.signatures(device.path))
    if tuple(sorted(found)) != device.target.signatures:
        raise Refused(
            "SIGNATURES_CHANGED",
            f"{device.target.id} holds {', '.join(found) or 'nothing'} now",
            device=device.target.id,
        )


def mount_of(device: Device) -> str | None:
    """Where a device's filesystem is mounted with its root, or at all; None if it is not.

    A swap area that is in use has no such place, and is answered as "".
    """
    found = {}
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        fields = line.split(" ")
        source = plain(fields[fields.index("-", 6) + 2])
        if device.target.number in (fields[2], number_of(source)):
            found[plain(fields[3])] = plain(fields[4])
    if found:
        return found.get("/", next(iter(found.values())))
    for line in Path("/proc/swaps").read_text().splitlines()[1:]:
        if number_of(plain(line.split()[0])) == device.target.number:
            return ""
    return None


OPERATIONS: Mapping[str, Operation] = {
    "MakeFilesystem": Operation(
        {"device": target, "type": one_of(*KINDS), "label": text(_ANY), "uuid": text(_ANY)},
        make,
        overwrites=("device",),
    ),
    "WipeSignatures": Operation({"device": target}, wipe, overwrites=("device",)),
    "SetLabel": Operation(
        {"device": target, "type": one_of(*KINDS), "label": text(_ANY), "before": text(_ANY)},
        set_label,
        uses=("device",),
    ),
    "GrowFilesystem": Operation(
        {"device": target, "type": one_of(*_GROWN), "size_bytes": whole(1, (1 << 63) - 1)},
        grow,
        uses=("device",),
    ),
}
