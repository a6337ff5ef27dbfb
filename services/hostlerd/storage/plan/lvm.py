"""Volume groups and volumes in the graph.

A volume that is active is a device, and lies on what the kernel says. LVM knows the group, the
volumes that are not active, and how their segments are laid out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from hostlerd.storage.model.graph import Edge, Kind, Need, Node
from hostlerd.storage.model.observed import Device, LogicalVolume, Observed
from hostlerd.storage.model.reason import Level, Reason
from hostlerd.storage.plan.redundancy import of_lvm


def _device_uuid(volume: LogicalVolume) -> str:
    """What the device mapper calls a volume that is active; layers have a suffix."""
    return "LVM-" + (volume.group + volume.uuid).replace("-", "")


def seen_through(seen: Observed) -> Observed:
    """The same without signatures on what volumes are made of: those are the volumes' own.

    The image of a mirror begins with what the mirror holds, and so does the origin of a snapshot.
    """
    known = {group.uuid.replace("-", "") for group in seen.groups}
    visible = {_device_uuid(volume) for volume in seen.volumes}

    def is_part(device: Device) -> bool:
        uuid = device.dm_uuid
        return uuid.startswith("LVM-") and uuid not in visible and uuid[4:36] in known

    devices = tuple(
        replace(one, signatures=()) if one.signatures and is_part(one) else one
        for one in seen.devices
    )
    return replace(seen, devices=devices)


def snapshots(seen: Observed) -> frozenset[str]:
    """The devices that are snapshots of volumes: udev has links by UUID lead to the others."""
    uuids = {_device_uuid(volume) for volume in seen.volumes if volume.origin}
    return frozenset(device.name for device in seen.devices if device.dm_uuid in uuids)


def needs_of_volumes(seen: Observed, ids: dict[str, str]) -> dict[str, tuple[Need, ...]]:
    """What each active volume needs of what it lies on, by the name of its device."""
    types = {_device_uuid(volume): volume.segment_type for volume in seen.volumes}
    names = {device.name: device.dm_name for device in seen.devices}
    return {
        device.name: of_lvm(
            types[device.dm_uuid],
            {names[each]: ids[each] for each in device.lower if each in ids},
        )
        for device in seen.devices
        if device.dm_uuid in types
    }


def groups(seen: Observed, ids: dict[str, str]) -> tuple[list[Node], list[Edge]]:
    """The groups on their physical volumes, and the volumes that are in them."""
    nodes: list[Node] = []
    edges: list[Edge] = []
    for group in seen.groups:
        node_id = f"lvm-{group.uuid}"
        carriers = [ids[name] for name in group.devices if name in ids]
        facts = {"free_bytes": str(group.free_bytes), "missing": str(group.missing)}
        nodes.append(
            Node(
                id=node_id,
                kind=Kind.VOLUME_GROUP,
                name=group.name,
                size_bytes=group.size_bytes,
                uuid=group.uuid,
                state="degraded" if group.missing else "active",
                facts=facts,
                # Each physical volume has the description of the group.
                needs=(Need(tuple((each,) for each in carriers), 1),),
            )
        )
        edges += [Edge(each, node_id, "physical volume") for each in carriers]
    known = {node.id: node for node in nodes}
    active = _active(seen)
    for volume in seen.volumes:
        group_id = f"lvm-{volume.group}"
        if group_id not in known:
            continue
        device = active.get(_device_uuid(volume))
        if device is None:
            nodes.append(_inactive(volume, known[group_id]))
        edges.append(Edge(group_id, _volume_id(volume, device, ids), "volume of"))
    return nodes, edges


def _active(seen: Observed) -> dict[str, Device]:
    """Devices by the UUID of their volume; of a thin pool there may be its layer alone."""
    found: dict[str, Device] = {}
    for device in seen.devices:
        if device.dm_uuid.startswith("LVM-"):
            volume = "-".join(device.dm_uuid.split("-")[:2])
            if volume not in found or device.dm_uuid == volume:
                found[volume] = device
    return found


def _volume_id(volume: LogicalVolume, device: Device | None, ids: dict[str, str]) -> str:
    return ids[device.name] if device is not None else f"dm-{_device_uuid(volume)}"


def _inactive(volume: LogicalVolume, group: Node) -> Node:
    """Where its segments lie is not asked: it is told as if they were on all of the group."""
    legs = tuple(leg for need in group.needs for leg in need.legs)
    return Node(
        id=f"dm-{_device_uuid(volume)}",
        kind=Kind.LVM,
        name=volume.name,
        size_bytes=volume.size_bytes,
        state="inactive",
        facts={"segment_type": volume.segment_type},
        needs=(Need(legs, len(legs)),),
    )


def incomplete(seen: Observed) -> Iterator[Reason]:
    """Groups that lack devices: what has no copy elsewhere does not come up at the next boot."""
    for group in seen.groups:
        if group.missing:
            words = f"{group.name} lacks {group.missing} of its devices: replace or remove them"
            yield Reason("GROUP_INCOMPLETE", Level.CRITICAL, f"lvm-{group.uuid}", words)
