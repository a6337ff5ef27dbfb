"""Decodes master boot records and the chains of extended ones.

Source: the boot sector of the IBM PC; UEFI specification 5.2; Linux block/partitions/msdos.c.
"""

from __future__ import annotations

import struct

from hostler.core.partition import types
from hostler.core.partition.model import Chs, Finding, Mbr, Partition
from hostler.core.partition.source import Source

SECTOR_BYTES = 512
"""What of a sector the record takes, whatever the sector's size."""
MAX_LOGICAL = 128
_MAGIC = b"\x55\xaa"
_FIRST_ENTRY, _ENTRY_BYTES, _PRIMARY = 446, 16, 4


def decode(source: Source, sector_bytes: int) -> tuple[Mbr | None, list[Finding]]:
    """Decode the record in the first sector; None where its magic is missing."""
    record = source.at(0, SECTOR_BYTES)
    if len(record) < SECTOR_BYTES or record[510:] != _MAGIC:
        return None, []
    findings: list[Finding] = []
    primary = [
        entry
        for number in range(1, _PRIMARY + 1)
        if (entry := _entry(record, number - 1, number, sector_bytes, findings)) is not None
    ]
    if sum(entry.active for entry in primary) > 1:
        findings.append(Finding("SEVERAL_ACTIVE", "warning", "several partitions are active"))
    extended = [entry for entry in primary if entry.is_extended]
    if len(extended) > 1:
        words = "several extended partitions; only the first one is followed"
        findings.append(Finding("SEVERAL_EXTENDED", "warning", words))
    records: list[int] = []
    logical = _chain(source, extended[0], sector_bytes, (records, findings)) if extended else []
    protective = [entry for entry in primary if int(entry.type, 16) == types.PROTECTIVE]
    signature = struct.unpack_from("<I", record, 440)[0]
    return Mbr(
        signature=f"0x{signature:08x}",
        boot_code=any(record[:440]),
        partitions=(*primary, *logical),
        protective=bool(protective),
        hybrid=bool(protective) and len(primary) > len(protective),
        extended_records=tuple(records),
    ), findings


def _chs(raw: bytes) -> Chs:
    return Chs(raw[2] | (raw[1] & 0xC0) << 2, raw[0], raw[1] & 0x3F)


def _entry(
    record: bytes, slot: int, number: int, sector_bytes: int, findings: list[Finding]
) -> Partition | None:
    at = _FIRST_ENTRY + _ENTRY_BYTES * slot
    boot, first, kind, last, start, size = struct.unpack_from("<B3sB3sII", record, at)
    if kind == 0:
        return None
    if boot not in (0, 0x80):
        words = f"partition {number}: boot indicator 0x{boot:02x} is neither 0x00 nor 0x80"
        findings.append(Finding("BOOT_INDICATOR", "warning", words))
    if size == 0:
        words = f"partition {number}: has no sectors"
        findings.append(Finding("EMPTY", "warning", words))
    return Partition(
        number=number,
        start_sector=start,
        size_sectors=size,
        type=f"0x{kind:02x}",
        type_name=types.mbr_name(kind),
        sector_bytes=sector_bytes,
        active=boot == 0x80,
        start_chs=_chs(first),
        end_chs=_chs(last),
        is_extended=kind in types.EXTENDED,
    )


def _chain(
    source: Source,
    extended: Partition,
    sector_bytes: int,
    told: tuple[list[int], list[Finding]],
) -> list[Partition]:
    """Follow the extended boot records: each has one partition and where the next record is.

    Where they are, and what is wrong with them, is added to `told`.
    """
    records, findings = told
    logical: list[Partition] = []
    sector, seen = extended.start_sector, set[int]()
    while len(logical) < MAX_LOGICAL:
        if sector in seen:
            findings.append(Finding("EBR_LOOP", "error", f"EBR at sector {sector}: seen before"))
            return logical
        seen.add(sector)
        record = source.at(sector * sector_bytes, SECTOR_BYTES)
        if len(record) < SECTOR_BYTES:
            words = f"EBR at sector {sector}: beyond what can be read"
            findings.append(Finding("EBR_BEYOND", "warning", words))
            return logical
        if record[510:] != _MAGIC:
            words = f"EBR at sector {sector}: has no signature"
            findings.append(Finding("EBR_SIGNATURE", "warning", words))
            return logical
        records.append(sector)
        following = _links(record, sector, extended, sector_bytes, logical, findings)
        if following is None:
            return logical
        sector = following
    words = f"more than {MAX_LOGICAL} logical partitions; the rest is left out"
    findings.append(Finding("TOO_MANY_LOGICAL", "warning", words))
    return logical


def _links(
    record: bytes,
    sector: int,
    extended: Partition,
    sector_bytes: int,
    logical: list[Partition],
    findings: list[Finding],
) -> int | None:
    """Take the partitions of one record; answer the sector of the next record.

    Offsets of partitions count from their record, those of records from the extended partition.
    """
    following = None
    for slot in range(_PRIMARY):
        entry = _entry(record, slot, _PRIMARY + 1 + len(logical), sector_bytes, findings)
        if entry is None or entry.size_sectors == 0:
            continue
        if entry.is_extended:
            if following is None:
                following = extended.start_sector + entry.start_sector
            continue
        logical.append(_moved(entry, sector))
    return following


def _moved(entry: Partition, sector: int) -> Partition:
    return Partition(
        number=entry.number,
        start_sector=sector + entry.start_sector,
        size_sectors=entry.size_sectors,
        type=entry.type,
        type_name=entry.type_name,
        sector_bytes=entry.sector_bytes,
        active=entry.active,
        start_chs=entry.start_chs,
        end_chs=entry.end_chs,
        ebr_sector=sector,
    )
