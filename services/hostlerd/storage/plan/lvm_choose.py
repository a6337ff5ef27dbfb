"""Which group is meant, which volume of it, and on which devices of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.runtime.steps import fingerprint
from hostlerd.storage.errors.volumes import (
    GroupAmbiguous,
    GroupBusy,
    GroupForeign,
    GroupIncomplete,
    GroupNotFound,
    PhysicalVolumeCloned,
    PhysicalVolumeNotFound,
    VolumeAmbiguous,
    VolumeNotFound,
)
from hostlerd.storage.model.graph import Graph, Node
from hostlerd.storage.model.lvm import Group, PhysicalVolume, Volume, busy_with, device_uuid
from hostlerd.storage.model.target import Target
from hostlerd.storage.plan.choose import choose_node, is_device, target_of

SIGNATURE = "LVM2_member"


@dataclass(frozen=True, slots=True)
class Found:
    """A group, and its devices in the graph."""

    group: Group
    nodes: tuple[Node, ...]

    @property
    def etag(self) -> str:
        """What changes with each change of the group."""
        return fingerprint([self.group.uuid, self.group.seqno, self.group.missing])

    @property
    def targets(self) -> tuple[Target, ...]:
        """Its devices."""
        return tuple(target_of(node) for node in self.nodes)

    @property
    def of_group(self) -> tuple[str, str, int, int, tuple[Target, ...]]:
        """What every step begins with."""
        group = self.group
        return (group.name, group.uuid, group.seqno, group.missing, self.targets)


@dataclass(frozen=True, slots=True)
class FoundVolume(Found):
    """A volume in its group. `node` is its device; None while it is not active."""

    volume: Volume
    node: Node | None

    @property
    def of_volume(self) -> tuple[str, str, int, int, tuple[Target, ...], str, str]:
        """What every step of a volume begins with."""
        return (*self.of_group, self.volume.name, self.volume.uuid)

    @property
    def words(self) -> str:
        """What people call it."""
        return f"{self.group.name}/{self.volume.name}"

    @property
    def id(self) -> str:
        """Its id in the graph."""
        return volume_id(self.group, self.volume)


def volume_id(group: Group, volume: Volume) -> str:
    """The id in the graph of a volume, whether it is active or not."""
    return f"dm-{device_uuid(group, volume)}"


def members(graph: Graph) -> tuple[Node, ...]:
    """The devices that are physical volumes; of those that lie on one another, the upper one.

    The legs of a mirror of md with its superblock at the end look like what the mirror holds.
    """
    found = {
        node.id: node
        for node in graph.nodes
        if is_device(node) and any(one.type == SIGNATURE for one in node.signatures)
    }
    below = {
        edge.lower
        for edge in graph.edges
        if edge.upper in found
        and edge.lower in found
        and _uuid(found[edge.upper]) == _uuid(found[edge.lower])
    }
    return tuple(node for node in found.values() if node.id not in below)


def _uuid(node: Node) -> str:
    return next((one.uuid for one in node.signatures if one.type == SIGNATURE), "")


def find(groups: Sequence[Group], graph: Graph, words: str, field: str = "group") -> Found:
    """The group of this name, UUID or id.

    Raises InvalidRequest, GroupNotFound, GroupAmbiguous, PhysicalVolumeCloned.
    """
    if not words:
        raise InvalidRequest.of([Violation(field, "must name a volume group")])
    bare = words.removeprefix("lvm-")
    matches = [one for one in groups if one.uuid == bare] or [
        one for one in groups if one.name == words
    ]
    if not matches:
        raise GroupNotFound(f"no volume group is called {words[:200]!r}", group=words[:200])
    if len(matches) > 1:
        told = ", ".join(one.uuid for one in matches)
        raise GroupAmbiguous(f"{words!r} may be any of {told}: say which", group=words[:200])
    return _found(matches[0], graph)


def _found(group: Group, graph: Graph) -> Found:
    uuids = {one.uuid for one in group.physical}
    nodes: dict[str, Node] = {}
    for node in members(graph):
        uuid = _uuid(node)
        if uuid not in uuids:
            continue
        if uuid in nodes:
            ids = f"{nodes[uuid].id}, {node.id}"
            raise PhysicalVolumeCloned(
                f"{ids} are both physical volume {uuid} of {group.name}: one is a clone; "
                "unplug it, or give it another UUID, before anything of the group is changed",
                device=node.id,
                candidates=ids,
                group=group.uuid,
            )
        nodes[uuid] = node
    here = tuple(nodes[one.uuid] for one in group.physical if one.uuid in nodes)
    return Found(group, here)


def changeable(found: Found, *, incomplete: bool = False) -> Found:
    """The same, if it may be changed. Raises GroupForeign, GroupIncomplete, GroupBusy."""
    group = found.group
    if group.is_foreign:
        words = f"{group.name} is exported, or a cluster's"
        raise GroupForeign(words, group=group.uuid)
    if group.missing and not incomplete:
        words = f"{group.missing} devices of {group.name} are missing: replace or remove them first"
        raise GroupIncomplete(words, group=group.uuid)
    if doing := busy_with(group):
        raise GroupBusy(f"{group.name} is busy with {doing}", group=group.uuid)
    return found


def find_volume(groups: Sequence[Group], graph: Graph, words: str) -> FoundVolume:
    """The volume of GROUP/NAME, its UUID, id or link.

    Raises InvalidRequest, VolumeNotFound, VolumeAmbiguous, and what `find` raises of its group.
    """
    if not words:
        raise InvalidRequest.of([Violation("volume", "must name a volume, as GROUP/NAME")])
    matches = [
        (group, one)
        for group in groups
        for one in group.visible
        if _is_called(group, one, words.removeprefix("/dev/"))
    ]
    if not matches:
        raise VolumeNotFound(f"no volume is called {words[:200]!r}", volume=words[:200])
    if len(matches) > 1:
        told = ", ".join(volume_id(*each) for each in matches)
        raise VolumeAmbiguous(f"{words!r} may be any of {told}: say which", volume=words[:200])
    ((group, volume),) = matches
    found = _found(group, graph)
    return FoundVolume(group, found.nodes, volume, node_of(group, volume, graph))


def _is_called(group: Group, volume: Volume, words: str) -> bool:
    return words in (f"{group.name}/{volume.name}", volume.uuid, volume_id(group, volume))


def node_of(group: Group, volume: Volume, graph: Graph) -> Node | None:
    """The device of a volume; None while it is not active."""
    wanted = volume_id(group, volume)
    return next((one for one in graph.nodes if one.id == wanted and one.number), None)


def carrier(found: Found, graph: Graph, words: str, field: str) -> tuple[Node, PhysicalVolume]:
    """A device of a group, by what `choose` takes. Raises PhysicalVolumeNotFound."""
    node = choose_node(graph, words, field)
    one = found.group.carrier(node.number)
    if one is None:
        raise PhysicalVolumeNotFound(
            f"{node.id} is not in {found.group.name}", device=node.id, group=found.group.uuid
        )
    return node, one
