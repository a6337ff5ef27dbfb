"""Looks at all that a path lies on: copies with their manifest, and each copy of redundant data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from hostler.api.storage.v1 import array_pb2, btrfs_pb2, graph_pb2
from hostler.channel import rpc
from hostler.plans import Planned, RpcChange
from hostler.results import CallFailed, HostError
from hostler.session import Session

_GRAPH = rpc(graph_pb2, "GraphService", "GetGraph")
_CHECK = rpc(array_pb2, "ArrayService", "CheckArray")
_SCRUB = rpc(btrfs_pb2, "BtrfsService", "ScrubBtrfs")


@dataclass
class Looks:
    """What the host answered to each look, by what is looked at."""

    answers: dict[str, Any] = field(default_factory=dict)


class VerifyWithRedundancy:
    """Compares files with their manifest, checks each md array below them and scrubs a btrfs.

    All of them are jobs of the host; see `hostler.plans.Change`.
    """

    def __init__(self, verify: RpcChange, path: str) -> None:
        self._verify = verify
        self._path = path

    async def plan(self, session: Session) -> Planned:
        """Find what the path lies on; the plan has a look for each. Raises CallFailed."""
        graph = await session.call(_GRAPH, graph_pb2.GetGraphRequest())
        looks: dict[str, tuple[RpcChange, Planned]] = {}
        below = list(redundant_below(graph, self._path))
        if not below:
            words = f"{self._path} lies on no md array and no btrfs: there is no redundant data"
            raise CallFailed(HostError("FAILED_PRECONDITION", "NO_REDUNDANCY", words))
        for name, change in [("files", self._verify), *below]:
            looks[name] = (change, await change.plan(session))
        planned = [one for _, one in looks.values()]
        return Planned(
            "+".join(one.hash for one in planned),
            tuple(step for one in planned for step in one.steps),
            tuple(words for one in planned for words in one.warnings),
            looks,
        )

    async def apply(self, session: Session, planned: Planned) -> Looks:
        """Have the host begin them all. Raises CallFailed."""
        done = Looks()
        for name, (change, one) in planned.response.items():
            done.answers[name] = await change.apply(session, one)
        return done


def redundant_below(graph: Any, path: str) -> Iterator[tuple[str, RpcChange]]:
    """What reads every copy of the redundant data that a path lies on, by the name of that."""
    nodes = {node.id: node for node in graph.nodes}
    mounts = [
        node
        for node in nodes.values()
        if node.kind == graph_pb2.NODE_KIND_MOUNT and PurePosixPath(path).is_relative_to(node.name)
    ]
    # Of two on one folder the later one hides the other.
    found = max(mounts, key=lambda node: (len(node.name), node.id), default=None)
    waiting, seen = [found.id] if found is not None else [], set[str]()
    while waiting:
        one = waiting.pop()
        if one in seen or one not in nodes:
            continue
        seen.add(one)
        waiting += [edge.lower for edge in graph.edges if edge.upper == one]
        node = nodes[one]
        if node.kind == graph_pb2.NODE_KIND_MD:
            yield one, RpcChange(_CHECK, array_pb2.CheckArrayRequest(array=one))
        elif node.kind == graph_pb2.NODE_KIND_FILESYSTEM and node.facts.get("type") == "btrfs":
            request = btrfs_pb2.ScrubBtrfsRequest(filesystem=node.uuid)
            yield one, RpcChange(_SCRUB, request)
