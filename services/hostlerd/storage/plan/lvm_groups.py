"""Plans that make volume groups, change their devices, and end them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.runtime.steps import Notice, Plan, Step, fingerprint
from hostlerd.storage.errors import DeviceTooSmall, SavedNotFound
from hostlerd.storage.errors.volumes import (
    GroupExists,
    GroupFull,
    GroupNotEmpty,
    PhysicalVolumeInUse,
    VolumeBusy,
)
from hostlerd.storage.model.filesystem_steps import WipeSignatures
from hostlerd.storage.model.graph import Graph, Node
from hostlerd.storage.model.lvm import EXTENT_BYTES, Group, group_name_fault
from hostlerd.storage.model.lvm_steps import (
    CreateGroup,
    ExtendGroup,
    ReduceGroup,
    RemoveGroup,
    RemoveMissing,
    RestoreGroup,
    StartMove,
)
from hostlerd.storage.plan.array_create import refuse_overlap
from hostlerd.storage.plan.choose import choose_node, target_of
from hostlerd.storage.plan.in_use import refuse_if_used
from hostlerd.storage.plan.lvm_choose import Found, carrier, changeable, find

AREA_BYTES = 1 << 20
"""What pvcreate(8) keeps for its label and the descriptions."""
_EXTENT_LEAST_BYTES, _EXTENT_MOST_BYTES = 128 << 10, 4 << 30


@dataclass(frozen=True, slots=True)
class Wanted:
    """A group that is asked for; 0 takes LVM's own size of an extent."""

    name: str
    devices: tuple[str, ...]
    extent_bytes: int = 0


def create(wanted: Wanted, groups: Sequence[Group], graph: Graph) -> Plan:
    """Make a group; nothing if that very one is there."""
    extent = wanted.extent_bytes or EXTENT_BYTES
    _check(wanted, extent)
    nodes = [choose_node(graph, one, f"devices[{i}]") for i, one in enumerate(wanted.devices)]
    refuse_overlap(graph, nodes)
    there = next((one for one in groups if one.name == wanted.name), None)
    if there is not None:
        numbers = {one.number for one in there.physical}
        asked = there.extent_bytes if not wanted.extent_bytes else extent
        if numbers == {node.number for node in nodes} and asked == there.extent_bytes:
            etag = find(groups, graph, there.uuid).etag
            return Plan(etag=etag, etag_after=etag)
        words = f"there is a group of that name, which is another one: {there.uuid}"
        raise GroupExists(words, group=there.uuid)
    for node in nodes:
        refuse_unfit(graph, node, extent)
    targets = tuple(target_of(node) for node in nodes)
    return Plan(
        (CreateGroup(wanted.name, targets, extent),),
        etag=fingerprint([]),
        notices=_same_disk(nodes, graph),
        bindings={"devices": targets},
    )


def _check(wanted: Wanted, extent: int) -> None:
    faults = []
    if why := group_name_fault(wanted.name):
        faults.append(Violation("name", why))
    if not wanted.devices:
        faults.append(Violation("devices", "must name a device"))
    is_fit = _EXTENT_LEAST_BYTES <= extent <= _EXTENT_MOST_BYTES and extent.bit_count() == 1
    if not is_fit:
        words = f"must be a power of 2 from {_EXTENT_LEAST_BYTES} to {_EXTENT_MOST_BYTES}"
        faults.append(Violation("extent_bytes", words))
    if faults:
        raise InvalidRequest.of(faults)


def _same_disk(nodes: Sequence[Node], graph: Graph) -> tuple[Notice, ...]:
    parents = {edge.upper: edge.lower for edge in graph.edges if edge.role == "partition of"}
    disks = [parents.get(node.id, node.id) for node in nodes]
    return tuple(
        Notice("SAME_DISK", f"several physical volumes lie on {disk} and go with it", disk)
        for disk in sorted({one for one in disks if disks.count(one) > 1})
    )


def refuse_unfit(graph: Graph, node: Node, extent_bytes: int) -> None:
    """Raise DeviceBusy, DeviceReadOnly, DeviceTooSmall if a device cannot come into a group."""
    refuse_if_used(graph, node)
    least = AREA_BYTES + extent_bytes
    if node.size_bytes < least:
        raise DeviceTooSmall(
            f"{node.id} has {node.size_bytes} bytes: a physical volume has at least {least}",
            device=node.id,
            least_bytes=least,
        )


def extend(words: str, device: str, groups: Sequence[Group], graph: Graph) -> Plan:
    """Add a device; nothing if it is in the group."""
    found = find(groups, graph, words)
    node = choose_node(graph, device)
    if found.group.carrier(node.number) is not None:
        return nothing(found)
    step = adding(changeable(found, incomplete=True), node, graph)
    return Plan((step,), etag=found.etag, bindings={"device": step.device})


def adding(found: Found, node: Node, graph: Graph) -> ExtendGroup:
    """The step that adds a device. Raises what speaks against it."""
    refuse_unfit(graph, node, found.group.extent_bytes)
    return ExtendGroup(*found.of_group, device=target_of(node))


def reduce(words: str, device: str, groups: Sequence[Group], graph: Graph) -> Plan:
    """Take a device out that nothing lies on, and wipe it; no device: those that are missing."""
    found = find(groups, graph, words)
    if not device:
        return _without_missing(found)
    node = choose_node(graph, device)
    one = found.group.carrier(node.number)
    if one is None:
        return nothing(found)
    changeable(found)
    if one.used_extents:
        used = one.used_extents * found.group.extent_bytes
        words = f"{used} bytes of {found.group.name} lie on {node.id}: move them first"
        raise PhysicalVolumeInUse(words, device=node.id, group=found.group.uuid)
    if len(found.group.physical) == 1:
        words = f"{node.id} is all that {found.group.name} has: delete the group"
        raise PhysicalVolumeInUse(words, device=node.id, group=found.group.uuid)
    out = ReduceGroup(*found.of_group, number=node.number)
    return Plan((out, WipeSignatures(target_of(node))), etag=found.etag)


def _without_missing(found: Found) -> Plan:
    group = found.group
    if not group.missing:
        return nothing(found)
    changeable(found, incomplete=True)
    gone = {one.uuid for one in group.physical if one.is_missing}
    if needed := [one.name for one in group.visible if gone.intersection(one.carriers)]:
        words = f"{', '.join(needed[:8])} of {group.name} need what is missing: repair or delete"
        raise PhysicalVolumeInUse(words, group=group.uuid, volumes=", ".join(needed[:64]))
    return Plan((RemoveMissing(*found.of_group),), etag=found.etag)


def delete(words: str, groups: Sequence[Group], graph: Graph) -> Plan:
    """End a group that has no volumes, and wipe its devices."""
    found = changeable(find(groups, graph, words), incomplete=True)
    if volumes := found.group.visible:
        told = ", ".join(one.name for one in volumes[:8])
        raise GroupNotEmpty(
            f"{found.group.name} has {told}: delete each of them first", group=found.group.uuid
        )
    ended: tuple[Step, ...] = (RemoveGroup(*found.of_group),)
    wiped = tuple(WipeSignatures(one) for one in found.targets)
    return Plan((*ended, *wiped), etag=found.etag, bindings={"devices": found.targets})


def move(words: str, device: str, to: Sequence[str], groups: Sequence[Group], graph: Graph) -> Plan:
    """Move what lies on a device to others; nothing if nothing does."""
    found = find(groups, graph, words)
    node, one = carrier(found, graph, device, "device")
    if not one.used_extents:
        return nothing(found)
    changeable(found)
    others = [carrier(found, graph, name, f"to[{i}]") for i, name in enumerate(to)]
    if any(each.uuid == one.uuid for _, each in others):
        raise InvalidRequest.of([Violation("to", f"{node.id} is to be emptied")])
    room = [each for _, each in others] or [p for p in found.group.physical if p.uuid != one.uuid]
    free = sum(each.free_extents for each in room)
    if free < one.used_extents:
        raise full(found.group, one.used_extents, free)
    numbers = tuple(each.number for each, _ in others)
    return Plan((StartMove(*found.of_group, number=node.number, numbers=numbers),), found.etag)


def restore(
    words: str, saved: str, kept: Sequence[tuple[str, str]], groups: Sequence[Group], graph: Graph
) -> Plan:
    """Put back a description that was kept; `kept` is the name and the group's UUID of each."""
    found = find(groups, graph, words)
    if (saved, found.group.uuid) not in kept:
        words = f"nothing of {found.group.name} is kept as {saved[:64]!r}"
        raise SavedNotFound(words, saved=saved[:64])
    changeable(found)
    if active := [one.name for one in found.group.visible if one.is_active]:
        words = f"{', '.join(active[:8])} of {found.group.name} are active: deactivate them first"
        raise VolumeBusy(words, group=found.group.uuid)
    return Plan(
        (RestoreGroup(*found.of_group, saved=saved),),
        etag=found.etag,
        bindings={"devices": found.targets},
    )


def nothing(found: Found) -> Plan:
    """A plan of what is there already."""
    return Plan(etag=found.etag, etag_after=found.etag)


def full(group: Group, wanted: int, free: int) -> GroupFull:
    """The refusal of what does not fit; in extents."""
    size = group.extent_bytes
    return GroupFull(
        f"{group.name} has {free * size} bytes free there: {wanted * size} are needed",
        group=group.uuid,
        free_bytes=free * size,
        needed_bytes=wanted * size,
    )
