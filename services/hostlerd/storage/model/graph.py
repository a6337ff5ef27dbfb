"""The graph of what stores and what is stored."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from hostlerd.storage.model.observed import Signature


class Kind(enum.Enum):
    """What a node is."""

    DISK = 1
    PARTITION = 2
    LOOP = 3
    MEMORY = 4
    MD = 5
    LVM = 6
    CRYPT = 7
    MULTIPATH = 8
    DM = 9
    VOLUME_GROUP = 10
    FILESYSTEM = 11
    SWAP = 12
    MOUNT = 13
    NETWORK = 14
    OPTICAL = 15


@dataclass(frozen=True, slots=True)
class Need:
    """So many legs have to be there; a leg is there if all of the nodes are that it names."""

    legs: tuple[tuple[str, ...], ...]
    least: int


@dataclass(frozen=True, slots=True)
class Node:
    """A thing that stores or is stored; `id` is the same after a boot, `name` need not be."""

    id: str
    kind: Kind
    name: str
    number: str = ""
    size_bytes: int = 0
    logical_sector_bytes: int = 0
    physical_sector_bytes: int = 0
    is_read_only: bool = False
    is_removable: bool = False
    is_rotational: bool = False
    transport: str = ""
    model: str = ""
    serial: str = ""
    wwn: str = ""
    slot: str = ""
    controller: str = ""
    remote_host: str = ""
    disk_sequence: int = 0
    uuid: str = ""
    label: str = ""
    state: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    signatures: tuple[Signature, ...] = ()
    links: tuple[str, ...] = ()
    needs: tuple[Need, ...] = ()
    """What of it has to be there, all of them; without any, all that it lies on."""


@dataclass(frozen=True, slots=True)
class Edge:
    """`upper` lies on `lower`; both are ids."""

    lower: str
    upper: str
    role: str = ""


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes, those that carry before what they carry, and edges."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]

    def lower(self, node: str) -> tuple[str, ...]:
        """What a node lies on."""
        return tuple(edge.lower for edge in self.edges if edge.upper == node)

    def node(self, node_id: str) -> Node:
        """The node of an id."""
        return next(node for node in self.nodes if node.id == node_id)
