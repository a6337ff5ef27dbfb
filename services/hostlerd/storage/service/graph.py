"""The gRPC edge of the graph."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import grpc.aio

from hostler.api.common.v1 import change_pb2
from hostler.api.storage.v1 import graph_pb2 as pb
from hostlerd.runtime.domain import Runtime
from hostlerd.runtime.errors import DomainError
from hostlerd.storage.kernel import Kernel
from hostlerd.storage.kernel.backups import Backups
from hostlerd.storage.kernel.changing import Changing
from hostlerd.storage.model.backup import Backup
from hostlerd.storage.model.graph import Graph, Kind, Node
from hostlerd.storage.model.observed import Boot, Unseen
from hostlerd.storage.model.reason import Level, Reason
from hostlerd.storage.plan.graph import build
from hostlerd.storage.plan.health import health
from hostlerd.storage.plan.space import Space, spaces
from hostlerd.storage.plan.survival import Survival, called, survival

_LEVELS = {
    Level.GOOD: pb.HEALTH_LEVEL_GOOD,
    Level.WARNING: pb.HEALTH_LEVEL_WARNING,
    Level.CRITICAL: pb.HEALTH_LEVEL_CRITICAL,
}

Context = grpc.aio.ServicerContext[Any, Any]


class GraphService:
    """Serves hostler.api.storage.v1.GraphService."""

    def __init__(self, runtime: Runtime, kernel: Kernel, changing: Changing) -> None:
        self._runtime = runtime
        self._kernel = kernel
        self._backups = Backups(changing.worker, changing.doors)

    async def GetGraph(self, request: pb.GetGraphRequest, context: Context) -> pb.GetGraphResponse:
        """Answer all nodes and edges."""
        seen = await self._runtime.blocking(self._kernel.look)
        graph: Graph = build(seen)
        return pb.GetGraphResponse(
            nodes=[_node(node) for node in graph.nodes],
            edges=[
                pb.Edge(lower=edge.lower, upper=edge.upper, role=edge.role) for edge in graph.edges
            ],
            warnings=_warnings(seen.unseen),
            boot=_boot(seen.boot),
        )

    async def GetSurvival(
        self, request: pb.GetSurvivalRequest, context: Context
    ) -> pb.GetSurvivalResponse:
        """Answer what each volume survives."""
        seen = await self._runtime.blocking(self._kernel.look)
        graph = build(seen)
        return pb.GetSurvivalResponse(
            volumes=[_survival(one, graph) for one in survival(graph)],
            warnings=_warnings(seen.unseen),
        )

    async def GetSpace(self, request: pb.GetSpaceRequest, context: Context) -> pb.GetSpaceResponse:
        """Answer the room of each filesystem."""
        seen = await self._runtime.blocking(self._kernel.look)
        return pb.GetSpaceResponse(
            spaces=[_space(one) for one in spaces(seen)], warnings=_warnings(seen.unseen)
        )

    async def GetHealth(
        self, request: pb.GetHealthRequest, context: Context
    ) -> pb.GetHealthResponse:
        """Answer whether all is well."""
        seen = await self._runtime.blocking(self._kernel.look)
        backups, unseen = await self._runtime.blocking(self._look_at_backups)
        level, reasons = health(seen, backups, int(time.time()))
        return pb.GetHealthResponse(
            level=_LEVELS[level],
            reasons=[_reason(one) for one in reasons],
            warnings=_warnings((*seen.unseen, *unseen)),
        )

    def _look_at_backups(self) -> tuple[tuple[Backup, ...], tuple[Unseen, ...]]:
        """All backups; where they cannot be asked for, what there is to say of it."""
        try:
            return self._backups.all(), ()
        except DomainError as error:
            return (), (Unseen("BACKUPS_UNSEEN", "backups", str(error)[:500]),)


def _node(of: Node) -> pb.Node:
    return pb.Node(
        id=of.id,
        kind=f"NODE_KIND_{of.kind.name}",
        name=of.name,
        device_number=of.number,
        size_bytes=of.size_bytes,
        logical_sector_bytes=of.logical_sector_bytes,
        physical_sector_bytes=of.physical_sector_bytes,
        read_only=of.is_read_only,
        removable=of.is_removable,
        rotational=of.is_rotational,
        transport=of.transport,
        model=of.model,
        serial=of.serial,
        wwn=of.wwn,
        slot=of.slot,
        disk_sequence=of.disk_sequence,
        uuid=of.uuid,
        label=of.label,
        state=of.state,
        facts=of.facts,
        signatures=[
            pb.Signature(type=one.type, usage=one.usage, uuid=one.uuid, label=one.label)
            for one in of.signatures
        ],
        links=of.links,
        controller=of.controller,
        remote_host=of.remote_host,
    )


def _boot(of: Boot) -> pb.Boot:
    return pb.Boot(
        kernel_release=of.kernel_release,
        root=of.root,
        kernels=of.kernels,
        loader_partition_uuid=of.loader_partition_uuid,
        loader_disk_signature=of.loader_disk_signature,
    )


def _survival(of: Survival, graph: Graph) -> pb.Survival:
    node = graph.node(of.id)
    above = [graph.node(edge.upper) for edge in graph.edges if edge.lower == of.id]
    return pb.Survival(
        id=of.id,
        name=node.name,
        kind=f"NODE_KIND_{node.kind.name}",
        mounts=[each.name for each in above if each.kind is Kind.MOUNT],
        there=of.is_there,
        any_disks=of.any_disks,
        losses=[
            pb.Loss(
                unit=f"LOSS_UNIT_{one.unit.name}",
                id=one.name,
                name=called(graph, one.name),
                survived=one.is_survived,
            )
            for one in of.losses
        ],
    )


def _space(of: Space) -> pb.Space:
    return pb.Space(
        id=of.id,
        mount=of.mount,
        type=of.type,
        physical_bytes=of.physical,
        physical_used_bytes=of.physical_used,
        used_bytes=of.used,
        ratio=of.ratio,
        free_least_bytes=of.free_least,
        free_most_bytes=of.free_most,
        df_available_bytes=of.df_available,
        free_files=of.free_files,
    )


def _reason(of: Reason) -> pb.HealthReason:
    return pb.HealthReason(code=of.code, level=_LEVELS[of.level], id=of.id, message=of.message)


def _warnings(unseen: Iterable[Unseen]) -> list[change_pb2.Warning]:
    return [
        change_pb2.Warning(code=one.code, message=one.message, subject=one.subject)
        for one in unseen
    ]
