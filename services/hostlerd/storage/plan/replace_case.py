"""The case of a disk that is replaced: what is known of both disks, and where things go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.storage.errors import DeviceNotFound
from hostlerd.storage.model.array import Array
from hostlerd.storage.model.declared import Units
from hostlerd.storage.model.graph import Graph, Kind, Node
from hostlerd.storage.model.lvm import Group
from hostlerd.storage.model.observed import Device, Observed
from hostlerd.storage.model.table import Table
from hostlerd.storage.model.target import Slice, Target
from hostlerd.storage.plan.choose import choose_node, target_of


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked for."""

    old: str
    """Called as any device; if no device is called so, it is taken for one that is gone."""
    new: str
    table_from: str = ""
    """The disk whose table is copied; empty: the old one, or one that has the same things."""
    only: tuple[str, ...] = ()
    """The ids of what is brought back; empty: all that the old one had."""
    erase: bool = False
    """What the new one holds may be lost."""


@dataclass(frozen=True, slots=True)
class Case:
    """Both disks, and all that was seen of the host."""

    asked: Asked
    seen: Observed
    graph: Graph
    arrays: Sequence[Array]
    units: Units
    old: Node | None
    """None if it is gone."""
    new: Node
    want: Table | None = None
    """The table that the new disk is to have, in its own sectors; None: it is used as a whole."""
    groups: Sequence[Group] = ()
    nodes: Mapping[str, Node] = field(default_factory=dict)
    """Of devices, by the kernel's name."""
    places: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """The disk of each device and its number on it, 0 for the disk itself, by their names."""

    def on(self, disk: Node | None) -> Mapping[str, int]:
        """The names of a disk and of its partitions, and their numbers."""
        if disk is None:
            return {}
        return {name: number for name, (of, number) in self.places.items() if of == disk.name}

    def target(self, number: int) -> Target | None:
        """Where something of that number goes: a partition of the new disk, or the disk itself.

        None if the new disk has no such partition and is not to have it.
        """
        if number == 0:
            return target_of(self.new)
        entry = self.want.entry(number) if self.want is not None else None
        if self.want is None or entry is None:
            return None
        start, size = (
            amount * self.want.sector_bytes for amount in (entry.start_sector, entry.size_sectors)
        )
        there = self.partition(number)
        if there is not None and _place(there) == (start, size):
            return target_of(there)
        whole = target_of(self.new)
        return Target(
            *(whole.id, whole.name, whole.number, whole.size_bytes, whole.disk_sequence),
            *(whole.serial, whole.wwn),
            part=Slice(number, start, size),
        )

    def partition(self, number: int) -> Node | None:
        """The partition of that number that the new disk has by now."""
        names = [name for name, at in self.on(self.new).items() if at == number != 0]
        return self.nodes[names[0]] if names else None

    def room(self, target: Target) -> int:
        """How many bytes a place on the new disk has."""
        return target.part.size_bytes if target.part is not None else target.size_bytes

    def numbers_of(self, names: Iterable[str]) -> frozenset[int]:
        """On which numbers of their disks these devices are."""
        return frozenset(self.places[name][1] for name in names if name in self.places)

    def is_there(self, name: str) -> bool:
        """Whether the host has a device of that name of the kernel."""
        return name in self.nodes


def case(
    asked: Asked,
    seen: Observed,
    graph: Graph,
    arrays: Sequence[Array],
    units: Units,
    groups: Sequence[Group] = (),
) -> Case:
    """Find out which disks are meant. Raises InvalidRequest, and what `choose_node` raises."""
    if not asked.old:
        raise InvalidRequest.of([Violation("old", "must name a disk, also one that is gone")])
    new = _whole(graph, asked.new, "new")
    try:
        old = _whole(graph, asked.old, "old")
    except DeviceNotFound:
        old = None
    if old is not None and old.id == new.id:
        raise InvalidRequest.of([Violation("new", "is the old one")])
    nodes = {node.name: node for node in graph.nodes if node.number}
    places = {one.name: _on_disk(one) for one in seen.devices}
    known = (asked, seen, graph, arrays, units, old, new)
    return Case(*known, groups=groups, nodes=nodes, places=places)


def _whole(graph: Graph, words: str, field_: str) -> Node:
    node = choose_node(graph, words, field_)
    if node.kind is Kind.PARTITION:
        words = f"{node.id} is a partition: name the disk that it is of"
        raise InvalidRequest.of([Violation(field_, words)])
    return node


def _on_disk(device: Device) -> tuple[str, int]:
    part = device.partition
    return (device.name, 0) if part is None else (part.of, part.number)


def _place(node: Node) -> tuple[int, int]:
    return int(node.facts.get("start_bytes", 0)), node.size_bytes
