"""Reads partition tables of devices, decoded by what the client decodes them with.

A device that does not answer holds up the process that reads it, and not the daemon.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from hostler.core.partition.backup import Backup, take
from hostler.core.partition.model import Mbr, Partition
from hostler.core.partition.model import Table as Decoded
from hostler.core.partition.source import Source
from hostlerd.storage.kernel.tool import run_for_bytes
from hostlerd.storage.model.table import GPT, MBR, Digest, Entry, Table, empty

_DD = "/usr/bin/dd"
_TIMEOUT_S = 10.0
_BOOTABLE = 4
_KINDS = {"gpt": GPT, "mbr": MBR, "none": ""}
# Not errors to whoever reads the table, but gone when it is written again.
_REPAIRED = frozenset({"GPT_BACKUP_NOT_LAST", "NO_PROTECTIVE_MBR"})


@dataclass(frozen=True, slots=True)
class Read:
    """What a device's table is made of, and what it says."""

    backup: Backup
    decoded: Decoded


def read(name: str, size_bytes: int, sector_bytes: int, about: Mapping[str, str]) -> Read:
    """Read the table of a device by the kernel's name of it. Raises ToolFailed. Blocks."""
    backup = take(Source(_reader(name), size_bytes), sector_bytes, about)
    return Read(backup, backup.table)


def _reader(name: str) -> Callable[[int, int], bytes]:
    """Read places of a device, each once."""
    path = Path("/dev") / name.replace("!", "/")
    known: dict[tuple[int, int], bytes] = {}

    def read_at(offset: int, size: int) -> bytes:
        if (offset, size) not in known:
            known[offset, size] = _dd(path, offset, size)
        return known[offset, size]

    return read_at


def _dd(path: Path, offset: int, size: int) -> bytes:
    return run_for_bytes(
        (
            *(_DD, f"if={path}", f"bs={size}", f"skip={offset}", f"count={size}"),
            *("iflag=skip_bytes,count_bytes,fullblock", "status=none"),
        ),
        _TIMEOUT_S,
    )


def planned_with(backup: Backup) -> Table:
    """What a planner has to know of a table."""
    found = backup.table
    kind = _KINDS[found.kind]
    base = empty(kind, found.size_bytes, found.sector_bytes)
    if kind == GPT:
        base = _of_gpt(found, base)
    elif found.mbr is not None:
        base = replace(base, id=found.mbr.signature)
    standing = tuple(
        Digest(at, len(piece), hashlib.sha256(piece).hexdigest())
        for at, piece in backup.pieces.items()
    )
    return replace(
        base,
        entries=tuple(_entry(one) for one in found.partitions if one.size_sectors > 0),
        is_hybrid=found.is_hybrid,
        errors=tuple(
            one.message
            for one in found.findings
            if one.severity == "error" or one.code in _REPAIRED
        ),
        standing=standing,
        headers=_headers(found),
    )


def _of_gpt(found: Decoded, base: Table) -> Table:
    header = found.primary if found.primary is not None and found.primary.is_good else found.backup
    header = header or found.primary
    if header is None:
        return base
    made = empty(GPT, base.size_bytes, base.sector_bytes, header.entry_count)
    first = max(made.first_sector, header.first_usable_sector)
    # The last sector is the disk's, which may have grown since the table was written.
    return replace(made, id=header.disk_uuid, first_sector=first)


def _headers(found: Decoded) -> tuple[int, ...]:
    headers = [one.sector for one in (found.primary, found.backup) if one is not None]
    record: Mbr | None = found.mbr
    return (*headers, *(record.extended_records if record is not None else ()))


def _entry(one: Partition) -> Entry:
    return Entry(
        number=one.number,
        start_sector=one.start_sector,
        size_sectors=one.size_sectors,
        type=one.type,
        name=one.name,
        uuid=one.uuid,
        bootable=one.active,
        attributes=one.attributes & ~_BOOTABLE,
    )
