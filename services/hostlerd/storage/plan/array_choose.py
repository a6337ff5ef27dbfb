"""Which array is meant, and which of its members."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.storage.errors import ArrayAmbiguous, ArrayNotFound
from hostlerd.storage.model.array import MEMBER_SIGNATURE, Array
from hostlerd.storage.model.array_steps import ResumeArray
from hostlerd.storage.model.graph import Graph, Node
from hostlerd.storage.model.target import Target
from hostlerd.storage.plan.choose import target_of


@dataclass(frozen=True, slots=True)
class Found:
    """An array, and its node in the graph."""

    array: Array
    node: Node

    @property
    def target(self) -> Target:
        """The array as a device."""
        return target_of(self.node)

    def resumed(self) -> tuple[ResumeArray, ...]:
        """The step that has md go on with what was asked for before; none if it is at it."""
        return (ResumeArray(self.target, self.array.uuid),) if self.array.stands_still else ()


def find(arrays: Sequence[Array], graph: Graph, words: str) -> Found:
    """The array of this name, UUID, id or link. Raises ArrayNotFound, ArrayAmbiguous."""
    if not words:
        raise InvalidRequest.of([Violation("array", "must name an array")])
    nodes = {node.name: node for node in graph.nodes if node.number}
    matches = [
        Found(one, nodes[one.name])
        for one in arrays
        if one.name in nodes and _is_called(one, nodes[one.name], words)
    ]
    if not matches:
        raise ArrayNotFound(f"no array of this host is called {words[:200]!r}", array=words[:200])
    if len(matches) > 1:
        told = ", ".join(one.node.id for one in matches)
        raise ArrayAmbiguous(f"{words!r} may be any of {told}: say which", array=words[:200])
    return matches[0]


def _is_called(array: Array, node: Node, words: str) -> bool:
    # md127 is whatever was assembled first: never that name alone.
    return words in (node.id, array.label, *node.links) or plain_uuid(words) == plain_uuid(
        array.uuid
    )


def plain_uuid(words: str) -> str:
    """A UUID without what mdadm and blkid put between its digits; empty if it is none."""
    digits = words.lower().replace("-", "").replace(":", "")
    is_one = len(digits) == 32 and all(c in "0123456789abcdef" for c in digits)
    return digits if is_one else ""


def members_of(graph: Graph, uuid: str) -> tuple[Node, ...]:
    """The devices with the superblock of an array, whether it is assembled or not."""
    return tuple(
        node
        for node in graph.nodes
        if node.number
        and any(
            one.type == MEMBER_SIGNATURE and plain_uuid(one.uuid) == plain_uuid(uuid) != ""
            for one in node.signatures
        )
    )


def label_of(nodes: Sequence[Node]) -> str:
    """The array's own name in its members' superblocks, without the host that made it."""
    labels = (one.label for node in nodes for one in node.signatures)
    return next((label.rpartition(":")[2] for label in labels if label), "")
