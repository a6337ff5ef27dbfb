"""The gRPC edge of LUKS."""

from __future__ import annotations

from typing import Any

import grpc.aio

from hostler.api.common.v1 import change_pb2
from hostler.api.storage.v1 import luks_pb2 as pb
from hostlerd.runtime.changes import Changes
from hostlerd.runtime.domain import Runtime
from hostlerd.storage.kernel import Kernel
from hostlerd.storage.kernel.changing import Changing
from hostlerd.storage.model.graph import Graph
from hostlerd.storage.plan import luks as plan
from hostlerd.storage.plan.graph import build
from hostlerd.storage.service.aftermath import seen_after

Context = grpc.aio.ServicerContext[Any, Any]


class LuksService:
    """Serves hostler.api.storage.v1.LuksService."""

    def __init__(
        self, runtime: Runtime, kernel: Kernel, changing: Changing, changes: Changes
    ) -> None:
        self._runtime = runtime
        self._kernel = kernel
        self._changing = changing
        self._changes = changes

    async def ListLuks(self, request: pb.ListLuksRequest, context: Context) -> pb.ListLuksResponse:
        """Answer what is enciphered."""
        graph = await self._runtime.blocking(self._graph)
        return pb.ListLuksResponse(items=[_luks(one) for one in plan.all_of(graph)])

    async def OpenLuks(self, request: pb.OpenLuksRequest, context: Context) -> pb.OpenLuksResponse:
        """Open it."""
        wanted = plan.Wanted(
            *(request.device, request.name, request.key_file, request.credential),
            request.read_only,
        )
        done = await self._changes.carry_out(
            request.change, lambda: plan.open_(wanted, self._graph())
        )
        return pb.OpenLuksResponse(luks=await self._after(request, done.change), change=done.change)

    async def CloseLuks(
        self, request: pb.CloseLuksRequest, context: Context
    ) -> pb.CloseLuksResponse:
        """Close it."""
        done = await self._changes.carry_out(
            request.change, lambda: plan.close(request.device, self._graph())
        )
        return pb.CloseLuksResponse(
            luks=await self._after(request, done.change), change=done.change
        )

    async def BackupLuksHeader(
        self, request: pb.BackupLuksHeaderRequest, context: Context
    ) -> pb.BackupLuksHeaderResponse:
        """Keep the header."""
        done = await self._changes.carry_out(
            request.change, lambda: plan.backup(request.device, self._graph())
        )
        (step,) = done.plan.steps
        told = self._changing.take_answer(step)
        saved = next(iter(told.get("saved", {}).values()), "")
        return pb.BackupLuksHeaderResponse(change=done.change, saved=saved)

    async def _after(self, request: Any, change: change_pb2.Change) -> pb.Luks | None:
        """What is there now; None if nothing was done, or if that cannot be seen."""
        if request.change.validate_only:
            return None
        found: pb.Luks | None = await seen_after(
            self._runtime, change, lambda: _luks(plan.find(self._graph(), request.device))
        )
        return found

    def _graph(self) -> Graph:
        return build(self._kernel.look())


def _luks(of: plan.Found) -> pb.Luks:
    return pb.Luks(
        id=of.node.id,
        device_name=of.node.name,
        uuid=of.uuid,
        label=of.node.label,
        open=of.opened is not None,
        name=of.name,
        open_id=of.opened.id if of.opened is not None else "",
    )
