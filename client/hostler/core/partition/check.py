"""What is wrong with a partition table: overlaps, ends beyond the device, headers that differ."""

from __future__ import annotations

from dataclasses import replace

from hostler.core.partition.model import Finding, Gap, GptHeader, Mbr, Partition, Table
from hostler.core.partition.types import PROTECTIVE


def checked(table: Table, *, whole: bool) -> Table:
    """Answer the table with its gaps, and with all that is wrong with it.

    Where the source is not whole, the device's end is not known: nothing is said about it.
    """
    findings = [
        *table.findings,
        *_headers(table, whole=whole),
        *_overlaps(table.partitions),
        *_outside(table, whole=whole),
        *_hybrid(table),
    ]
    return replace(table, gaps=_gaps(table, whole=whole), findings=tuple(findings))


def _headers(table: Table, *, whole: bool) -> list[Finding]:
    if table.kind != "gpt":
        return []
    found = _one_header("primary", table.primary) if table.primary else []
    if table.primary is None:
        found.append(Finding("GPT_PRIMARY", "error", "the primary header is missing"))
    if table.backup is not None:
        found += _one_header("backup", table.backup)
        last = table.size_bytes // table.sector_bytes - 1
        if whole and table.backup.sector != last:
            words = f"the backup header is in sector {table.backup.sector}, the last one is {last}"
            found.append(Finding("GPT_BACKUP_NOT_LAST", "warning", words))
    elif whole:
        found.append(Finding("GPT_BACKUP", "error", "the backup header is missing"))
    else:
        found.append(Finding("GPT_BACKUP", "note", "the dump ends before the backup header"))
    if table.primary and table.backup and table.primary.is_good and table.backup.is_good:
        if table.primary.partitions != table.backup.partitions:
            words = "primary and backup header name different partitions"
            found.append(Finding("GPT_DIFFERENT", "error", words))
        if table.primary.disk_uuid != table.backup.disk_uuid:
            words = "primary and backup header are of different disks"
            found.append(Finding("GPT_DIFFERENT", "error", words))
    return found


def _one_header(which: str, header: GptHeader) -> list[Finding]:
    found = []
    if not header.header_crc_good:
        words = f"the {which} header's checksum is wrong"
        found.append(Finding("GPT_HEADER_CRC", "error", words))
    if header.own_sector != header.sector:
        words = f"the {which} header in sector {header.sector} says it is in {header.own_sector}"
        found.append(Finding("GPT_OWN_SECTOR", "error", words))
    if not header.entries_whole:
        words = f"the entries of the {which} header lie beyond what can be read"
        found.append(Finding("GPT_ENTRIES_BEYOND", "warning", words))
    elif not header.entries_crc_good:
        words = f"the checksum of the {which} header's entries is wrong"
        found.append(Finding("GPT_ENTRIES_CRC", "error", words))
    found += [
        Finding("GPT_RANGE", "error", f"partition {one.number} ends before it begins")
        for one in header.partitions
        if one.size_sectors < 1
    ]
    return found


def _solid(partitions: tuple[Partition, ...]) -> list[Partition]:
    """The partitions that take room of their own, by where they begin."""
    solid = [
        one
        for one in partitions
        if one.size_sectors > 0 and not one.is_extended and one.type != f"0x{PROTECTIVE:02x}"
    ]
    return sorted(solid, key=lambda one: (one.start_sector, one.number))


def _overlaps(partitions: tuple[Partition, ...]) -> list[Finding]:
    found, reaches = [], None
    for one in _solid(partitions):
        if reaches is not None and one.start_sector <= reaches.end_sector:
            words = f"partitions {reaches.number} and {one.number} overlap"
            found.append(Finding("OVERLAP", "error", words))
        if reaches is None or one.end_sector > reaches.end_sector:
            reaches = one
    extended = next((one for one in partitions if one.is_extended), None)
    logical = [one for one in partitions if one.ebr_sector is not None]
    if extended is None:
        return found
    for one in logical:
        inside = extended.start_sector <= one.start_sector and (
            one.end_sector <= extended.end_sector
        )
        if not inside:
            words = f"partition {one.number} reaches out of the extended partition"
            found.append(Finding("OUT_OF_EXTENDED", "error", words))
    return found


def _outside(table: Table, *, whole: bool) -> list[Finding]:
    sectors = table.size_bytes // table.sector_bytes
    found = [
        Finding("BEYOND_THE_END", "error", f"partition {one.number} reaches beyond the device")
        for one in (table.partitions if whole else ())
        if one.end_sector >= sectors and one.type != f"0x{PROTECTIVE:02x}"
    ]
    header = table.primary or table.backup
    if table.kind == "gpt" and header is not None:
        usable = range(header.first_usable_sector, header.last_usable_sector + 1)
        found += [
            Finding("NOT_USABLE", "error", f"partition {one.number} lies where the table does")
            for one in table.partitions
            if one.size_sectors > 0
            and (one.start_sector not in usable or one.end_sector not in usable)
        ]
    return found


def _hybrid(table: Table) -> list[Finding]:
    if not table.is_hybrid or table.mbr is None:
        return []
    places = {(one.start_sector, one.size_sectors) for one in table.partitions}
    words = "the MBR names partitions besides the protective one: two truths about one disk"
    found = [Finding("HYBRID", "warning", words)]
    for one in _mirrored(table.mbr):
        if (one.start_sector, one.size_sectors) not in places:
            words = f"partition {one.number} of the MBR is none of the GPT"
            found.append(Finding("HYBRID_DIFFERENT", "error", words))
    return found


def _mirrored(record: Mbr) -> list[Partition]:
    return [one for one in record.partitions if int(one.type, 16) != PROTECTIVE]


def _gaps(table: Table, *, whole: bool) -> tuple[Gap, ...]:
    """The sectors that no partition takes, where the table lets any begin."""
    if table.kind == "none":
        return ()
    header = next((h for h in (table.primary, table.backup) if h is not None and h.is_good), None)
    if table.kind == "gpt":
        if header is None:
            return ()
        free, last = header.first_usable_sector, header.last_usable_sector
    else:
        free, last = 1, table.size_bytes // table.sector_bytes - 1
    taken = _solid(table.partitions)
    gaps = []
    for one in taken:
        if one.start_sector > free:
            gaps.append(Gap(free, one.start_sector - 1))
        free = max(free, one.end_sector + 1)
    if (whole or table.kind == "gpt") and free <= last:
        gaps.append(Gap(free, last))
    return tuple(gaps)
