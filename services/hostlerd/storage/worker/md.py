"""Arrays of md: made, mended, grown, compared, stopped, started, ended.

Before a member goes, what the kernel has of the array now is looked at once more: no request takes
the last copy of anything, whatever was true when it was planned.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hostlerd.privileged.grammar import array, flag, one_of, text, whole
from hostlerd.storage.model.array import MADE, NAME, Array
from hostlerd.storage.model.target import signature_words
from hostlerd.storage.worker import identity, md_look, sysfs, tools, use
from hostlerd.storage.worker.grammar import NAME as KERNEL_NAME
from hostlerd.storage.worker.grammar import read_target, target, targets
from hostlerd.storage.worker.identity import Device
from hostlerd.storage.worker.operation import Operation, Request
from hostlerd.storage.worker.refused import Refused
from hostlerd.storage.worker.tools import Tools

_MDADM = "/usr/sbin/mdadm"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LAYOUT = re.compile(r"([nfo][1-9][0-9]?|(left|right)-(a?symmetric))?")
_MEMBERS_MOST = 128
_KIB = 1024
_SPEED_MOST_KIB = 1 << 30


def create(request: Request, tools_: Tools) -> dict[str, Any]:
    """Make an array. What was saved is zeroed first: no older superblock shines through."""
    name, devices = str(request["name"]), request.devices["devices"]
    spares = request.devices["spares"]
    link = Path("/dev/md") / name
    if link.is_symlink() or link.exists():
        raise Refused("ARRAY_EXISTS", f"there is a {link} already")
    for device in (*devices, *spares):
        request.erase(device)
    argv = [_MDADM, "--create", str(link), "--run", "--metadata=1.2", f"--name={name}"]
    argv += [f"--level={request['level']}", f"--raid-devices={len(devices)}"]
    argv += [f"--spare-devices={len(spares)}"] if spares else []
    argv += [f"--layout={request['layout']}"] if request["layout"] else []
    argv += [f"--chunk={request['chunk_bytes'] // _KIB}"] if request["chunk_bytes"] else []
    if request["level"] != "raid0":
        argv += ["--bitmap=internal" if request["bitmap"] else "--bitmap=none"]
    argv += ["--assume-clean"] if request["assume_clean"] else []
    paths = [one.path for one in devices]
    if mostly := request["write_mostly"]:
        # It holds for the devices that come after it.
        paths.insert(len(paths) - mostly, "--write-mostly")
    tools_.run([*argv, *paths, *(one.path for one in spares)])
    for holder in sysfs.names(devices[0].folder / "holders"):
        if made := md_look.read(sysfs.BLOCK / holder):
            return {"name": made.name, "uuid": made.uuid}
    raise Refused("NOT_MADE", f"no array {name} is to be seen")


def add(request: Request, tools_: Tools) -> dict[str, Any]:
    """Add a device, zeroed first so that md takes it for a new one."""
    _proven(request.device("array"), str(request["uuid"]))
    request.erase(request.device("device"))
    return _manage(request, tools_, "--add", request.device("device").path)


def re_add(request: Request, tools_: Tools) -> dict[str, Any]:
    """Add a device back to the array that it is of."""
    device = request.device("device")
    _proven(request.device("array"), str(request["uuid"]))
    use.refuse_if_used(device, tools.probe)
    return _manage(request, tools_, "--re-add", device.path)


def fail(request: Request, tools_: Tools) -> dict[str, Any]:
    """Mark a member as failed."""
    found, name = _member(request)
    member = found.member(name)
    if member is None or member.is_faulty:
        return {}
    _refuse_last_copy(found, {name})
    return _manage(request, tools_, "--fail", request.device("device").path)


def remove(request: Request, tools_: Tools) -> dict[str, Any]:
    """Take a spare or a failed member out."""
    found, name = _member(request)
    member = found.member(name)
    if member is None:
        return {}
    if member.is_faulty:
        _refuse_last_copy(found, ())
    return _manage(request, tools_, "--remove", request.device("device").path)


def take_out(request: Request, tools_: Tools) -> dict[str, Any]:
    """Mark a device as failed and take it out, which was added a moment before."""
    found, name = _member(request)
    if found.member(name) is None:
        return {}
    _refuse_last_copy(found, {name})
    path = request.device("device").path
    return _manage(request, tools_, "--fail", path, "--remove", path)


def remove_detached(request: Request, tools_: Tools) -> dict[str, Any]:
    """Take out what is unplugged."""
    found = _proven(request.device("array"), str(request["uuid"]))
    gone = [one.name for one in found.members if not one.is_there]
    if not gone:
        return {}
    _refuse_last_copy(found, ())
    return _manage(request, tools_, "--fail", "detached", "--remove", "detached")


def replace(request: Request, tools_: Tools) -> dict[str, Any]:
    """Have md copy a member to a spare, unless it does or has done so."""
    if _is_copied(request):
        return {}
    old, new = request.device("old"), request.device("new")
    argv = [_MDADM, "--manage", request.device("array").path]
    argv += ["--replace", old.path, "--with", new.path]
    # The kernel begins with the spare as soon as the old one is marked, and if that comes before
    # mdadm says which spare is meant, it refuses the word: "is active and cannot be a replacement".
    answer = tools_.run(argv, good=(0, 1))
    if answer.status and not _is_copied(request):
        raise tools.failed(argv, answer)
    return {}


def _is_copied(request: Request) -> bool:
    """Whether the new one is being written in the old one's place, or has all of it."""
    found = _proven(request.device("array"), str(request["uuid"]))
    was = found.member(request.device("old").target.name)
    copy = found.member(request.device("new").target.name)
    if copy is None or copy.slot is None or copy.is_faulty:
        return False
    if copy.is_replacement:
        return was is None or was.slot in (None, copy.slot)
    return copy.is_whole and (was is None or was.is_faulty)


def reshape(request: Request, tools_: Tools) -> dict[str, Any]:
    """Use more devices, or more of each. The array's size is another one afterwards."""
    with _opened(request) as device:
        _proven(device, str(request["uuid"]))
    disks = request["raid_disks"]
    words = [f"--raid-devices={disks}"] if disks else ["--size=max"]
    tools_.run([_MDADM, "--grow", device.path, *words])
    return {}


def resume(request: Request, _: Tools) -> dict[str, Any]:
    """Have an array take writes that has waited for the first one, as if that had come."""
    device = request.device("array")
    if _proven(device, str(request["uuid"])).state == "read-auto":
        (device.folder / "md/array_state").write_text("active")
    return {}


def sync_action(request: Request, _: Tools) -> dict[str, Any]:
    """Have md compare, repair, or cease."""
    device = request.device("array")
    found, action = _proven(device, str(request["uuid"])), str(request["action"])
    if action == "idle":
        # Only what was begun here ceases: a rebuild would begin again by itself.
        if found.sync.action in ("check", "repair"):
            (device.folder / "md/sync_action").write_text("idle")
        return {}
    if found.sync.action == action:
        return {}
    if not found.sync.is_idle:
        raise Refused("ARRAY_BUSY", f"{found.name} is busy with {found.sync.action}")
    (device.folder / "md/sync_action").write_text(action)
    return {}


def sync_speed(request: Request, _: Tools) -> dict[str, Any]:
    """Bound the speed. The lower one first where it falls: it may never be above the other."""
    device = request.device("array")
    _proven(device, str(request["uuid"]))
    least, most = request["least_kib"], request["most_kib"]
    for name in ("sync_speed_min", "sync_speed_max"):
        (device.folder / "md" / name).write_text("system")
    for name, kib in (("sync_speed_max", most), ("sync_speed_min", least)):
        if kib:
            (device.folder / "md" / name).write_text(str(kib))
    return {}


def stop(request: Request, tools_: Tools) -> dict[str, Any]:
    """Stop an array. The kernel refuses if anybody has it open, so it must not be open here."""
    with _opened(request) as device:
        _proven(device, str(request["uuid"]))
    tools_.run([_MDADM, "--stop", device.path])
    return {}


def assemble(request: Request, tools_: Tools) -> dict[str, Any]:
    """Start an array of its members. What does not start whole is stopped again."""
    members = request.devices["devices"]
    for holder in {one for m in members for one in sysfs.names(m.folder / "holders")}:
        found = md_look.read(sysfs.BLOCK / holder)
        if found is not None and found.uuid == request["uuid"]:
            if found.state not in ("inactive", "clear"):
                return {"name": found.name}
            tools_.run([_MDADM, "--stop", identity.node(found.name)])
    argv = [_MDADM, "--assemble", f"/dev/md/{request['name']}", f"--uuid={request['uuid']}"]
    argv += ["--run"] if request["is_degraded"] else []
    try:
        tools_.run([*argv, *(one.path for one in members)])
    except Refused:
        for holder in sysfs.names(members[0].folder / "holders"):
            tools_.run([_MDADM, "--stop", identity.node(holder)], good=(0, 1))
        raise
    return {"name": ", ".join(sysfs.names(members[0].folder / "holders"))}


def discard(request: Request, tools_: Tools) -> dict[str, Any]:
    """Stop an array for good; what lies at its ends is saved before."""
    with _opened(request) as device:
        _proven(device, str(request["uuid"]))
        use.refuse_if_used(device, tools.probe)
        found = signature_words(tools.signatures(device.path))
        if found != device.target.signatures:
            raise Refused(
                "SIGNATURES_CHANGED",
                f"{device.target.id} holds {', '.join(found) or 'nothing'} by now",
                device=device.target.id,
            )
        kept = request.store.save(device, request.operation)
    tools_.run([_MDADM, "--stop", device.path])
    return {"saved": {device.target.id: kept}}


def zero(request: Request, _: Tools) -> dict[str, Any]:
    """Zero a member's superblock, and see that nothing is found any more."""
    device = request.device("device")
    request.erase(device)
    if left := tools.signatures(device.path):
        words = ", ".join(one.type for one in left)
        raise Refused("NOT_WIPED", f"{words} is still to be seen", device=device.target.id)
    return {}


def _manage(request: Request, tools_: Tools, *words: str) -> dict[str, Any]:
    tools_.run([_MDADM, "--manage", request.device("array").path, *words])
    return {}


@contextmanager
def _opened(request: Request) -> Iterator[Device]:
    """The array, open no longer than it takes to look at it. Raises Refused, OSError."""
    with identity.opened(read_target(request["array"])) as device:
        device.check()
        yield device


def _proven(device: Device, uuid: str) -> Array:
    """The array as it is now. Raises Refused unless it is the one that the plan saw."""
    found = md_look.read(device.folder)
    if found is None or found.uuid != uuid:
        raise identity.changed(device.target, "another array is there")
    return found


def _member(request: Request) -> tuple[Array, str]:
    found = _proven(request.device("array"), str(request["uuid"]))
    return found, request.device("device").target.name


def _refuse_last_copy(found: Array, without: Collection[str]) -> None:
    """Raise Refused unless all data is there without these members."""
    if found.has_all_data(without):
        return
    words = ", ".join(without) or "what has failed"
    raise Refused("LAST_COPY", f"{found.name} has no other copy of what is on {words}")


_ARRAY: Mapping[str, Any] = {"array": target, "uuid": text(_UUID)}
_ONE: Mapping[str, Any] = {**_ARRAY, "device": target}

OPERATIONS: Mapping[str, Operation] = {
    "CreateArray": Operation(
        {
            "name": text(NAME),
            "level": one_of(*MADE),
            "devices": targets(2, _MEMBERS_MOST),
            "spares": targets(0, _MEMBERS_MOST),
            "layout": text(_LAYOUT),
            "chunk_bytes": whole(0, 64 << 20),
            "bitmap": flag,
            "assume_clean": flag,
            "write_mostly": whole(0, _MEMBERS_MOST - 1),
        },
        create,
        overwrites=("devices", "spares"),
    ),
    "AddMember": Operation(_ONE, add, overwrites=("device",), uses=("array",)),
    "ReAddMember": Operation(_ONE, re_add, uses=("array", "device")),
    "FailMember": Operation(_ONE, fail, uses=("array", "device")),
    "RemoveMember": Operation(_ONE, remove, uses=("array", "device")),
    "TakeOutMember": Operation(_ONE, take_out, uses=("array", "device")),
    "RemoveDetached": Operation(
        {**_ARRAY, "names": array(text(KERNEL_NAME), 1, _MEMBERS_MOST)},
        remove_detached,
        uses=("array",),
    ),
    "ReplaceMember": Operation(
        {**_ARRAY, "old": target, "new": target}, replace, uses=("array", "old", "new")
    ),
    "ReshapeArray": Operation(
        {**_ARRAY, "raid_disks": whole(0, _MEMBERS_MOST), "whole_size": flag}, reshape
    ),
    "ResumeArray": Operation(_ARRAY, resume, uses=("array",)),
    "SetSyncAction": Operation(
        {**_ARRAY, "action": one_of("check", "repair", "idle")}, sync_action, uses=("array",)
    ),
    "SetSyncSpeed": Operation(
        {
            **_ARRAY,
            **{
                name: whole(0, _SPEED_MOST_KIB)
                for name in (
                    *("least_kib", "most_kib"),
                    *("least_kib_before", "most_kib_before"),
                )
            },
        },
        sync_speed,
        uses=("array",),
    ),
    "StopArray": Operation(
        {
            **_ARRAY,
            "name": text(NAME),
            "devices": targets(0, _MEMBERS_MOST),
            "is_degraded": flag,
        },
        stop,
        uses=("devices",),
    ),
    "AssembleArray": Operation(
        {
            "uuid": text(_UUID),
            "name": text(NAME),
            "devices": targets(1, _MEMBERS_MOST),
            "is_degraded": flag,
        },
        assemble,
        uses=("devices",),
    ),
    "DiscardArray": Operation(_ARRAY, discard),
    "ZeroMember": Operation({"device": target}, zero, overwrites=("device",)),
}
