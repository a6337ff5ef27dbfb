"""The gRPC edge of arrays of md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import grpc.aio

from hostler.api.common.v1 import change_pb2
from hostler.api.storage.v1 import array_pb2 as pb
from hostlerd.runtime.changes import Changes
from hostlerd.runtime.domain import Runtime
from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.runtime.steps import Plan
from hostlerd.storage.kernel import Kernel
from hostlerd.storage.kernel.md import arrays
from hostlerd.storage.model.array import Array
from hostlerd.storage.model.graph import Graph
from hostlerd.storage.plan import array_create, array_grow, array_members
from hostlerd.storage.plan.array_check import Wanted
from hostlerd.storage.plan.array_choose import find
from hostlerd.storage.plan.graph import build
from hostlerd.storage.service import array_convert
from hostlerd.storage.service.aftermath import seen_after
from hostlerd.storage.service.array_follow import Following

_KIB = 1024

Context = grpc.aio.ServicerContext[Any, Any]
Planner = Callable[[Sequence[Array], Graph], Plan]


class ArrayService:
    """Serves hostler.api.storage.v1.ArrayService."""

    def __init__(
        self, runtime: Runtime, kernel: Kernel, changes: Changes, following: Following
    ) -> None:
        self._runtime = runtime
        self._kernel = kernel
        self._changes = changes
        self._following = following

    async def ListArrays(
        self, request: pb.ListArraysRequest, context: Context
    ) -> pb.ListArraysResponse:
        """Answer all arrays."""
        found, graph = await self._runtime.blocking(self._look)
        return pb.ListArraysResponse(arrays=[array_convert.array(one, graph) for one in found])

    async def GetArray(self, request: pb.GetArrayRequest, context: Context) -> pb.GetArrayResponse:
        """Answer an array."""
        return pb.GetArrayResponse(array=await self._runtime.blocking(self._get, request.array))

    async def CreateArray(
        self, request: pb.CreateArrayRequest, context: Context
    ) -> pb.CreateArrayResponse:
        """Make an array."""
        redundant = request.level != "raid0"
        wanted = Wanted(
            name=request.name,
            level=request.level,
            devices=tuple(request.devices),
            spares=tuple(request.spares),
            layout=request.layout,
            chunk_bytes=request.chunk_bytes,
            bitmap=request.bitmap if request.HasField("bitmap") else redundant,
            assume_clean=request.assume_clean,
            write_mostly=request.write_mostly_count,
        )
        change = await self._change(request, partial(array_create.create, wanted), request.name)
        return pb.CreateArrayResponse(array=await self._after(change, request.name), change=change)

    async def AddMember(
        self, request: pb.AddMemberRequest, context: Context
    ) -> pb.AddMemberResponse:
        """Add a device."""
        plan = partial(array_members.add, request.array, request.device, request.as_new)
        change = await self._change(request, plan)
        return pb.AddMemberResponse(array=await self._after(change, request.array), change=change)

    async def FailMember(
        self, request: pb.FailMemberRequest, context: Context
    ) -> pb.FailMemberResponse:
        """Mark a member as failed."""
        plan = partial(array_members.fail, request.array, request.device)
        change = await self._change(request, plan)
        return pb.FailMemberResponse(array=await self._after(change, request.array), change=change)

    async def RemoveMember(
        self, request: pb.RemoveMemberRequest, context: Context
    ) -> pb.RemoveMemberResponse:
        """Take a member out."""
        plan = partial(array_members.remove, request.array, request.device)
        change = await self._change(request, plan)
        return pb.RemoveMemberResponse(
            array=await self._after(change, request.array), change=change
        )

    async def ReplaceMember(
        self, request: pb.ReplaceMemberRequest, context: Context
    ) -> pb.ReplaceMemberResponse:
        """Have a device take the place of another one."""
        plan = partial(array_members.replace, request.array, request.old, request.new)
        change = await self._change(request, plan)
        return pb.ReplaceMemberResponse(
            array=await self._after(change, request.array), change=change
        )

    async def GrowArray(
        self, request: pb.GrowArrayRequest, context: Context
    ) -> pb.GrowArrayResponse:
        """Use more devices, or more of each."""
        devices = tuple(request.devices)
        plan = partial(
            array_grow.grow, request.array, request.raid_disks, devices, request.whole_size
        )
        change = await self._change(request, plan)
        return pb.GrowArrayResponse(array=await self._after(change, request.array), change=change)

    async def CheckArray(
        self, request: pb.CheckArrayRequest, context: Context
    ) -> pb.CheckArrayResponse:
        """Compare all copies."""
        change = await self._change(request, partial(array_grow.compare, request.array, "check"))
        return pb.CheckArrayResponse(array=await self._after(change, request.array), change=change)

    async def RepairArray(
        self, request: pb.RepairArrayRequest, context: Context
    ) -> pb.RepairArrayResponse:
        """Compare all copies, and make those that differ alike."""
        change = await self._change(request, partial(array_grow.compare, request.array, "repair"))
        return pb.RepairArrayResponse(array=await self._after(change, request.array), change=change)

    async def SetSyncSpeed(
        self, request: pb.SetSyncSpeedRequest, context: Context
    ) -> pb.SetSyncSpeedResponse:
        """Bound how fast it is synchronised."""
        least, most = request.least_bytes_per_second, request.most_bytes_per_second
        if faults := [
            Violation(f"{name}_bytes_per_second", "must be whole KiB/s")
            for name, rate in (("least", least), ("most", most))
            if rate % _KIB
        ]:
            raise InvalidRequest.of(faults)
        plan = partial(array_grow.speed, request.array, least // _KIB, most // _KIB)
        change = await self._change(request, plan)
        return pb.SetSyncSpeedResponse(
            array=await self._after(change, request.array), change=change
        )

    async def StopArray(
        self, request: pb.StopArrayRequest, context: Context
    ) -> pb.StopArrayResponse:
        """Stop an array."""
        change = await self._change(request, partial(array_create.stop, request.array), "")
        return pb.StopArrayResponse(change=change)

    async def AssembleArray(
        self, request: pb.AssembleArrayRequest, context: Context
    ) -> pb.AssembleArrayResponse:
        """Start an array."""
        plan = partial(array_create.assemble, request.array, request.degraded)
        change = await self._change(request, plan)
        return pb.AssembleArrayResponse(
            array=await self._after(change, request.array), change=change
        )

    async def DeleteArray(
        self, request: pb.DeleteArrayRequest, context: Context
    ) -> pb.DeleteArrayResponse:
        """End an array."""
        change = await self._change(request, partial(array_create.delete, request.array), "")
        return pb.DeleteArrayResponse(change=change)

    async def _change(
        self, request: Any, planner: Planner, follows: str | None = None
    ) -> change_pb2.Change:
        """Plan and carry out; as a job, follow what md then does to the array of this name."""
        done = await self._changes.carry_out(request.change, lambda: planner(*self._look()))
        name = request.array if follows is None else follows
        if name and not request.change.validate_only:
            await self._runtime.blocking(self._follow, name, done.plan, done.change)
        return done.change

    def _follow(self, name: str, plan: Plan, change: change_pb2.Change) -> None:
        if not self._following.is_wanted():
            return
        found = find(*self._look(), name)
        for notice in self._following.follow(found, plan.steps):
            change.warnings.add(code=notice.code, message=notice.message, subject=notice.subject)

    async def _after(self, change: change_pb2.Change, name: str) -> pb.Array | None:
        """The array as it is now; None if nothing was done, or if that cannot be seen."""
        if change.outcome == change_pb2.OUTCOME_PLANNED:
            return None
        answer: pb.Array | None = await seen_after(self._runtime, change, self._get, name)
        return answer

    def _get(self, name: str) -> pb.Array:
        found, graph = self._look()
        return array_convert.array(find(found, graph, name).array, graph)

    def _look(self) -> tuple[tuple[Array, ...], Graph]:
        seen = self._kernel.look()
        return arrays(seen), build(seen)
