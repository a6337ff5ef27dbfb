"""Plans that take snapshots, go back to them, and put devices in the place of others."""

from __future__ import annotations

from collections.abc import Sequence

from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.runtime.steps import Notice, Plan, Step
from hostlerd.storage.errors import DeviceBusy
from hostlerd.storage.errors.volumes import (
    VolumeBusy,
    VolumeExists,
    VolumeKind,
    VolumeLacksData,
)
from hostlerd.storage.model.graph import Graph
from hostlerd.storage.model.lvm import (
    HOSTNAME,
    SIZE_MOST_BYTES,
    Group,
    PhysicalVolume,
    Volume,
    volume_name_fault,
)
from hostlerd.storage.model.lvm_volume_steps import (
    CloneVolume,
    CreateVolumeSnapshot,
    MergeVolumeSnapshot,
    RepairVolume,
    ReplaceVolumeLeg,
)
from hostlerd.storage.plan.choose import choose_node, target_of
from hostlerd.storage.plan.in_use import users
from hostlerd.storage.plan.lvm_choose import (
    FoundVolume,
    carrier,
    changeable,
    find_volume,
    node_of,
)
from hostlerd.storage.plan.lvm_groups import adding, full, nothing
from hostlerd.storage.plan.lvm_place import anywhere

_SNAPSHOT_LEAST_PERCENT = 15


def snapshot(words: str, name: str, size_bytes: int, groups: Sequence[Group], graph: Graph) -> Plan:
    """Keep what a volume is like now; nothing if a snapshot of it has that name."""
    found = find_volume(groups, graph, words)
    group, origin = found.group, found.volume
    if why := volume_name_fault(group.name, name):
        raise InvalidRequest.of([Violation("name", why)])
    is_thin = origin.kind == "thin"
    if is_thin and size_bytes:
        raise InvalidRequest.of([Violation("size_bytes", f"{found.words} is thin: in its pool")])
    if not is_thin and size_bytes <= 0:
        why = f"{found.words} is not thin: say how much may be written before it is lost"
        raise InvalidRequest.of([Violation("size_bytes", why)])
    if (there := group.volume(name)) is not None:
        if there.origin == origin.name:
            return nothing(found)
        words = f"there is a {group.name}/{name}, which is no snapshot of {origin.name}"
        raise VolumeExists(words, group=group.uuid, volume=there.uuid)
    changeable(found)
    if origin.is_snapshot or origin.kind not in ("linear", "striped", "raid1", "thin"):
        kind = "a snapshot" if origin.is_snapshot else origin.kind
        raise VolumeKind(f"{found.words} is {kind}: none is taken of that", volume=found.id)
    extents = 0
    if not is_thin:
        # No more than all of it can be written, and LVM keeps a list beside.
        most = origin.size_bytes + origin.size_bytes // 64 + 2 * group.extent_bytes
        extents = group.extents_of(min(size_bytes, most))
        anywhere(group, extents, ())
    step = CreateVolumeSnapshot(*found.of_volume, snapshot=name, extents=extents)
    return Plan((step,), etag=found.etag, notices=_small(found, extents))


def _small(found: FoundVolume, extents: int) -> tuple[Notice, ...]:
    size = extents * found.group.extent_bytes
    if not extents or 100 * size >= _SNAPSHOT_LEAST_PERCENT * found.volume.size_bytes:
        return ()
    words = f"once {size} bytes of {found.words} are written, the snapshot is lost"
    return (Notice("SNAPSHOT_SMALL", words, found.id),)


def clone(wanted: tuple[str, str, int, str], groups: Sequence[Group], graph: Graph) -> Plan:
    """Make a volume of a template, by its name, size and host name; nothing if it is there."""
    words, name, size_bytes, hostname = wanted
    found = find_volume(groups, graph, words)
    group, template = found.group, found.volume
    faults = [("name", volume_name_fault(group.name, name))]
    if not HOSTNAME.fullmatch(hostname) or len(hostname) > 64:
        faults.append(("hostname", "must be the name of a host, in small letters"))
    if 0 < size_bytes < template.size_bytes or not 0 <= size_bytes <= SIZE_MOST_BYTES:
        faults.append(("size_bytes", f"{found.words} has {template.size_bytes}: nothing is shrunk"))
    if violations := [Violation(field, why) for field, why in faults if why]:
        raise InvalidRequest.of(violations)
    if (there := group.volume(name)) is not None:
        if there.origin == template.name:
            return nothing(found)
        words = f"there is a {group.name}/{name}, which is no clone of {template.name}"
        raise VolumeExists(words, group=group.uuid, volume=there.uuid)
    if template.kind != "thin":
        words = f"{found.words} is {template.kind}: templates are thin volumes"
        raise VolumeKind(words, volume=found.id)
    held = [one.type for one in found.node.signatures] if found.node is not None else ["ext4"]
    if held != ["ext4"]:
        told = ", ".join(held) or "no signature"
        raise VolumeKind(f"{found.words} holds {told}, and not ext4 alone", volume=found.id)
    changeable(found)
    extents = group.extents_of(size_bytes or template.size_bytes)
    step = CloneVolume(*found.of_volume, name=name, extents=extents, hostname=hostname)
    notices = (Notice("HOST_KEYS_NEEDED", "sshd does not start without: ssh-keygen -A", name),)
    return Plan((step,), etag=found.etag, notices=notices)


def merge(words: str, is_later: bool, groups: Sequence[Group], graph: Graph) -> Plan:
    """Have a volume be again what its snapshot is."""
    found = find_volume(groups, graph, words)
    snap = found.volume
    origin = found.group.volume(snap.origin) if snap.origin else None
    if origin is None or not (snap.is_snapshot or snap.is_thin_snapshot):
        raise VolumeKind(f"{found.words} is no snapshot of a volume that is there", volume=found.id)
    if snap.is_merging:
        return nothing(found)
    changeable(found)
    _refuse_used(found, snap, graph)
    if not is_later:
        _refuse_used(found, origin, graph)
    notices: tuple[Notice, ...] = ()
    if is_later and origin.is_active:
        words = f"{found.group.name}/{origin.name} changes when it is next activated"
        notices = (Notice("MERGE_LATER", words, found.id),)
    step = MergeVolumeSnapshot(*found.of_volume, origin=origin.name, is_later=is_later)
    bindings = {"volume": snap.uuid, "origin": origin.uuid}
    return Plan((step,), etag=found.etag, notices=notices, bindings=bindings)


def _refuse_used(found: FoundVolume, volume: Volume, graph: Graph) -> None:
    """Raise DeviceBusy, VolumeBusy if a volume is mounted or open; its snapshots do not count."""
    name = f"{found.group.name}/{volume.name}"
    node = node_of(found.group, volume, graph)
    found_users = users(graph, node.id) if node is not None else ()
    used = [one for one in found_users if not one.endswith("is built on it")]
    if used and node is not None:
        raise DeviceBusy(
            f"{node.id} ({name}) is in use: {', '.join(used[:8])}",
            device=node.id,
            used_by=", ".join(used[:64]),
        )
    if volume.is_open:
        raise VolumeBusy(f"{name} is open", volume=volume.uuid)


def replace(words: str, old: str, new: str, groups: Sequence[Group], graph: Graph) -> Plan:
    """Put a device in the place of one of a mirror, or of one that is missing; nothing if it is."""
    found = find_volume(groups, graph, words)
    group, volume = found.group, found.volume
    if volume.kind != "raid1":
        raise VolumeKind(f"{found.words} is {volume.kind}, and no mirror", volume=found.id)
    node = choose_node(graph, new, "new")
    there = group.carrier(node.number)
    lacking = [one for one in group.physical if one.is_missing and one.uuid in volume.carriers]
    before = None if not old else carrier(found, graph, old, "old")
    if _is_done(there, before[1] if before else None, volume, bool(lacking)):
        return nothing(found)
    changeable(found, incomplete=True)
    if len(lacking) >= volume.legs:
        words = f"all copies of {found.words} are missing"
        raise VolumeLacksData(words, volume=found.id)
    if before is None and not lacking:
        why = f"none of {found.words} is missing: say which device is to go"
        raise InvalidRequest.of([Violation("old", why)])
    if there is not None and there.uuid in volume.carriers:
        why = f"{node.id} has a copy of {found.words} already"
        raise InvalidRequest.of([Violation("new", why)])
    steps: list[Step] = []
    needed = group.extents_of(volume.size_bytes) + 1
    devices, seqno = found.targets, group.seqno
    if there is None:
        step = adding(found, node, graph)
        _refuse_small(found, node.size_bytes // group.extent_bytes, needed)
        steps.append(step)
        devices, seqno = (*devices, target_of(node)), 0
    else:
        _refuse_small(found, there.free_extents, needed)
    of = (group.name, group.uuid, seqno, group.missing, devices, volume.name, volume.uuid)
    if before is None:
        steps.append(RepairVolume(*of, number=node.number))
    else:
        steps.append(ReplaceVolumeLeg(*of, old_number=before[0].number, number=node.number))
    return Plan(tuple(steps), etag=found.etag, bindings={"device": target_of(node)})


def _is_done(
    new: PhysicalVolume | None, old: PhysicalVolume | None, volume: Volume, is_lacking: bool
) -> bool:
    """Whether the new one has a copy, and the old one, or what was missing, has none."""
    has_new = new is not None and new.uuid in volume.carriers
    return has_new and (old.uuid not in volume.carriers if old else not is_lacking)


def _refuse_small(found: FoundVolume, free: int, needed: int) -> None:
    if free < needed:
        raise full(found.group, needed, free)
