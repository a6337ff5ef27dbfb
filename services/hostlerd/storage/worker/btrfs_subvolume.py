"""Subvolumes of btrfs: listed, made, deleted.

One is deleted by its number, after its UUID, its path and the transaction that changed it last were
compared with what the plan saw: no name is followed then.
"""

from __future__ import annotations

import errno
import os
import re
import struct
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from hostlerd.privileged.grammar import Check, flag, text, whole
from hostlerd.privileged.refused import Fault
from hostlerd.storage.model.btrfs import TOP_ID, Subvolume, path_fault
from hostlerd.storage.worker import btrfs_mount
from hostlerd.storage.worker.btrfs import UUID
from hostlerd.storage.worker.btrfs_ioctl import call, sync
from hostlerd.storage.worker.btrfs_tree import MOST, subvolume_of, subvolumes
from hostlerd.storage.worker.operation import Operation, Request
from hostlerd.storage.worker.refused import Refused
from hostlerd.storage.worker.tools import Tools

_SNAPSHOT, _CREATE, _DESTROY = 0x50009417, 0x50009418, 0x5000943F
_ARGS_BYTES, _NAME_AT = 4096, 56
_READ_ONLY, _BY_ID = 1 << 1, 1 << 4
_ID_MOST = (1 << 63) - 1
_UUID = text(UUID)
_UUID_OR_NONE = text(re.compile(f"({UUID.pattern})?"))


def listed(request: Request, _: Tools) -> dict[str, Any]:
    """All subvolumes of a filesystem, after a sync if what was written last is to show."""
    with btrfs_mount.opened(str(request["uuid"])) as fd:
        if request["sync"]:
            sync(fd)
        found = subvolumes(fd)
    return {"items": [asdict(one) for one in found[:MOST]]}


def create(request: Request, _: Tools) -> dict[str, Any]:
    """Make a subvolume."""
    return _make(request, None)


def snapshot(request: Request, _: Tools) -> dict[str, Any]:
    """Make a snapshot, of the very subvolume that the plan saw."""
    with btrfs_mount.folder(str(request["uuid"]), str(request["source"])) as source:
        found = subvolume_of(source)
        if found != (request["source_id"], ""):
            raise _changed(request, f"{request['source']} is subvolume {found[0]} now")
        _find(request, source, str(request["source"]), str(request["source_uuid"]))
        return _make(request, source)


def _make(request: Request, source: int | None) -> dict[str, Any]:
    above, _, name = str(request["path"]).rpartition("/")
    with btrfs_mount.folder(str(request["uuid"]), above) as fd:
        args, encoded = bytearray(_ARGS_BYTES), name.encode()
        flags = _READ_ONLY if request["is_read_only"] else 0
        struct.pack_into("=qQQ", args, 0, source or 0, 0, flags)
        args[_NAME_AT : _NAME_AT + len(encoded)] = encoded
        try:
            call(fd, _CREATE if source is None else _SNAPSHOT, args)
        except FileExistsError:
            raise Refused("SUBVOLUME_EXISTS", f"there is a {request['path']} already") from None
        sync(fd)
    return {}


def take_back(request: Request, _: Tools) -> dict[str, Any]:
    """Delete what was just made, if nobody has used it; nothing if it is not there."""
    uuid, path = str(request["uuid"]), str(request["path"])
    with btrfs_mount.opened(uuid, writable=True) as fd:
        sync(fd)
        found = next((one for one in subvolumes(fd) if one.path == path), None)
        if found is None:
            return {}
        if found.source_uuid != request["source_uuid"] or not _is_unused(uuid, found):
            raise _changed(request, f"{path} is in use by now: it is left as it is")
        _destroy(request, fd, found)
    return {}


def _is_unused(uuid: str, found: Subvolume) -> bool:
    if found.source_uuid:
        return found.is_read_only or found.generation <= found.created_generation
    with btrfs_mount.folder(uuid, found.path) as inner:
        return not os.listdir(inner)  # noqa: PTH208


def delete(request: Request, _: Tools) -> dict[str, Any]:
    """Delete a subvolume, the very one that the plan saw."""
    with btrfs_mount.opened(str(request["uuid"]), writable=True) as fd:
        sync(fd)
        found = _find(request, fd, str(request["path"]), str(request["subvolume_uuid"]))
        if (found.id, found.generation) != (request["id"], request["generation"]):
            raise _changed(request, f"{found.path} has been written to since the plan was made")
        _destroy(request, fd, found)
    return {}


def _find(request: Request, fd: int, path: str, uuid: str) -> Subvolume:
    for one in subvolumes(fd):
        if one.path == path and one.uuid == uuid:
            return one
    raise _changed(request, f"{path} is not the subvolume that the plan saw")


def _destroy(request: Request, fd: int, found: Subvolume) -> None:
    inside = f"{found.path}/"
    for root, where in btrfs_mount.roots(str(request["uuid"])):
        if root == found.path or root.startswith(inside):
            raise Refused("SUBVOLUME_BUSY", f"{found.path} is mounted on {where}")
    args = bytearray(_ARGS_BYTES)
    struct.pack_into("=qQQ", args, 0, 0, 0, _BY_ID)
    struct.pack_into("=Q", args, _NAME_AT, found.id)
    try:
        call(fd, _DESTROY, args)
    except OSError as e:
        why = {
            errno.ENOTEMPTY: "another subvolume is in it",
            errno.EPERM: "it is what is mounted by default, or is being sent",
        }
        if e.errno not in why:
            raise
        raise Refused("SUBVOLUME_BUSY", f"{found.path}: {why[e.errno]}") from None
    sync(fd)


def _changed(request: Request, words: str) -> Refused:
    return Refused("SUBVOLUME_CHANGED", words, filesystem=str(request["uuid"]))


def _path(is_top_allowed: bool) -> Check:
    def check(value: Any, path: str, faults: list[Fault]) -> None:
        if not isinstance(value, str):
            faults.append((path, "must be a string"))
        elif (value or not is_top_allowed) and (why := path_fault(value)):
            faults.append((path, why))

    return check


OPERATIONS: Mapping[str, Operation] = {
    "ListSubvolumes": Operation({"uuid": _UUID, "sync": flag}, listed, only_reads=True),
    "CreateSubvolume": Operation({"uuid": _UUID, "path": _path(False)}, create),
    "CreateSnapshot": Operation(
        {
            "uuid": _UUID,
            "source": _path(True),
            "source_id": whole(TOP_ID, _ID_MOST),
            "source_uuid": _UUID,
            "path": _path(False),
            "is_read_only": flag,
        },
        snapshot,
    ),
    "TakeBackSubvolume": Operation(
        {"uuid": _UUID, "path": _path(False), "source_uuid": _UUID_OR_NONE}, take_back
    ),
    "DeleteSubvolume": Operation(
        {
            "uuid": _UUID,
            "path": _path(False),
            "id": whole(256, _ID_MOST),
            "subvolume_uuid": _UUID,
            "generation": whole(0, _ID_MOST),
        },
        delete,
    ),
}
