"""btrfs: scrubbed, its devices changed, balanced; what goes on for long, looked at and ended.

The filesystem is the mounted one of that UUID, of which the kernel has one at most; which device
has which number in it is asked anew before one goes.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from hostlerd.privileged.grammar import array, flag, one_of, text, whole
from hostlerd.storage.model.btrfs import PROFILES
from hostlerd.storage.worker import btrfs_ioctl, btrfs_mount, btrfs_work, identity
from hostlerd.storage.worker.btrfs_long import Balance, Remove, Replace, Scrub, doing, is_scrubbed
from hostlerd.storage.worker.grammar import target, targets
from hostlerd.storage.worker.identity import Device
from hostlerd.storage.worker.operation import Operation, Request
from hostlerd.storage.worker.refused import Refused
from hostlerd.storage.worker.tools import Tools
from hostlerd.storage.worker.use import number_of

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_KINDS = ("scrub", "replace", "remove", "balance")
_ADD = 0x5000940A
_VOLUME_BYTES = 4096
_ID_MOST = (1 << 32) - 1
_BYTES_MOST = (1 << 63) - 1
_PARTS = 1000


def start_scrub(request: Request, _: Tools) -> dict[str, Any]:
    """Begin a scrub; it needs a mount for writing if it is to put anything right."""
    read_only = bool(request["is_read_only"])
    _start(request, Scrub(str(request["uuid"]), read_only), writable=not read_only)
    return {}


def start_replace(request: Request, _: Tools) -> dict[str, Any]:
    """Begin a replacement by a device that is zeroed before. A failure puts back what it held."""
    uuid, device_id, new = str(request["uuid"]), int(request["device_id"]), request.device("new")
    info = _proven(uuid, device_id, request.devices["old"])
    if new.target.size_bytes < info.total_bytes:
        raise Refused(
            "DEVICE_TOO_SMALL",
            f"{new.target.id} has {new.target.size_bytes} bytes: it needs {info.total_bytes}",
            device=new.target.id,
        )
    _refuse_unless_idle(uuid)
    request.erase(new)
    avoids = not request.devices["old"] or bool(request["avoids_old"])
    long = Replace(uuid, device_id, info.total_bytes, new.path, avoids)
    _start(request, long, writable=True)
    return {}


def add(request: Request, _: Tools) -> dict[str, Any]:
    """Add a device, zeroed before."""
    device = request.device("device")
    uuid = str(request["uuid"])
    with btrfs_mount.opened(uuid, writable=True) as fd:
        _refuse_unless_idle(uuid)
        request.erase(device)
        args, path = bytearray(_VOLUME_BYTES), device.path.encode()
        args[8 : 8 + len(path)] = path
        _call(request, fd, _ADD, args)
        btrfs_ioctl.sync(fd)
    return {}


def start_removal(request: Request, _: Tools) -> dict[str, Any]:
    """Begin to take a device out; nothing if it is in it no more."""
    uuid, device_id = str(request["uuid"]), int(request["device_id"])
    with btrfs_mount.opened(uuid, writable=True) as fd:
        if device_id not in btrfs_ioctl.filesystem(fd)[1]:
            return {}
    info = _proven(uuid, device_id, request.devices["device"])
    _start(request, Remove(uuid, device_id, info.used_bytes), writable=True)
    return {}


def start_balance(request: Request, _: Tools) -> dict[str, Any]:
    """Begin a balance."""
    long = Balance(
        str(request["data"]),
        str(request["metadata"]),
        int(request["usage_percent"]),
        bool(request["is_forced"]),
        tuple(request["kinds"]),
    )
    _start(request, long, writable=True)
    return {}


def cancel(request: Request, _: Tools) -> dict[str, Any]:
    """Have something cease that was begun here."""
    btrfs_work.cancel(str(request["uuid"]), str(request["kind"]))
    return {}


def look(request: Request, _: Tools) -> dict[str, Any]:
    """How far something is that was begun here, or what it came to.

    Also a replacement that the kernel goes on with by itself after a boot.
    """
    uuid, kind = str(request["uuid"]), str(request["kind"])
    found = btrfs_work.look(uuid, kind)
    if kind == "replace" and found["state"] != "running" and doing(uuid) == "device replace":
        with btrfs_mount.opened(uuid) as fd:
            seen = Replace(uuid, 0, _PARTS, "", avoids_old=False).progress(fd)
        found = asdict(seen) if seen is not None else found
    return {"work": found}


def reset_errors(request: Request, _: Tools) -> dict[str, Any]:
    """Set error counters to zero."""
    with btrfs_mount.opened(str(request["uuid"])) as fd:
        known = btrfs_ioctl.filesystem(fd)[1]
        for device_id in request["device_ids"]:
            if device_id in known:
                btrfs_ioctl.reset_errors(fd, device_id)
    return {}


def _refuse_unless_idle(uuid: str) -> None:
    """Raise Refused if something goes on that a change of devices does not go with.

    The kernel notices a scrub when it has begun to write to the new device, all over it.
    """
    busy = doing(uuid)
    with btrfs_mount.opened(uuid) as fd:
        if busy in ("", "none") and is_scrubbed(fd):
            busy = "scrub"
    if busy not in ("", "none"):
        raise Refused("BTRFS_BUSY", f"btrfs {uuid} is busy with {busy}", filesystem=uuid)


def _start(request: Request, long: btrfs_work.Long, *, writable: bool) -> None:
    try:
        btrfs_work.start(str(request["uuid"]), long, writable=writable)
    except OSError as e:
        raise _refusal(request, e) from None


def _call(request: Request, fd: int, asked: int, args: bytearray) -> None:
    try:
        btrfs_ioctl.call(fd, asked, args)
    except OSError as e:
        raise _refusal(request, e) from None


def _refusal(request: Request, e: OSError) -> Refused:
    uuid = str(request["uuid"])
    busy = e.errno in (errno.EBUSY, errno.EINPROGRESS, errno.EALREADY)
    reason = "BTRFS_BUSY" if busy else "BTRFS_REFUSED"
    return Refused(reason, f"btrfs {uuid}: {e.strerror}", filesystem=uuid)


def _proven(uuid: str, device_id: int, devices: tuple[Device, ...]) -> btrfs_ioctl.DeviceInfo:
    """A device as its filesystem has it. Raises Refused unless it is the one that is meant."""
    with btrfs_mount.opened(uuid) as fd:
        info = btrfs_ioctl.filesystem(fd)[1].get(device_id)
    if info is None:
        raise Refused("DEVICE_GONE", f"btrfs {uuid} has no device {device_id}", filesystem=uuid)
    number = number_of(info.path)
    for device in devices:
        if number != device.target.number:
            raise identity.changed(device.target, f"it is not device {device_id} of {uuid}")
    if not devices and number and btrfs_ioctl.is_device(info.path, uuid, device_id):
        raise Refused("DEVICE_BUSY", f"device {device_id} is not missing", device=info.name)
    return info


_UUID = text(UUID)
_PROFILE = one_of("", *PROFILES)

OPERATIONS: Mapping[str, Operation] = {
    "StartScrub": Operation({"uuid": _UUID, "is_read_only": flag}, start_scrub),
    "StartReplace": Operation(
        {
            "uuid": _UUID,
            "device_id": whole(1, _ID_MOST),
            "old": targets(0, 1),
            "new": target,
            "size_bytes": whole(1, _BYTES_MOST),
            "avoids_old": flag,
        },
        start_replace,
        overwrites=("new",),
        uses=("old",),
        optional=("avoids_old",),
    ),
    "AddBtrfsDevice": Operation({"uuid": _UUID, "device": target}, add, overwrites=("device",)),
    "StartRemoval": Operation(
        {
            "uuid": _UUID,
            "device_id": whole(1, _ID_MOST),
            "device": targets(0, 1),
            "used_bytes": whole(0, _BYTES_MOST),
        },
        start_removal,
        uses=("device",),
    ),
    "StartBalance": Operation(
        {
            "uuid": _UUID,
            "data": _PROFILE,
            "metadata": _PROFILE,
            "usage_percent": whole(0, 100),
            "kinds": array(one_of("data", "metadata"), 1, 2),
            "is_forced": flag,
        },
        start_balance,
    ),
    "CancelBtrfsWork": Operation({"uuid": _UUID, "kind": one_of(*_KINDS)}, cancel),
    "LookBtrfsWork": Operation({"uuid": _UUID, "kind": one_of(*_KINDS)}, look, only_reads=True),
    "ResetErrorCounters": Operation(
        {"uuid": _UUID, "device_ids": array(whole(1, _ID_MOST), 1, 128)}, reset_errors
    ),
}
