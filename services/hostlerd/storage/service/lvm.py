"""The gRPC edge of LVM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import grpc.aio

from hostler.api.common.v1 import change_pb2
from hostler.api.storage.v1 import lvm_pb2 as pb
from hostlerd.runtime.changes import Changes
from hostlerd.runtime.domain import Runtime
from hostlerd.runtime.steps import Plan
from hostlerd.storage.kernel import Kernel, lvm_look
from hostlerd.storage.kernel.changing import Changing
from hostlerd.storage.kernel.superblock import size_bytes
from hostlerd.storage.model.graph import Graph, Node
from hostlerd.storage.model.lvm import Group
from hostlerd.storage.model.target import Target
from hostlerd.storage.plan import lvm_groups, lvm_mend, lvm_volumes
from hostlerd.storage.plan.choose import target_of
from hostlerd.storage.plan.graph import build
from hostlerd.storage.plan.lvm_choose import find, find_volume, members
from hostlerd.storage.service import lvm_convert as convert
from hostlerd.storage.service.aftermath import seen_after
from hostlerd.storage.service.lvm_follow import Following, carriers

Context = grpc.aio.ServicerContext[Any, Any]
Planner = Callable[[Sequence[Group], Graph], Plan]


class LvmService:
    """Serves hostler.api.storage.v1.LvmService."""

    def __init__(
        self, runtime: Runtime, kernel: Kernel, changing: Changing, changes: Changes
    ) -> None:
        self._runtime = runtime
        self._kernel = kernel
        self._changing = changing
        self._changes = changes
        self._following = Following(changing, self._members)

    async def ListVolumeGroups(
        self, request: pb.ListVolumeGroupsRequest, context: Context
    ) -> pb.ListVolumeGroupsResponse:
        """Answer all groups."""
        groups, graph = await self._runtime.blocking(self._look)
        return pb.ListVolumeGroupsResponse(groups=[convert.group(one, graph) for one in groups])

    async def GetVolumeGroup(
        self, request: pb.GetVolumeGroupRequest, context: Context
    ) -> pb.GetVolumeGroupResponse:
        """Answer a group."""
        return pb.GetVolumeGroupResponse(
            group=await self._runtime.blocking(self._group, request.group)
        )

    async def CreateVolumeGroup(
        self, request: pb.CreateVolumeGroupRequest, context: Context
    ) -> pb.CreateVolumeGroupResponse:
        """Make a group."""
        wanted = lvm_groups.Wanted(request.name, tuple(request.devices), request.extent_bytes)
        change = await self._change(request, partial(lvm_groups.create, wanted))
        return pb.CreateVolumeGroupResponse(
            group=await self._after(change, self._group, request.name), change=change
        )

    async def ExtendVolumeGroup(
        self, request: pb.ExtendVolumeGroupRequest, context: Context
    ) -> pb.ExtendVolumeGroupResponse:
        """Add a device."""
        plan = partial(lvm_groups.extend, request.group, request.device)
        change = await self._change(request, plan)
        return pb.ExtendVolumeGroupResponse(
            group=await self._after(change, self._group, request.group), change=change
        )

    async def ReduceVolumeGroup(
        self, request: pb.ReduceVolumeGroupRequest, context: Context
    ) -> pb.ReduceVolumeGroupResponse:
        """Take a device out, or those that are missing."""
        plan = partial(lvm_groups.reduce, request.group, request.device)
        change = await self._change(request, plan)
        return pb.ReduceVolumeGroupResponse(
            group=await self._after(change, self._group, request.group), change=change
        )

    async def MovePhysicalVolume(
        self, request: pb.MovePhysicalVolumeRequest, context: Context
    ) -> pb.MovePhysicalVolumeResponse:
        """Move what lies on a device to others."""
        plan = partial(lvm_groups.move, request.group, request.device, tuple(request.to))
        change = await self._change(request, plan)
        return pb.MovePhysicalVolumeResponse(
            group=await self._after(change, self._group, request.group), change=change
        )

    async def DeleteVolumeGroup(
        self, request: pb.DeleteVolumeGroupRequest, context: Context
    ) -> pb.DeleteVolumeGroupResponse:
        """End a group."""
        change = await self._change(request, partial(lvm_groups.delete, request.group))
        return pb.DeleteVolumeGroupResponse(change=change)

    async def CreateVolume(
        self, request: pb.CreateVolumeRequest, context: Context
    ) -> pb.CreateVolumeResponse:
        """Make a volume."""
        wanted = lvm_volumes.Wanted(
            group=request.group,
            name=request.name,
            kind=convert.KINDS.get(request.kind, ""),
            size_bytes=request.size_bytes,
            devices=tuple(request.devices),
            parts=request.parts,
            stripe_bytes=request.stripe_bytes,
            pool=request.pool,
        )
        change = await self._change(request, partial(lvm_volumes.create, wanted))
        volume = await self._after(change, self._in_group, request.group, request.name)
        return pb.CreateVolumeResponse(volume=volume, change=change)

    async def GrowVolume(
        self, request: pb.GrowVolumeRequest, context: Context
    ) -> pb.GrowVolumeResponse:
        """Give a volume more room."""

        def plan(groups: Sequence[Group], graph: Graph) -> Plan:
            look = (groups, graph, _filesystem_bytes)
            size, both = request.size_bytes, request.with_filesystem
            return lvm_volumes.grow(request.volume, size, both, look)

        change = await self._change(request, plan)
        return pb.GrowVolumeResponse(
            volume=await self._after(change, self._volume, request.volume), change=change
        )

    async def RenameVolume(
        self, request: pb.RenameVolumeRequest, context: Context
    ) -> pb.RenameVolumeResponse:
        """Give a volume another name."""
        group = ""

        def plan(groups: Sequence[Group], graph: Graph) -> Plan:
            nonlocal group
            group = find_volume(groups, graph, request.volume).group.uuid
            return lvm_volumes.rename(request.volume, request.name, groups, graph)

        change = await self._change(request, plan)
        volume = await self._after(change, self._in_group, group, request.name)
        return pb.RenameVolumeResponse(volume=volume, change=change)

    async def ActivateVolume(
        self, request: pb.ActivateVolumeRequest, context: Context
    ) -> pb.ActivateVolumeResponse:
        """Have a volume be a device."""
        plan = partial(lvm_volumes.set_active, request.volume, True)
        change = await self._change(request, plan)
        return pb.ActivateVolumeResponse(
            volume=await self._after(change, self._volume, request.volume), change=change
        )

    async def DeactivateVolume(
        self, request: pb.DeactivateVolumeRequest, context: Context
    ) -> pb.DeactivateVolumeResponse:
        """Have a volume be no device."""
        plan = partial(lvm_volumes.set_active, request.volume, False)
        change = await self._change(request, plan)
        return pb.DeactivateVolumeResponse(
            volume=await self._after(change, self._volume, request.volume), change=change
        )

    async def CreateVolumeSnapshot(
        self, request: pb.CreateVolumeSnapshotRequest, context: Context
    ) -> pb.CreateVolumeSnapshotResponse:
        """Take a snapshot."""
        group = ""

        def plan(groups: Sequence[Group], graph: Graph) -> Plan:
            nonlocal group
            group = find_volume(groups, graph, request.volume).group.uuid
            size = request.size_bytes
            return lvm_mend.snapshot(request.volume, request.name, size, groups, graph)

        change = await self._change(request, plan)
        made = await self._after(change, self._in_group, group, request.name)
        return pb.CreateVolumeSnapshotResponse(snapshot=made, change=change)

    async def CloneVolume(
        self, request: pb.CloneVolumeRequest, context: Context
    ) -> pb.CloneVolumeResponse:
        """Make a volume of a template."""
        group = ""

        def plan(groups: Sequence[Group], graph: Graph) -> Plan:
            nonlocal group
            group = find_volume(groups, graph, request.volume).group.uuid
            wanted = (request.volume, request.name, request.size_bytes, request.hostname)
            return lvm_mend.clone(wanted, groups, graph)

        change = await self._change(request, plan)
        made = await self._after(change, self._in_group, group, request.name)
        return pb.CloneVolumeResponse(clone=made, change=change)

    async def MergeVolumeSnapshot(
        self, request: pb.MergeVolumeSnapshotRequest, context: Context
    ) -> pb.MergeVolumeSnapshotResponse:
        """Have a volume be what its snapshot is."""
        plan = partial(lvm_mend.merge, request.volume, request.later)
        return pb.MergeVolumeSnapshotResponse(change=await self._change(request, plan))

    async def DeleteVolume(
        self, request: pb.DeleteVolumeRequest, context: Context
    ) -> pb.DeleteVolumeResponse:
        """Delete a volume."""
        change = await self._change(request, partial(lvm_volumes.delete, request.volume))
        return pb.DeleteVolumeResponse(change=change)

    async def ReplaceVolumeDevice(
        self, request: pb.ReplaceVolumeDeviceRequest, context: Context
    ) -> pb.ReplaceVolumeDeviceResponse:
        """Put a device in the place of another one."""
        plan = partial(lvm_mend.replace, request.volume, request.old, request.new)
        change = await self._change(request, plan)
        return pb.ReplaceVolumeDeviceResponse(
            volume=await self._after(change, self._volume, request.volume), change=change
        )

    async def ListGroupBackups(
        self, request: pb.ListGroupBackupsRequest, context: Context
    ) -> pb.ListGroupBackupsResponse:
        """Answer the descriptions that are kept."""
        kept = await self._runtime.blocking(self._kept)
        return pb.ListGroupBackupsResponse(backups=[convert.backup(one) for one in kept])

    async def RestoreGroup(
        self, request: pb.RestoreGroupRequest, context: Context
    ) -> pb.RestoreGroupResponse:
        """Put back a description."""

        def plan(groups: Sequence[Group], graph: Graph) -> Plan:
            kept = [(one["id"], one["uuid"]) for one in self._kept()]
            return lvm_groups.restore(request.group, request.backup, kept, groups, graph)

        change = await self._change(request, plan)
        return pb.RestoreGroupResponse(
            group=await self._after(change, self._group, request.group), change=change
        )

    async def _change(self, request: Any, planner: Planner) -> change_pb2.Change:
        """Plan and carry out; as a job, follow what LVM then does."""
        done = await self._changes.carry_out(request.change, lambda: planner(*self._look()))
        if not request.change.validate_only:
            await self._runtime.blocking(self._following.follow, done.plan.steps)
        return done.change

    async def _after(self, change: change_pb2.Change, get: Callable[..., Any], *words: str) -> Any:
        """What is there now; None if nothing was done, or if that cannot be seen."""
        if change.outcome == change_pb2.OUTCOME_PLANNED:
            return None
        return await seen_after(self._runtime, change, get, *words)

    def _group(self, words: str) -> pb.VolumeGroup:
        groups, graph = self._look()
        return convert.group(find(groups, graph, words).group, graph)

    def _volume(self, words: str) -> pb.LogicalVolume:
        groups, graph = self._look()
        found = find_volume(groups, graph, words)
        return convert.volume(found.volume, found.group, graph)

    def _in_group(self, group: str, name: str) -> pb.LogicalVolume:
        groups, graph = self._look()
        return self._volume(f"{find(groups, graph, group).group.name}/{name}")

    def _kept(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._changing.worker.ask("ListGroupBackups", {})["items"]
        return found

    def _look(self) -> tuple[tuple[Group, ...], Graph]:
        graph = build(self._kernel.look())
        targets = [target_of(node) for node in members(graph)]
        return lvm_look.groups(self._changing.worker, targets), graph

    def _members(self) -> Sequence[Target]:
        return carriers(self._kernel)


def _filesystem_bytes(node: Node, kind: str) -> int:
    return size_bytes(node.name, kind)
