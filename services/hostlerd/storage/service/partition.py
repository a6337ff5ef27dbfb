"""The gRPC edge of partition tables."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc.aio

from hostler.api.common.v1 import change_pb2
from hostler.api.storage.v1 import partition_pb2 as pb
from hostler.core.partition.backup import Backup, BackupInvalid, pack, unpack
from hostlerd.runtime.changes import Changes
from hostlerd.runtime.domain import Runtime
from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.runtime.steps import Plan
from hostlerd.storage.kernel import Kernel, table
from hostlerd.storage.kernel.changing import Changing
from hostlerd.storage.model.graph import Kind, Node
from hostlerd.storage.model.observed import Observed
from hostlerd.storage.model.table import Piece, Table
from hostlerd.storage.model.target import Target
from hostlerd.storage.plan import table as plan
from hostlerd.storage.plan.choose import choose_node, target_of
from hostlerd.storage.plan.graph import build
from hostlerd.storage.plan.table_arrange import arrange, edit
from hostlerd.storage.service.partition_convert import (
    edits_from_proto,
    entry_to_proto,
    table_from_proto,
    table_to_proto,
)

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class _Disk:
    """A device whose table is asked for, as it was seen."""

    target: Target
    parts: dict[int, Target]
    read: table.Read

    @property
    def have(self) -> Table:
        """Its table, for a planner."""
        return table.planned_with(self.read.backup)


class PartitionService:
    """Serves hostler.api.storage.v1.PartitionService."""

    def __init__(
        self, runtime: Runtime, kernel: Kernel, changing: Changing, changes: Changes
    ) -> None:
        self._runtime = runtime
        self._kernel = kernel
        self._changing = changing
        self._changes = changes

    async def GetTable(self, request: pb.GetTableRequest, context: Context) -> pb.GetTableResponse:
        """Read a table."""
        disk: _Disk = await self._runtime.blocking(self._look, request.device)
        return pb.GetTableResponse(id=disk.target.id, table=table_to_proto(disk.read.decoded))

    async def BackupTable(
        self, request: pb.BackupTableRequest, context: Context
    ) -> pb.BackupTableResponse:
        """Answer the bytes of a table."""
        disk: _Disk = await self._runtime.blocking(self._look, request.device)
        return pb.BackupTableResponse(
            id=disk.target.id,
            backup=pack(disk.read.backup),
            table=table_to_proto(disk.read.decoded),
        )

    async def ApplyTable(
        self, request: pb.ApplyTableRequest, context: Context
    ) -> pb.ApplyTableResponse:
        """Change a table."""
        if request.HasField("table") == bool(request.edits):
            raise InvalidRequest.of([Violation("table", "give a whole table, or edits")])
        whole = table_from_proto(request.table) if request.HasField("table") else None
        edits = edits_from_proto(request.edits)

        def make_plan() -> Plan:
            disk = self._look(request.device)
            have = disk.have
            want = edit(have, edits) if whole is None else arrange(have, whole)
            return plan.change(disk.target, disk.parts, have, want)

        entries, change = await self._carry_out(request.change, make_plan)
        return pb.ApplyTableResponse(partitions=entries, change=change)

    async def RestoreTable(
        self, request: pb.RestoreTableRequest, context: Context
    ) -> pb.RestoreTableResponse:
        """Put a backup back."""
        backup = _unpacked(request.backup)
        pieces = [Piece(at, data) for at, data in backup.pieces.items()]

        def make_plan() -> Plan:
            disk = self._look(request.device)
            want = table.planned_with(backup)
            return plan.restore(disk.target, disk.parts, disk.have, want, pieces)

        entries, change = await self._carry_out(request.change, make_plan)
        return pb.RestoreTableResponse(partitions=entries, change=change)

    async def CopyTable(
        self, request: pb.CopyTableRequest, context: Context
    ) -> pb.CopyTableResponse:
        """Copy a table to another disk."""
        source = request.WhichOneof("source")
        if source is None:
            raise InvalidRequest.of([Violation("source_device", "say where from")])
        backup = _unpacked(request.backup) if source == "backup" else None

        def make_plan() -> Plan:
            disk = self._look(request.device)
            kept = backup or self._look(request.source_device, "source_device").read.backup
            want, foreign = plan.copied(
                table.planned_with(kept), disk.have, keep_ids=request.keep_ids
            )
            return plan.change(disk.target, disk.parts, disk.have, want, foreign)

        entries, change = await self._carry_out(request.change, make_plan)
        return pb.CopyTableResponse(partitions=entries, change=change)

    async def _carry_out(
        self, options: change_pb2.ChangeOptions, make_plan: Callable[[], Plan]
    ) -> tuple[list[pb.Partition], change_pb2.Change]:
        done = await self._changes.carry_out(options, make_plan)
        change = done.change
        for step in () if options.validate_only else done.plan.steps:
            if words := self._changing.take_answer(step).get("kernel"):
                change.warnings.add(code="KERNEL_NOT_TOLD", message=str(words))
        want: Table = done.plan.result
        return [entry_to_proto(one, want.sector_bytes) for one in want.entries], change

    def _look(self, device: str, field: str = "device") -> _Disk:
        seen = self._kernel.look()
        graph = build(seen)
        node = choose_node(graph, device, field)
        if node.kind is Kind.PARTITION:
            words = f"{node.id} is a partition: name the disk that it is of"
            raise InvalidRequest.of([Violation(field, words)])
        nodes = {one.name: one for one in graph.nodes if one.number}
        parts = {
            one.partition.number: target_of(nodes[one.name])
            for one in seen.devices
            if one.partition is not None and one.partition.of == node.name
        }
        return _Disk(target_of(node), parts, _read(node, seen))


def _read(node: Node, seen: Observed) -> table.Read:
    sector_bytes = node.logical_sector_bytes or 512
    about = {
        "id": node.id,
        "model": node.model,
        "serial": node.serial,
        "wwn": node.wwn,
        "unix_s": str(int(time.time())),
    }
    return table.read(node.name, node.size_bytes, sector_bytes, about)


def _unpacked(file: bytes) -> Backup:
    try:
        return unpack(file)
    except BackupInvalid as e:
        raise InvalidRequest.of([Violation("backup", str(e))]) from e
