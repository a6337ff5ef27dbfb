"""Arrays as messages."""

from __future__ import annotations

from collections.abc import Mapping

from hostler.api.storage.v1 import array_pb2 as pb
from hostlerd.storage.model.array import Array, Member, Sync
from hostlerd.storage.model.graph import Graph

_KIB = 1024
_ROLES = {
    "active": pb.MEMBER_ROLE_ACTIVE,
    "rebuilding": pb.MEMBER_ROLE_REBUILDING,
    "replacing": pb.MEMBER_ROLE_REPLACING,
    "spare": pb.MEMBER_ROLE_SPARE,
    "faulty": pb.MEMBER_ROLE_FAULTY,
}
_LAST = 1 << 30


def array(of: Array, graph: Graph) -> pb.Array:
    """An array as a message."""
    ids = {node.name: node.id for node in graph.nodes if node.number}
    members = sorted(
        of.members, key=lambda one: (_LAST if one.slot is None else one.slot, one.name)
    )
    message = pb.Array(
        id=ids.get(of.name, ""),
        name=of.label,
        uuid=of.uuid,
        kernel_name=of.name,
        level=of.level,
        layout=of.layout_words,
        chunk_bytes=of.chunk_bytes,
        metadata=of.metadata,
        bitmap=of.bitmap,
        size_bytes=of.size_bytes,
        component_bytes=of.component_bytes,
        state=of.state,
        raid_disks=of.raid_disks,
        degraded=of.degraded,
        spare_losses=of.more_losses(),
        mismatch_sectors=of.sync.mismatch_sectors,
        sync=_sync(of.sync),
        members=[_member(one, ids) for one in members],
    )
    if of.speed.least_kib is not None:
        message.sync_least_bytes_per_second = of.speed.least_kib * _KIB
    if of.speed.most_kib is not None:
        message.sync_most_bytes_per_second = of.speed.most_kib * _KIB
    return message


def _sync(of: Sync) -> pb.ArraySync:
    message = pb.ArraySync(
        action=of.action,
        done_bytes=of.done_bytes,
        total_bytes=of.total_bytes,
        rate_bytes_per_second=of.rate_bytes_per_second,
        delayed=of.is_delayed,
    )
    if of.rate_bytes_per_second and of.total_bytes:
        left = of.total_bytes - of.done_bytes
        message.remaining.FromSeconds(left // of.rate_bytes_per_second)
    return message


def _member(of: Member, ids: Mapping[str, str]) -> pb.ArrayMember:
    message = pb.ArrayMember(
        id=ids.get(of.name, "") if of.is_there else "",
        name=of.name,
        role=_ROLES[of.role],
        errors=of.errors,
        present=of.is_there,
    )
    if of.slot is not None:
        message.slot = of.slot
    return message
