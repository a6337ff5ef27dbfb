"""The gRPC edge of btrfs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import grpc.aio

from hostler.api.common.v1 import change_pb2
from hostler.api.storage.v1 import btrfs_pb2 as pb
from hostlerd.runtime.changes import Changes
from hostlerd.runtime.domain import Runtime
from hostlerd.runtime.steps import Plan
from hostlerd.storage.kernel import Kernel
from hostlerd.storage.kernel.btrfs_work import subvolumes
from hostlerd.storage.kernel.changing import Changing
from hostlerd.storage.model.btrfs import Subvolume
from hostlerd.storage.model.graph import Graph
from hostlerd.storage.model.observed import Btrfs, BtrfsDevice, Observed
from hostlerd.storage.plan import btrfs, btrfs_devices, btrfs_subvolumes
from hostlerd.storage.plan.graph import build
from hostlerd.storage.service.btrfs_follow import Following

Context = grpc.aio.ServicerContext[Any, Any]
Planner = Callable[[Observed], Plan]


class BtrfsService:
    """Serves hostler.api.storage.v1.BtrfsService."""

    def __init__(
        self, runtime: Runtime, kernel: Kernel, changing: Changing, changes: Changes
    ) -> None:
        self._runtime = runtime
        self._kernel = kernel
        self._changing = changing
        self._changes = changes
        self._following = Following(changing)

    async def ListBtrfs(
        self, request: pb.ListBtrfsRequest, context: Context
    ) -> pb.ListBtrfsResponse:
        """Answer all that are mounted."""
        seen = await self._runtime.blocking(self._kernel.look)
        graph = build(seen)
        found = [_filesystem(one, seen, graph) for one in seen.btrfs]
        return pb.ListBtrfsResponse(filesystems=found)

    async def GetBtrfs(self, request: pb.GetBtrfsRequest, context: Context) -> pb.GetBtrfsResponse:
        """Answer one."""
        seen = await self._runtime.blocking(self._kernel.look)
        pool = btrfs.find(seen, request.filesystem)
        return pb.GetBtrfsResponse(filesystem=_filesystem(pool, seen, build(seen)))

    async def ListSubvolumes(
        self, request: pb.ListSubvolumesRequest, context: Context
    ) -> pb.ListSubvolumesResponse:
        """Answer the subvolumes of one."""
        found = await self._runtime.blocking(self._subvolumes, request.filesystem)
        return pb.ListSubvolumesResponse(subvolumes=[_subvolume(one) for one in found if one.path])

    async def ScrubBtrfs(
        self, request: pb.ScrubBtrfsRequest, context: Context
    ) -> pb.ScrubBtrfsResponse:
        """Read and compare all of it."""
        plan = partial(btrfs.scrub, request.filesystem, request.read_only)
        return pb.ScrubBtrfsResponse(change=await self._change(request, plan))

    async def ResetErrorCounters(
        self, request: pb.ResetErrorCountersRequest, context: Context
    ) -> pb.ResetErrorCountersResponse:
        """Set error counters to zero."""

        def plan(seen: Observed) -> Plan:
            return btrfs.reset_errors(request.filesystem, request.device, seen, build(seen))

        return pb.ResetErrorCountersResponse(change=await self._change(request, plan))

    async def AddDevice(
        self, request: pb.AddDeviceRequest, context: Context
    ) -> pb.AddDeviceResponse:
        """Add a device."""

        def plan(seen: Observed) -> Plan:
            return btrfs_devices.add(request.filesystem, request.device, seen, build(seen))

        return pb.AddDeviceResponse(change=await self._change(request, plan))

    async def RemoveDevice(
        self, request: pb.RemoveDeviceRequest, context: Context
    ) -> pb.RemoveDeviceResponse:
        """Take a device out."""

        def plan(seen: Observed) -> Plan:
            return btrfs_devices.remove(request.filesystem, request.device, seen, build(seen))

        return pb.RemoveDeviceResponse(change=await self._change(request, plan))

    async def ReplaceDevice(
        self, request: pb.ReplaceDeviceRequest, context: Context
    ) -> pb.ReplaceDeviceResponse:
        """Have a device take the place of another one."""

        def plan(seen: Observed) -> Plan:
            graph = build(seen)
            return btrfs_devices.replace(request.filesystem, request.old, request.new, seen, graph)

        return pb.ReplaceDeviceResponse(change=await self._change(request, plan))

    async def BalanceBtrfs(
        self, request: pb.BalanceBtrfsRequest, context: Context
    ) -> pb.BalanceBtrfsResponse:
        """Write what is allocated anew."""
        wanted = btrfs.Wanted(
            request.data, request.metadata, request.usage_percent, request.less_redundancy
        )
        plan = partial(btrfs.balance, request.filesystem, wanted)
        return pb.BalanceBtrfsResponse(change=await self._change(request, plan))

    async def CreateSubvolume(
        self, request: pb.CreateSubvolumeRequest, context: Context
    ) -> pb.CreateSubvolumeResponse:
        """Make a subvolume."""

        def plan(seen: Observed) -> Plan:
            pool = btrfs.find(seen, request.filesystem)
            return btrfs_subvolumes.create(request.path, pool, self._in(pool))

        return pb.CreateSubvolumeResponse(change=await self._change(request, plan))

    async def CreateSnapshot(
        self, request: pb.CreateSnapshotRequest, context: Context
    ) -> pb.CreateSnapshotResponse:
        """Make a snapshot."""

        def plan(seen: Observed) -> Plan:
            pool = btrfs.find(seen, request.filesystem)
            return btrfs_subvolumes.snapshot(
                request.source, request.path, request.read_only, pool, self._in(pool)
            )

        return pb.CreateSnapshotResponse(change=await self._change(request, plan))

    async def DeleteSubvolume(
        self, request: pb.DeleteSubvolumeRequest, context: Context
    ) -> pb.DeleteSubvolumeResponse:
        """Delete a subvolume."""

        def plan(seen: Observed) -> Plan:
            pool = btrfs.find(seen, request.filesystem)
            return btrfs_subvolumes.delete(request.path, pool, self._in(pool), seen)

        return pb.DeleteSubvolumeResponse(change=await self._change(request, plan))

    async def _change(self, request: Any, planner: Planner) -> change_pb2.Change:
        """Plan and carry out; as a job, follow what was begun."""
        done = await self._changes.carry_out(request.change, lambda: planner(self._kernel.look()))
        if not request.change.validate_only:
            await self._runtime.blocking(self._follow, done.plan, done.change)
        return done.change

    def _follow(self, plan: Plan, change: change_pb2.Change) -> None:
        names = {}
        for pool in self._kernel.look().btrfs if plan.steps else ():
            if any(getattr(step, "uuid", "") == pool.uuid for step in plan.steps):
                names = {one.device_id: one.name for one in pool.devices}
        for notice in self._following.follow(plan.steps, names):
            change.warnings.add(code=notice.code, message=notice.message, subject=notice.subject)

    def _subvolumes(self, words: str) -> tuple[Subvolume, ...]:
        pool = btrfs.find(self._kernel.look(), words)
        return subvolumes(self._changing.worker, pool.uuid)

    def _in(self, pool: Btrfs) -> tuple[Subvolume, ...]:
        """The subvolumes as they are after the last write."""
        return subvolumes(self._changing.worker, pool.uuid, sync=True)


def _filesystem(of: Btrfs, seen: Observed, graph: Graph) -> pb.BtrfsFilesystem:
    ids = {node.name: node.id for node in graph.nodes if node.number}
    names = {one.name for one in of.devices if one.name}
    mounts = [
        one.path
        for one in seen.mounts
        if one.type == "btrfs" and one.source.rpartition("/")[2] in names
    ]
    return pb.BtrfsFilesystem(
        id=btrfs.node_id(of),
        uuid=of.uuid,
        label=of.label,
        mounts=sorted(mounts),
        devices=[_device(one, ids.get(one.name, "")) for one in of.devices],
        allocations=[
            pb.BtrfsAllocation(
                kind=one.kind, profile=one.profile, total_bytes=one.total, used_bytes=one.used
            )
            for one in of.allocations
        ],
        exclusive_operation=of.exclusive_operation,
    )


def _device(of: BtrfsDevice, node_id: str) -> pb.BtrfsDevice:
    return pb.BtrfsDevice(
        id=node_id,
        device_id=of.device_id,
        name=of.name,
        missing=of.is_missing,
        size_bytes=of.size_bytes,
        allocated_bytes=of.allocated_bytes,
        errors=pb.BtrfsErrors(
            write=of.errors.get("write_errs", 0),
            read=of.errors.get("read_errs", 0),
            flush=of.errors.get("flush_errs", 0),
            corruption=of.errors.get("corruption_errs", 0),
            generation=of.errors.get("generation_errs", 0),
        ),
    )


def _subvolume(of: Subvolume) -> pb.Subvolume:
    message = pb.Subvolume(
        id=of.id,
        path=of.path,
        parent_id=of.parent_id,
        uuid=of.uuid,
        source_uuid=of.source_uuid,
        received_uuid=of.received_uuid,
        read_only=of.is_read_only,
        generation=of.generation,
    )
    message.create_time.FromSeconds(of.created_unix_s)
    return message
