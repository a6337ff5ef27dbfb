"""The gRPC edge of mounts and swap areas."""

from __future__ import annotations

from typing import Any

import grpc.aio

from hostler.api.storage.v1 import mount_pb2 as pb
from hostlerd.runtime.changes import Changes, Done
from hostlerd.runtime.domain import Runtime
from hostlerd.runtime.steps import Plan
from hostlerd.storage.kernel import Kernel
from hostlerd.storage.kernel.mount_units import MountUnits, hidden_entries
from hostlerd.storage.model.declared import ActiveSwap, Declared, Units
from hostlerd.storage.model.observed import Mount, Observed
from hostlerd.storage.plan import mount as plan
from hostlerd.storage.plan import swap as swap_plan
from hostlerd.storage.plan.graph import build
from hostlerd.storage.plan.mounts_compared import Place, Swap, places, swaps

Context = grpc.aio.ServicerContext[Any, Any]


class MountService:
    """Serves hostler.api.storage.v1.MountService."""

    def __init__(
        self, runtime: Runtime, kernel: Kernel, units: MountUnits, changes: Changes
    ) -> None:
        self._runtime = runtime
        self._kernel = kernel
        self._units = units
        self._changes = changes

    async def ListMounts(
        self, request: pb.ListMountsRequest, context: Context
    ) -> pb.ListMountsResponse:
        """List what is mounted and what is declared."""
        seen, units = await self._runtime.blocking(self._look)
        return pb.ListMountsResponse(mounts=[_place(one) for one in places(seen, units)])

    async def ApplyMount(
        self, request: pb.ApplyMountRequest, context: Context
    ) -> pb.ApplyMountResponse:
        """Mount a filesystem, or change how."""
        wanted = plan.Wanted(
            where=request.where,
            device=request.device,
            options=tuple(request.options),
            lasting=not request.until_boot,
            required=request.required,
            timeout_s=request.timeout_seconds,
        )

        def make_plan() -> Plan:
            seen, units = self._look()
            # The path is checked before it is looked at.
            plan.check(wanted)
            return plan.apply(wanted, build(seen), units, hidden_entries(wanted.where))

        done = await self._changes.carry_out(request.change, make_plan)
        return pb.ApplyMountResponse(change=done.change, unit=_name(done))

    async def DeleteMount(
        self, request: pb.DeleteMountRequest, context: Context
    ) -> pb.DeleteMountResponse:
        """Unmount what nobody uses, and remove its unit."""

        def make_plan() -> Plan:
            seen, units = self._look()
            return plan.delete(request.where, build(seen), units)

        done = await self._changes.carry_out(request.change, make_plan)
        return pb.DeleteMountResponse(change=done.change)

    async def ListSwaps(
        self, request: pb.ListSwapsRequest, context: Context
    ) -> pb.ListSwapsResponse:
        """List what is swapped to and what is declared."""
        seen, units = await self._runtime.blocking(self._look)
        return pb.ListSwapsResponse(swaps=[_swap(one) for one in swaps(seen, build(seen), units)])

    async def ApplySwap(
        self, request: pb.ApplySwapRequest, context: Context
    ) -> pb.ApplySwapResponse:
        """Swap to an area, or change how."""
        wanted = swap_plan.Wanted(
            device=request.device,
            priority=request.priority if request.HasField("priority") else None,
            discard=request.discard,
            lasting=not request.until_boot,
        )

        def make_plan() -> Plan:
            seen, units = self._look()
            return swap_plan.apply(wanted, build(seen), seen, units)

        done = await self._changes.carry_out(request.change, make_plan)
        return pb.ApplySwapResponse(change=done.change, unit=_name(done))

    async def DeleteSwap(
        self, request: pb.DeleteSwapRequest, context: Context
    ) -> pb.DeleteSwapResponse:
        """Swap to an area no more."""

        def make_plan() -> Plan:
            seen, units = self._look()
            return swap_plan.delete(request.device, build(seen), seen, units)

        done = await self._changes.carry_out(request.change, make_plan)
        return pb.DeleteSwapResponse(change=done.change)

    def _look(self) -> tuple[Observed, Units]:
        return self._kernel.look(), self._units.look()


def _name(done: Done) -> str:
    unit = done.plan.result
    return unit.name if unit is not None else ""


def _place(of: Place) -> pb.MountEntry:
    declared, mounted = of.declared or _NO_UNIT, of.mounted or _NOT_MOUNTED
    return pb.MountEntry(
        where=of.where,
        what=declared.what,
        type=declared.type,
        options=declared.options,
        declared_by=declared.by,
        ours=declared.ours is not None,
        until_boot=not declared.lasting,
        mounted=of.mounted is not None,
        mounted_device=mounted.source,
        mounted_type=mounted.type,
        read_only=mounted.is_read_only,
        differs=of.differs,
    )


def _swap(of: Swap) -> pb.SwapEntry:
    declared, active = of.declared or _NO_UNIT, of.active or _NOT_ACTIVE
    return pb.SwapEntry(
        device=of.device,
        what=declared.what,
        declared_by=declared.by,
        ours=declared.ours is not None,
        until_boot=not declared.lasting,
        active=of.active is not None,
        size_bytes=active.size_bytes,
        used_bytes=active.used_bytes,
        priority=active.priority,
        path=active.path,
    )


_NO_UNIT = Declared("", "", "", (), "")
_NOT_MOUNTED = Mount("", "", "", "", "", is_read_only=False)
_NOT_ACTIVE = ActiveSwap("", "", 0, 0, 0)
