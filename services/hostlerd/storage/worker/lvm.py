"""Groups and volumes of LVM: made, grown, moved, mended, merged, ended.

Before each change the group's description is held against what the plan saw, and kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from hostlerd.privileged.grammar import array, flag, one_of, text, whole
from hostlerd.storage.model.lvm import EXTENTS_MOST, KINDS, NAME, UUID, Group, group_name_fault
from hostlerd.storage.model.saved import ID
from hostlerd.storage.worker import lvm_saved, lvm_tool
from hostlerd.storage.worker.grammar import PLACE, read_target, target, targets
from hostlerd.storage.worker.lvm_look import (
    device_of,
    has_ended,
    look,
    path_of,
    proven,
    refuse_name,
    refuse_unless_free,
    volume,
)
from hostlerd.storage.worker.operation import Operation, Request
from hostlerd.storage.worker.refused import Refused
from hostlerd.storage.worker.tools import Tools

_DEVICES_MOST = 256
_POLL_EVERY_S = "1"
_NO_NAME = re.compile(r"|[A-Za-z0-9+_.][A-Za-z0-9+_.-]{0,126}")

# What the kernel has to have for a kind of volume, or else for a command.
_TARGETS: Mapping[str, tuple[str, ...]] = {
    "raid1": ("raid",),
    **dict.fromkeys(("thin-pool", "thin"), ("thin-pool",)),
    "lvcreate": ("snapshot", "thin-pool"),
    "lvconvert": ("snapshot", "thin-pool", "raid"),
    "lvchange": ("snapshot", "thin-pool", "raid"),
    "pvmove": ("mirror",),
}

Change = Callable[[Request, Tools, Group], tuple[str, ...]]
"""What a change has to say to LVM: the command and its words, empty if nothing is to be done."""


def create_group(request: Request, tools_: Tools) -> dict[str, Any]:
    """Make a group. What was saved is zeroed first: no older superblock shines through."""
    name, devices = str(request["group"]), request.devices["devices"]
    if why := group_name_fault(name):
        raise Refused("INVALID", f"group: {why}", [("group", why)])
    if any(one.name == name for one in lvm_tool.groups(devices)):
        raise Refused("GROUP_EXISTS", f"there is a group {name}")
    for device in devices:
        request.erase(device)
    size = f"{request['extent_bytes']}b"
    words = ("--physicalextentsize", size, name, *(one.path for one in devices))
    tools_.run(lvm_tool.argv("vgcreate", devices, *words))
    return {}


def extend_group(request: Request, tools_: Tools) -> dict[str, Any]:
    """Add a device, zeroed first."""
    group, devices = proven(request), request.devices["devices"]
    kept = lvm_saved.keep(request.store, devices, group, tools_)
    new = request.device("device")
    request.erase(new)
    tools_.run(lvm_tool.argv("vgextend", (*devices, new), group.name, new.path))
    return {"kept": kept}


def _change(make: Change, *, ends: bool = False) -> Callable[[Request, Tools], dict[str, Any]]:
    """An operation that proves the group, keeps its description, and says one word to LVM.

    `ends` says that the group is gone afterwards.
    """

    def run(request: Request, tools_: Tools) -> dict[str, Any]:
        if ends and has_ended(request):
            return {}
        group = proven(request)
        command, *words = make(request, tools_, group) or ("",)
        if not command:
            return {}
        devices = request.devices["devices"]
        kept = lvm_saved.keep(request.store, devices, group, tools_)
        lvm_tool.load(*_TARGETS.get(str(request["kind"] or command), ()))
        tools_.run(lvm_tool.argv(command, devices, *words))
        return {"kept": kept}

    return run


def reduce_group(request: Request, _: Tools, group: Group) -> tuple[str, ...]:
    """Take a device out that nothing lies on; nothing if it is in it no more."""
    device = device_of(request, str(request["number"]))
    found = group.carrier(device.target.number)
    if found is None:
        return ()
    if found.used_extents:
        words = f"{found.used_extents} extents of {group.name} lie on {device.path}"
        raise Refused("PHYSICAL_VOLUME_IN_USE", words, group=group.uuid)
    return "vgreduce", group.name, device.path


def remove_missing(_: Request, __: Tools, group: Group) -> tuple[str, ...]:
    """Do without what is missing. LVM refuses if a volume needs it."""
    return ("vgreduce", "--removemissing", group.name) if group.missing else ()


def remove_group(_: Request, __: Tools, group: Group) -> tuple[str, ...]:
    """End a group. Without --yes or --force LVM refuses one that has volumes, and so does this."""
    if group.visible:
        words = ", ".join(one.name for one in group.visible[:8])
        raise Refused("GROUP_NOT_EMPTY", f"{group.name} has {words}", group=group.uuid)
    return "vgremove", group.name


def create_volume(request: Request, _: Tools, group: Group) -> tuple[str, ...]:
    """Make a volume. What an old one has left in its extents is wiped."""
    name, kind = str(request["volume"]), str(request["kind"])
    refuse_name(group, name)
    extents, parts = str(request["extents"]), int(request["parts"])
    on = [path_of(request, one) for one in request["numbers"]]
    if kind == "thin":
        size = f"{request['extents'] * group.extent_bytes}b"
        thin = ("--virtualsize", size, "--thinpool", str(request["pool"]))
        return "lvcreate", "--type", "thin", "--name", name, *thin, group.name
    words = ["lvcreate", "--type", kind, "--name", name, "--extents", extents]
    if kind == "thin-pool":
        metadata = request["metadata_extents"] * group.extent_bytes
        words += ["--poolmetadatasize", f"{metadata}b", "--zero", "y"]
    else:
        words += ["--wipesignatures", "y", "--zero", "y", "--yes"]
    if kind == "striped":
        words += ["--stripes", str(parts), "--stripesize", f"{request['stripe_bytes']}b"]
    if kind == "raid1":
        words += ["--mirrors", str(parts - 1)]
    return (*words, group.name, *on)


def grow_volume(request: Request, _: Tools, group: Group) -> tuple[str, ...]:
    """Give a volume more extents; nothing if it has them."""
    found = volume(request, group)
    if found.size_bytes >= request["extents"] * group.extent_bytes:
        return ()
    on = [path_of(request, one) for one in request["numbers"]]
    return "lvextend", "--extents", str(request["extents"]), f"{group.name}/{found.name}", *on


def snapshot(request: Request, _: Tools, group: Group) -> tuple[str, ...]:
    """Take a snapshot: with room of its own, or in the pool of a thin volume."""
    found, name = volume(request, group), str(request["snapshot"])
    refuse_name(group, name)
    words = ["lvcreate", "--snapshot", "--name", name]
    words += ["--extents", str(request["extents"])] if request["extents"] else []
    return (*words, f"{group.name}/{found.name}")


def merge(request: Request, _: Tools, group: Group) -> tuple[str, ...]:
    """Merge a snapshot into its origin, in the background.

    One that goes on already is polled, for whoever began it may have died before it was. Asked for
    once more, one that is over has taken the snapshot with it.
    """
    uuids = {one.uuid for one in group.volumes}
    if request["seqno"] == 0 and request["volume_uuid"] not in uuids:
        return ()
    found = volume(request, group)
    if found.is_merging:
        return "lvchange", "--poll", "y", f"{group.name}/{request['origin']}"
    origin = group.volume(found.origin)
    if origin is None or origin.name != request["origin"]:
        raise Refused("GROUP_CHANGED", f"{found.name} is a snapshot of {found.origin or 'nothing'}")
    if origin.is_open and not request["is_later"]:
        raise Refused("VOLUME_BUSY", f"{group.name}/{origin.name} is in use", volume=origin.uuid)
    words = ("--merge", "--background", "--interval", _POLL_EVERY_S, "--yes")
    return "lvconvert", *words, f"{group.name}/{found.name}"


def delete(request: Request, _: Tools, group: Group) -> tuple[str, ...]:
    """Delete a volume that nobody uses and no other one needs."""
    found = volume(request, group)
    # A thin snapshot does without its origin.
    if others := [v.name for v in group.visible if found.name in (v.pool, v.pool or v.origin)]:
        words = f"{', '.join(others[:8])} of {group.name} need {found.name}"
        raise Refused("VOLUME_NEEDED", words, volume=found.uuid)
    active = [read_target(one) for one in request["active"]]
    # A pool has itself open, by a layer that is told in its place: LVM refuses one that is used.
    is_pool = found.kind == "thin-pool"
    if not is_pool and (found.is_open or (found.is_active and found.number and not active)):
        raise Refused("VOLUME_BUSY", f"{group.name}/{found.name} is in use", volume=found.uuid)
    for one in active:
        if not is_pool and found.number and one.number != found.number:
            raise Refused("GROUP_CHANGED", f"{found.name} is another device now: {found.number}")
        refuse_unless_free(one, request, is_kept=True)
    return "lvremove", "--yes", f"{group.name}/{found.name}"


def rename(request: Request, _: Tools, group: Group) -> tuple[str, ...]:
    """Rename a volume; nothing if it has that name."""
    there = group.volume(str(request["name"]))
    if there is not None and there.uuid == request["volume_uuid"]:
        return ()
    found = volume(request, group)
    refuse_name(group, str(request["name"]))
    return "lvrename", group.name, found.name, str(request["name"])


def set_active(request: Request, _: Tools, group: Group) -> tuple[str, ...]:
    """Activate a volume, or deactivate it; LVM refuses the latter while anybody has it open."""
    found = volume(request, group)
    if found.is_active == request["is_active"]:
        return ()
    if found.is_open:
        raise Refused("VOLUME_BUSY", f"{group.name}/{found.name} is in use", volume=found.uuid)
    words = ("--activate", "y", "--ignoreactivationskip") if request["is_active"] else ()
    return "lvchange", *(words or ("--activate", "n")), f"{group.name}/{found.name}"


def repair(request: Request, _: Tools, group: Group) -> tuple[str, ...]:
    """Put a device in the place of those that are missing; nothing if the volume lacks none."""
    found = volume(request, group)
    lacking = {one.uuid for one in group.physical if one.is_missing}
    if not lacking.intersection(found.carriers):
        return ()
    new = path_of(request, str(request["number"]))
    return "lvconvert", "--yes", "--repair", f"{group.name}/{found.name}", new


def replace_leg(request: Request, _: Tools, group: Group) -> tuple[str, ...]:
    """Put a device in the place of another one; nothing if that has nothing of the volume."""
    found, old = volume(request, group), group.carrier(str(request["old_number"]))
    if old is None or old.uuid not in found.carriers:
        return ()
    if found.sync_percent is not None and found.sync_percent < 100:
        words = f"{group.name}/{found.name} has no other copy that is whole"
        raise Refused("LAST_COPY", words, volume=found.uuid)
    paths = (path_of(request, str(request[key])) for key in ("old_number", "number"))
    old_path, new_path = paths
    words_ = ("--yes", "--replace", old_path, f"{group.name}/{found.name}", new_path)
    return "lvconvert", *words_


def start_move(request: Request, _: Tools, group: Group) -> tuple[str, ...]:
    """Begin to move what lies on a device; nothing if nothing does.

    A move that goes on already is polled, for whoever began it may have died before it was.
    """
    found, path = group.carrier(str(request["number"])), path_of(request, str(request["number"]))
    if found is None or not found.used_extents:
        return ()
    if any(v.moves == path for v in group.volumes):
        return "pvmove", "--background", "--interval", _POLL_EVERY_S, path
    to = [path_of(request, one) for one in request["numbers"]]
    return "pvmove", "--background", "--interval", _POLL_EVERY_S, path, *to


def abort_move(request: Request, _: Tools, group: Group) -> tuple[str, ...]:
    """Cease; nothing if nothing is moved."""
    path = path_of(request, str(request["number"]))
    return ("pvmove", "--abort", path) if any(v.moves == path for v in group.volumes) else ()


def restore_group(request: Request, _: Tools, group: Group) -> tuple[str, ...]:
    """Put back a description that was kept. Nothing of the group may be a device meanwhile."""
    if active := [one.name for one in group.volumes if one.is_active]:
        words = f"of {group.name} {', '.join(active[:8])} are active"
        raise Refused("VOLUME_BUSY", words, group=group.uuid)
    file = lvm_saved.path(request.store, str(request["saved"]), group)
    return "vgcfgrestore", "--yes", "--file", str(file), group.name


def kept(request: Request, _: Tools) -> dict[str, Any]:
    """All descriptions that are kept, the newest first."""
    return {"items": lvm_saved.told(request.store)}


_GROUP: Mapping[str, Any] = {
    "group": text(NAME),
    "uuid": text(UUID),
    "seqno": whole(0, 1 << 32),
    "missing": whole(0, _DEVICES_MOST),
    "devices": targets(1, _DEVICES_MOST),
}
_VOLUME: Mapping[str, Any] = {**_GROUP, "volume": text(NAME), "volume_uuid": text(UUID)}
_NUMBERS = array(text(PLACE), 0, _DEVICES_MOST)
_EXTENTS = whole(1, EXTENTS_MOST)


def _of_group(make: Change, **more: Any) -> Operation:
    return Operation({**_GROUP, **more}, _change(make), uses=("devices",))


def _of_volume(make: Change, **more: Any) -> Operation:
    return Operation({**_VOLUME, **more}, _change(make), uses=("devices",))


OPERATIONS: Mapping[str, Operation] = {
    "LookLvm": Operation({"devices": targets(0, _DEVICES_MOST)}, look),
    "ListGroupBackups": Operation({}, kept),
    "CreateGroup": Operation(
        {
            "group": text(NAME),
            "devices": targets(1, _DEVICES_MOST),
            "extent_bytes": whole(1024, 1 << 32),
        },
        create_group,
        overwrites=("devices",),
    ),
    "ExtendGroup": Operation(
        {**_GROUP, "device": target}, extend_group, overwrites=("device",), uses=("devices",)
    ),
    "ReduceGroup": _of_group(reduce_group, number=text(PLACE)),
    "RemoveMissing": _of_group(remove_missing),
    "RemoveGroup": Operation(_GROUP, _change(remove_group, ends=True), uses=("devices",)),
    "CreateVolume": _of_group(
        create_volume,
        volume=text(NAME),
        kind=one_of(*KINDS),
        extents=_EXTENTS,
        numbers=_NUMBERS,
        parts=whole(1, 128),
        stripe_bytes=whole(0, 1 << 30),
        pool=text(_NO_NAME),
        metadata_extents=whole(0, EXTENTS_MOST),
    ),
    "GrowVolume": _of_volume(grow_volume, extents=_EXTENTS, numbers=_NUMBERS),
    "CreateVolumeSnapshot": _of_volume(
        snapshot, snapshot=text(NAME), extents=whole(0, EXTENTS_MOST)
    ),
    "MergeVolumeSnapshot": _of_volume(merge, origin=text(NAME), is_later=flag),
    "DeleteVolume": _of_volume(delete, active=targets(0, 1)),
    "RenameVolume": _of_volume(rename, name=text(NAME)),
    "SetVolumeActive": _of_volume(set_active, is_active=flag),
    "RepairVolume": _of_volume(repair, number=text(PLACE)),
    "ReplaceVolumeLeg": _of_volume(replace_leg, old_number=text(PLACE), number=text(PLACE)),
    "StartMove": _of_group(start_move, number=text(PLACE), numbers=_NUMBERS),
    "AbortMove": _of_group(abort_move, number=text(PLACE)),
    "RestoreGroup": _of_group(restore_group, saved=text(ID)),
}
