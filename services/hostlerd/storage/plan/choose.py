"""Which device is meant: by what stays the same, never by the kernel's name alone.

A device is called by its id in the graph, a link of udev, its WWN, its serial number, or the UUID
of what lies on it. What has none of these is called by an id that is made of the kernel's name, and
then with its disk sequence behind it, `name-vda#7`: that number comes once only between two boots.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.storage.errors import DeviceAmbiguous, DeviceNameNotLasting, DeviceNotFound
from hostlerd.storage.model.graph import Graph, Kind, Node
from hostlerd.storage.model.target import Target, signature_words

_SEQUENCE = re.compile(r"(?P<id>.+)#(?P<sequence>[0-9]{1,19})")
_OF_CONTENT = ("by-uuid/", "by-partuuid/")
_TOLD_MOST = 8


def choose(graph: Graph, words: str, field: str = "device") -> Target:
    """The one device that is called so. Pure.

    Raises InvalidRequest, DeviceNotFound, DeviceAmbiguous, DeviceNameNotLasting.
    """
    return target_of(choose_node(graph, words, field))


def choose_node(graph: Graph, words: str, field: str = "device") -> Node:
    """The node of the one device that is called so. Raises what `choose` raises."""
    if not words:
        raise InvalidRequest.of([Violation(field, "must name a device")])
    devices = [node for node in graph.nodes if is_device(node)]
    if (found := _SEQUENCE.fullmatch(words)) is not None:
        return _by_sequence(devices, words, found["id"], int(found["sequence"]))
    for node in devices:
        if words == node.id:
            if has_kernel_name(node):
                raise _not_lasting(words, node)
            return node
        if words in (node.name, f"/dev/{node.name}"):
            raise _not_lasting(words, node)
    matches = {node.id: node for node in _matches(graph, devices, words)}
    if not matches:
        raise DeviceNotFound(
            f"no device of this host is called {words[:200]!r}", device=words[:200]
        )
    if len(matches) > 1:
        told = ", ".join(called(node) for node in list(matches.values())[:_TOLD_MOST])
        raise DeviceAmbiguous(
            f"{words!r} may be any of {told}: say which", device=words, candidates=told
        )
    (node,) = matches.values()
    return node


def target_of(node: Node) -> Target:
    """A device's node as what has to be so still when it is touched."""
    return Target(
        id=node.id,
        name=node.name,
        number=node.number,
        size_bytes=node.size_bytes,
        disk_sequence=node.disk_sequence,
        serial=node.serial,
        wwn=node.wwn,
        signatures=signature_words(node.signatures),
    )


def is_device(node: Node) -> bool:
    """Whether a node is a block device."""
    return bool(node.number) and node.kind is not Kind.MOUNT


def has_kernel_name(node: Node) -> bool:
    """Whether a device's id is made of the kernel's name, as there is nothing better."""
    return node.id.startswith("name-") or node.id.endswith(f"@{node.name}")


def called(node: Node) -> str:
    """The words that `choose` takes for a device."""
    return f"{node.id}#{node.disk_sequence}" if has_kernel_name(node) else node.id


def _by_sequence(devices: list[Node], words: str, node_id: str, sequence: int) -> Node:
    for node in devices:
        if node.id == node_id and node.disk_sequence == sequence:
            return node
    raise DeviceNotFound(f"no device of this host is called {words[:200]!r}", device=words[:200])


def _not_lasting(words: str, node: Node) -> DeviceNameNotLasting:
    return DeviceNameNotLasting(
        f"{words} may be another device after a boot: say {called(node)}",
        device=words,
        called=called(node),
    )


def _matches(graph: Graph, devices: list[Node], words: str) -> Iterator[Node]:
    below = {one.id: one for one in devices}
    for node in graph.nodes:
        # What lies on devices has an id too, such as filesystem-UUID.
        if node.id == words:
            yield from (below[lower] for lower in graph.lower(node.id) if lower in below)
    uuid = next((words.rpartition("/")[2] for link in _OF_CONTENT if link in words), words)
    for node in devices:
        lasting = [link for link in node.links if not link.startswith("/dev/disk/by-path/")]
        if words in lasting or uuid.lower() in _uuids(node):
            yield node
        # A partition has the serial number of its disk, which does not mean it.
        elif node.kind is not Kind.PARTITION and words in (node.serial, node.wwn):
            yield node


def _uuids(node: Node) -> frozenset[str]:
    return frozenset(one.uuid.lower() for one in node.signatures if one.uuid)
