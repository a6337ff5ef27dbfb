"""The gRPC edge of filesystems."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc.aio

from hostler.api.storage.v1 import filesystem_pb2 as pb
from hostlerd.runtime.changes import Changes, Done
from hostlerd.runtime.domain import Runtime
from hostlerd.runtime.steps import Plan
from hostlerd.storage.kernel import Kernel
from hostlerd.storage.kernel.changing import Changing
from hostlerd.storage.kernel.check import check
from hostlerd.storage.kernel.superblock import size_bytes
from hostlerd.storage.model.graph import Graph
from hostlerd.storage.model.saved import Saved
from hostlerd.storage.plan import filesystem as plan
from hostlerd.storage.plan.graph import build

Context = grpc.aio.ServicerContext[Any, Any]


class FilesystemService:
    """Serves hostler.api.storage.v1.FilesystemService."""

    def __init__(
        self, runtime: Runtime, kernel: Kernel, changing: Changing, changes: Changes
    ) -> None:
        self._runtime = runtime
        self._kernel = kernel
        self._changing = changing
        self._changes = changes

    async def MakeFilesystem(
        self, request: pb.MakeFilesystemRequest, context: Context
    ) -> pb.MakeFilesystemResponse:
        """Make a filesystem or a swap area."""
        wanted = plan.Wanted(request.device, request.type, request.label, request.uuid)
        done = await self._changes.carry_out(
            request.change, lambda: plan.make(wanted, self._graph())
        )
        told = self._told(done)
        return pb.MakeFilesystemResponse(
            change=done.change, uuid=told.get("uuid", ""), saved=_saved(told)
        )

    async def WipeSignatures(
        self, request: pb.WipeSignaturesRequest, context: Context
    ) -> pb.WipeSignaturesResponse:
        """Wipe all signatures of a device."""
        done = await self._changes.carry_out(
            request.change, lambda: plan.wipe(request.device, self._graph())
        )
        return pb.WipeSignaturesResponse(change=done.change, saved=_saved(self._told(done)))

    async def SetLabel(self, request: pb.SetLabelRequest, context: Context) -> pb.SetLabelResponse:
        """Give a filesystem a label."""
        done = await self._changes.carry_out(
            request.change, lambda: plan.set_label(request.device, request.label, self._graph())
        )
        return pb.SetLabelResponse(change=done.change)

    async def GrowFilesystem(
        self, request: pb.GrowFilesystemRequest, context: Context
    ) -> pb.GrowFilesystemResponse:
        """Grow a filesystem to the end of its device."""

        def make_plan() -> Plan:
            graph = self._graph()
            node, kind = plan.growable(request.device, graph)
            return plan.grow(request.device, size_bytes(node.name, kind), graph)

        done = await self._changes.carry_out(request.change, make_plan)
        return pb.GrowFilesystemResponse(change=done.change)

    async def CheckFilesystem(
        self, request: pb.CheckFilesystemRequest, context: Context
    ) -> pb.CheckFilesystemResponse:
        """Check a filesystem that is not mounted."""
        answer: pb.CheckFilesystemResponse = await self._runtime.blocking(
            self._check, request.device
        )
        return answer

    async def ListSaved(
        self, request: pb.ListSavedRequest, context: Context
    ) -> pb.ListSavedResponse:
        """List what was saved of devices before they were overwritten."""
        kept = await self._runtime.blocking(self._changing.kept)
        return pb.ListSavedResponse(saved=[_content(one) for one in kept])

    async def RestoreSaved(
        self, request: pb.RestoreSavedRequest, context: Context
    ) -> pb.RestoreSavedResponse:
        """Put back what was saved of a device."""
        done = await self._changes.carry_out(
            request.change,
            lambda: plan.restore(
                request.device, request.saved, self._changing.kept(), self._graph()
            ),
        )
        told = self._told(done)
        return pb.RestoreSavedResponse(
            change=done.change, signatures=told.get("signatures", ()), saved=_saved(told)
        )

    def _graph(self) -> Graph:
        return build(self._kernel.look())

    def _check(self, device: str) -> pb.CheckFilesystemResponse:
        node, kind = plan.checkable(device, self._graph())
        found = check(node.name, kind)
        return pb.CheckFilesystemResponse(id=node.id, type=kind, clean=found.clean, said=found.said)

    def _told(self, done: Done) -> Mapping[str, Any]:
        """What the worker told of the one step of a change; empty if there was none."""
        for step in done.plan.steps:
            return self._changing.take_answer(step)
        return {}


def _saved(told: Mapping[str, Any]) -> str:
    return next(iter(told.get("saved", {}).values()), "")


def _content(one: Saved) -> pb.SavedContent:
    made = pb.SavedContent(
        name=one.id,
        operation=one.operation,
        device=one.target.id,
        device_name=one.target.name,
        serial=one.target.serial,
        size_bytes=one.target.size_bytes,
        signatures=one.target.signatures,
        kept_bytes=sum(region.length for region in one.regions),
    )
    made.create_time.FromSeconds(one.unix_s)
    return made
