"""Groups and volumes as messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hostler.api.storage.v1 import lvm_pb2 as pb
from hostlerd.storage.model.graph import Graph, Node
from hostlerd.storage.model.lvm import Group, PhysicalVolume, Volume, busy_with
from hostlerd.storage.plan.lvm_choose import Found, node_of, volume_id

KINDS: Mapping[int, str] = {
    pb.VOLUME_KIND_LINEAR: "linear",
    pb.VOLUME_KIND_STRIPED: "striped",
    pb.VOLUME_KIND_MIRROR: "raid1",
    pb.VOLUME_KIND_THIN_POOL: "thin-pool",
    pb.VOLUME_KIND_THIN: "thin",
}


def group(of: Group, graph: Graph) -> pb.VolumeGroup:
    """A group as a message."""
    nodes = {node.number: node for node in graph.nodes if node.number}
    return pb.VolumeGroup(
        id=f"lvm-{of.uuid}",
        name=of.name,
        uuid=of.uuid,
        seqno=of.seqno,
        extent_bytes=of.extent_bytes,
        size_bytes=sum(one.extents for one in of.physical) * of.extent_bytes,
        free_bytes=of.free_extents * of.extent_bytes,
        missing=of.missing,
        busy=busy_with(of),
        etag=Found(of, ()).etag,
        physical_volumes=[_physical(one, of, nodes) for one in of.physical],
        volumes=[volume(one, of, graph) for one in of.visible],
    )


def _physical(of: PhysicalVolume, group: Group, nodes: Mapping[str, Node]) -> pb.PhysicalVolume:
    node = nodes.get(of.number)
    return pb.PhysicalVolume(
        id=node.id if node is not None else "",
        name=node.name if node is not None else "",
        uuid=of.uuid,
        size_bytes=of.extents * group.extent_bytes,
        free_bytes=of.free_extents * group.extent_bytes,
        missing=of.is_missing,
    )


def volume(of: Volume, group: Group, graph: Graph) -> pb.LogicalVolume:
    """A volume as a message."""
    nodes = {node.number: node for node in graph.nodes if node.number}
    node = node_of(group, of, graph)
    numbers = [one.number for one in group.physical if one.uuid in of.carriers]
    message = pb.LogicalVolume(
        id=volume_id(group, of),
        name=of.name,
        uuid=of.uuid,
        size_bytes=of.size_bytes,
        segment_type=of.kind,
        active=of.is_active,
        open=of.is_open,
        kernel_name=node.name if node is not None else "",
        health=of.health,
        origin=of.origin,
        pool=of.pool,
        merging=of.is_merging,
        devices=[nodes[one].id for one in numbers if one in nodes],
    )
    for name in ("sync_percent", "data_percent", "metadata_percent"):
        if (percent := getattr(of, name)) is not None:
            setattr(message, name, percent)
    return message


def backup(of: Mapping[str, Any]) -> pb.GroupBackup:
    """A description that is kept as a message."""
    made = pb.GroupBackup(
        name=of["id"], group=of["group"], group_uuid=of["uuid"], seqno=of["seqno"]
    )
    made.create_time.FromSeconds(of["unix_s"])
    return made
