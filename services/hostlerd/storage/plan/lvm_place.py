"""On which devices of a group a new volume lies, and whether there is room. Counted in extents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hostlerd.storage.model.graph import Graph
from hostlerd.storage.model.lvm import Group, PhysicalVolume
from hostlerd.storage.plan.lvm_groups import full

_METADATA_LEAST_BYTES, _METADATA_MOST_BYTES = 2 << 20, 15 << 30
# Of a pool's data, 64 bytes for each chunk of 64 KiB. Source: lvmthin(7).
_METADATA_PART = 1024


def metadata_extents(group: Group, size_bytes: int) -> int:
    """What a thin pool of so many bytes is given for its metadata."""
    least = max(_METADATA_LEAST_BYTES, size_bytes // _METADATA_PART)
    return group.extents_of(min(least, _METADATA_MOST_BYTES))


def anywhere(group: Group, extents: int, chosen: Sequence[PhysicalVolume]) -> tuple[str, ...]:
    """So many extents, wherever they are free; the devices' numbers only if some were chosen."""
    room = chosen or group.physical
    free = sum(one.free_extents for one in room)
    if free < extents:
        raise full(group, extents, free)
    return tuple(one.number for one in chosen)


def apart(
    group: Group,
    parts: int,
    extents: int,
    chosen: Sequence[PhysicalVolume],
    controllers: Mapping[str, str],
) -> tuple[str, ...]:
    """The numbers of so many devices that each have so many extents free: chosen, or the best.

    Of those that are not chosen, such as are behind different controllers come first, then those
    with the most room. `controllers` is by number; what is behind none that is known counts alone.
    """
    if chosen:
        short = [one for one in chosen if one.free_extents < extents]
        if short:
            raise full(group, extents, min(one.free_extents for one in short))
        return tuple(one.number for one in chosen)
    fit = sorted(
        (one for one in group.physical if one.free_extents >= extents),
        key=lambda one: (-one.free_extents, one.uuid),
    )
    if len(fit) < parts:
        raise full(group, parts * extents, sum(one.free_extents for one in fit))
    taken: list[PhysicalVolume] = []
    behind: set[str] = set()
    for is_choosy in (True, False):
        for one in fit:
            place = controllers.get(one.number) or one.number
            if len(taken) < parts and one not in taken and not (is_choosy and place in behind):
                taken.append(one)
                behind.add(place)
    return tuple(one.number for one in taken)


def controllers(graph: Graph) -> Mapping[str, str]:
    """The controller that each device is behind, by its number; a partition's is its disk's."""
    by_id = {node.id: node for node in graph.nodes}
    parents = {edge.upper: edge.lower for edge in graph.edges if edge.role == "partition of"}
    return {
        node.number: by_id[parents.get(node.id, node.id)].controller
        for node in graph.nodes
        if node.number
    }


def one_disk(graph: Graph, numbers: Sequence[str]) -> tuple[str, ...]:
    """The disks that several of these devices are partitions of."""
    ids = {node.number: node.id for node in graph.nodes if node.number}
    parents = {edge.upper: edge.lower for edge in graph.edges if edge.role == "partition of"}
    disks = [parents.get(ids[one], ids[one]) for one in numbers if one in ids]
    return tuple(sorted({one for one in disks if disks.count(one) > 1}))
