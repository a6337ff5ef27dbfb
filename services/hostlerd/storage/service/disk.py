"""The gRPC edge of the replacement of disks."""

from __future__ import annotations

import time
from typing import Any

import grpc.aio

from hostler.api.common.v1 import change_pb2
from hostler.api.storage.v1 import disk_pb2 as pb
from hostlerd.runtime.changes import Changes
from hostlerd.runtime.domain import Runtime
from hostlerd.runtime.steps import Plan
from hostlerd.storage.kernel import Kernel, lvm_look, smart, table
from hostlerd.storage.kernel.md import arrays
from hostlerd.storage.kernel.mount_units import MountUnits
from hostlerd.storage.model.graph import Node
from hostlerd.storage.model.replacement import Replacement
from hostlerd.storage.plan import replace_disk
from hostlerd.storage.plan.burn_in import burn_in
from hostlerd.storage.plan.choose import target_of
from hostlerd.storage.plan.graph import build
from hostlerd.storage.plan.locate import locate
from hostlerd.storage.plan.lvm_choose import members
from hostlerd.storage.plan.replace_case import Asked, Case, case
from hostlerd.storage.service import disk_convert
from hostlerd.storage.service.disk_follow import Following

Context = grpc.aio.ServicerContext[Any, Any]
_BOOT_CODE_BYTES = 440


class DiskService:
    """Serves hostler.api.storage.v1.DiskService."""

    def __init__(
        self,
        runtime: Runtime,
        kernel: Kernel,
        units: MountUnits,
        changes: Changes,
        following: Following,
    ) -> None:
        self._runtime = runtime
        self._kernel = kernel
        self._units = units
        self._changes = changes
        self._following = following
        self._worker = following.changing.worker

    async def PlanReplacement(
        self, request: pb.PlanReplacementRequest, context: Context
    ) -> pb.PlanReplacementResponse:
        """Answer what it takes."""
        _, found = await self._runtime.blocking(self._examine, _asked(request))
        plan = Plan(found.steps)
        steps = [
            change_pb2.PlanStep(kind=type(one).__name__, description=one.describe())
            for one in plan.steps
        ]
        return pb.PlanReplacementResponse(
            replacement=disk_convert.replacement(found),
            plan=change_pb2.Plan(hash=plan.hash, steps=steps),
        )

    async def ReplaceDisk(
        self, request: pb.ReplaceDiskRequest, context: Context
    ) -> pb.ReplaceDiskResponse:
        """Have a disk take another one's place."""
        asked = _asked(request)
        done = await self._changes.carry_out(
            request.change, lambda: replace_disk.plan(*self._examine(asked))
        )
        found: Replacement = done.plan.result
        if not request.change.validate_only:
            await self._runtime.blocking(self._follow, asked, found, done.change)
        return pb.ReplaceDiskResponse(
            replacement=disk_convert.replacement(found), change=done.change
        )

    async def LocateDisk(
        self, request: pb.LocateDiskRequest, context: Context
    ) -> pb.LocateDiskResponse:
        """Have its enclosure blink at a disk."""
        done = await self._changes.carry_out(
            request.change,
            lambda: locate(request.disk, not request.off, build(self._kernel.look())),
        )
        return pb.LocateDiskResponse(change=done.change)

    async def BurnInDisk(
        self, request: pb.BurnInDiskRequest, context: Context
    ) -> pb.BurnInDiskResponse:
        """Write all of a disk and read it back."""
        done = await self._changes.carry_out(
            request.change, lambda: burn_in(request.disk, build(self._kernel.look()))
        )
        if not request.change.validate_only:
            await self._runtime.blocking(self._following.burn_in, done.plan.steps)
        return pb.BurnInDiskResponse(change=done.change)

    def _follow(self, asked: Asked, planned: Replacement, change: change_pb2.Change) -> None:
        """As a job, watch all that was begun, now or before, to its end."""
        if not self._following.is_wanted():
            return
        for notice in self._following.follow(planned, lambda: self._examine(asked)[1]):
            change.warnings.add(code=notice.code, message=notice.message, subject=notice.subject)

    def _examine(self, asked: Asked) -> tuple[Case, Replacement]:
        seen = self._kernel.look()
        graph = build(seen)
        groups = lvm_look.groups(self._worker, [target_of(node) for node in members(graph)])
        known = case(asked, seen, graph, arrays(seen), self._units.look(), groups)
        source = replace_disk.table_source(known)
        have = table.planned_with(_read(known.new).backup)
        asked_disk = smart.ask(self._worker, target_of(known.new))
        if source is None:
            return known, replace_disk.examine(known, have, None, smart=asked_disk)
        read = _read(source)
        code = any(read.backup.pieces.get(0, b"")[:_BOOT_CODE_BYTES])
        copied = (source, table.planned_with(read.backup))
        return known, replace_disk.examine(
            known, have, copied, smart=asked_disk, has_boot_code=code
        )


def _asked(request: Any) -> Asked:
    return Asked(
        old=request.old,
        new=request.new,
        table_from=request.table_from,
        only=tuple(request.only),
        erase=request.erase,
    )


def _read(node: Node) -> table.Read:
    about = {"id": node.id, "unix_s": str(int(time.time()))}
    return table.read(node.name, node.size_bytes, node.logical_sector_bytes or 512, about)
