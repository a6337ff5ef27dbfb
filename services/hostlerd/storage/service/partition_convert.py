"""Partition tables as messages, and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hostler.api.storage.v1 import partition_pb2 as pb
from hostler.core.partition import types
from hostler.core.partition.model import GptHeader, Partition
from hostler.core.partition.model import Table as Decoded
from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.storage.model.table import GPT, MBR, Entry
from hostlerd.storage.model.table_wanted import Add, Delete, Edit, Update, Wanted, WantedTable

_KINDS = {
    "none": pb.TABLE_KIND_NONE,
    "mbr": pb.TABLE_KIND_MBR,
    "gpt": pb.TABLE_KIND_GPT,
}
_WANTED_KINDS = {pb.TABLE_KIND_MBR: MBR, pb.TABLE_KIND_GPT: GPT}


def table_to_proto(found: Decoded) -> pb.PartitionTable:
    """A table that was read."""
    own = found.primary or found.backup
    signature = found.mbr.signature if found.mbr is not None else ""
    answer = pb.PartitionTable(
        kind=_KINDS[found.kind],
        size_bytes=found.size_bytes,
        sector_bytes=found.sector_bytes,
        id=own.disk_uuid if own is not None else signature,
        hybrid=found.is_hybrid,
        partitions=[_partition(one) for one in found.partitions],
        gaps=[
            pb.Gap(
                first_sector=one.first_sector,
                last_sector=one.last_sector,
                size_bytes=one.size_sectors * found.sector_bytes,
            )
            for one in found.gaps
        ],
        findings=[
            pb.TableFinding(code=one.code, severity=one.severity, message=one.message)
            for one in found.findings
        ],
    )
    if found.primary is not None:
        answer.primary.CopyFrom(_header(found.primary))
    if found.backup is not None:
        answer.backup.CopyFrom(_header(found.backup))
    return answer


def _clamped(amount: int) -> int:
    """A number of a damaged table may be larger than a message can say."""
    return max(-(1 << 63), min(amount, (1 << 63) - 1))


def _partition(one: Partition) -> pb.Partition:
    return pb.Partition(
        number=one.number,
        start_sector=_clamped(one.start_sector),
        size_sectors=_clamped(one.size_sectors),
        start_bytes=_clamped(one.start_bytes),
        size_bytes=_clamped(one.size_bytes),
        type=one.type,
        type_name=one.type_name,
        name=one.name,
        uuid=one.uuid,
        bootable=one.active,
        attributes=one.attributes,
        extended=one.is_extended,
    )


def _header(of: GptHeader) -> pb.GptHeader:
    return pb.GptHeader(
        sector=of.sector,
        good=of.is_good,
        first_usable_sector=_clamped(of.first_usable_sector),
        last_usable_sector=_clamped(of.last_usable_sector),
        entry_count=of.entry_count,
    )


def entry_to_proto(one: Entry, sector_bytes: int) -> pb.Partition:
    """A partition as it will be."""
    is_dos = one.type.startswith("0x")
    return pb.Partition(
        number=one.number,
        start_sector=one.start_sector,
        size_sectors=one.size_sectors,
        start_bytes=one.start_sector * sector_bytes,
        size_bytes=one.size_sectors * sector_bytes,
        type=one.type,
        type_name=types.mbr_name(int(one.type, 16)) if is_dos else types.gpt_name(one.type),
        name=one.name,
        uuid=one.uuid,
        bootable=one.bootable,
        attributes=one.attributes,
        extended=one.is_extended,
    )


def table_from_proto(asked: pb.WantedTable) -> WantedTable:
    """A whole table that is asked for. Raises InvalidRequest."""
    kind = _WANTED_KINDS.get(asked.kind)
    if kind is None:
        raise InvalidRequest.of([Violation("table.kind", "must be a GPT or an MBR")])
    own = asked.id if asked.HasField("id") else None
    return WantedTable(kind, own, tuple(_wanted(one) for one in asked.partitions))


def edits_from_proto(asked: Iterable[pb.TableEdit]) -> tuple[Edit, ...]:
    """Edits that are asked for. Raises InvalidRequest."""
    edits: list[Edit] = []
    for at, one in enumerate(asked):
        match one.WhichOneof("edit"):
            case "add":
                edits.append(Add(_wanted(one.add)))
            case "update":
                edits.append(Update(_wanted(one.update)))
            case "delete":
                edits.append(Delete(one.delete))
            case _:
                raise InvalidRequest.of([Violation(f"edits[{at}]", "says nothing")])
    return tuple(edits)


def _wanted(asked: pb.WantedPartition) -> Wanted:
    given: dict[str, Any] = {field.name: value for field, value in asked.ListFields()}
    # ListFields knows optional ones that are zero too.
    return Wanted(**given)
