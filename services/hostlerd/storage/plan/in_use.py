"""Who uses a device, as the graph has it. The worker looks closer before it does anything."""

from __future__ import annotations

from collections.abc import Iterator

from hostlerd.storage.errors import DeviceBusy, DeviceReadOnly
from hostlerd.storage.model.graph import Graph, Kind, Node
from hostlerd.storage.plan.choose import is_device

_CONTENT = (Kind.FILESYSTEM, Kind.SWAP)


def users(graph: Graph, node_id: str) -> tuple[str, ...]:
    """Who uses a device or a partition of it, in words; empty if nobody does."""
    nodes = {node.id: node for node in graph.nodes}
    uppers: dict[str, list[str]] = {}
    for edge in graph.edges:
        uppers.setdefault(edge.lower, []).append(edge.upper)

    def above(lower: str) -> Iterator[str]:
        yield from exported(nodes[lower])
        for upper in uppers.get(lower, ()):
            node = nodes[upper]
            if node.kind is Kind.MOUNT:
                yield f"mounted on {node.name}"
            elif node.kind is Kind.SWAP and node.state == "active":
                yield "swapped to"
            elif node.kind is Kind.PARTITION or node.kind in _CONTENT:
                yield from above(upper)
            elif is_device(node) or node.kind is Kind.VOLUME_GROUP:
                yield f"{node.name} is built on it"

    found = set(above(node_id))
    if nodes[node_id].kind is Kind.PARTITION:
        # Who has the disk has all of its partitions.
        found.update(word for lower in graph.lower(node_id) for word in exported(nodes[lower]))
    return tuple(sorted(found))


def exported(node: Node) -> tuple[str, ...]:
    """Say as what a device itself is exported; empty if it is not."""
    name = node.facts.get("exported_as")
    return (f"exported as {name}",) if name else ()


def mounts(graph: Graph, node_id: str) -> tuple[str, ...]:
    """Where what lies on a device itself is mounted."""
    kinds = {node.id: node for node in graph.nodes}
    content = [e.upper for e in graph.edges if e.lower == node_id]
    content = [one for one in content if kinds[one].kind in _CONTENT]
    found = [e.upper for e in graph.edges if e.lower in content]
    return tuple(kinds[one].name for one in found if kinds[one].kind is Kind.MOUNT)


def refuse_if_used(graph: Graph, node: Node) -> None:
    """Raise DeviceBusy or DeviceReadOnly unless all of a device may be overwritten."""
    if node.is_read_only:
        raise DeviceReadOnly(f"{node.id} ({node.name}) is read-only", device=node.id)
    if found := users(graph, node.id):
        raise DeviceBusy(
            f"{node.id} ({node.name}) is in use: {', '.join(found[:8])}",
            device=node.id,
            used_by=", ".join(found[:64]),
        )
