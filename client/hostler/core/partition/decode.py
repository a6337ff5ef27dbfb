"""Decodes what partition table a device or a dump has, and says what is wrong with it."""

from __future__ import annotations

from hostler.core.partition import check, gpt, mbr
from hostler.core.partition.model import Finding, GptHeader, Table
from hostler.core.partition.source import Source

SECTOR_SIZES_BYTES = (512, 4096)


def decode(source: Source, sector_bytes: int | None = None, *, whole: bool = True) -> Table:
    """Decode the table; `whole` is False for a dump that is only the beginning of a device.

    `sector_bytes` is the device's logical sector; None tries 512 and 4096. A GPT counts if one of
    its headers is good, whatever the MBR says; else the MBR counts. Never raises for what is read.
    """
    sizes = (sector_bytes,) if sector_bytes else SECTOR_SIZES_BYTES
    for size in sizes:
        primary = gpt.decode_header(source, 1, size)
        backup = _backup(source, primary, size, whole=whole)
        if primary or backup:
            return _gpt(source, size, (primary, backup), whole=whole)
    size = sizes[0]
    record, findings = mbr.decode(source, size)
    table = Table(
        kind="none" if record is None else "mbr",
        size_bytes=source.size_bytes,
        sector_bytes=size,
        mbr=record,
        partitions=record.partitions if record is not None else (),
        findings=tuple(findings),
    )
    return check.checked(table, whole=whole)


def _backup(
    source: Source, primary: GptHeader | None, sector_bytes: int, *, whole: bool
) -> GptHeader | None:
    """Find the second header: where the first one says, or in the last sector."""
    if primary is not None and primary.other_sector > 1:
        found = gpt.decode_header(source, primary.other_sector, sector_bytes)
        if found is not None:
            return found
    last = source.size_bytes // sector_bytes - 1
    return gpt.decode_header(source, last, sector_bytes) if whole and last > 1 else None


def _gpt(
    source: Source,
    sector_bytes: int,
    headers: tuple[GptHeader | None, GptHeader | None],
    *,
    whole: bool,
) -> Table:
    record, findings = mbr.decode(source, sector_bytes)
    if record is None:
        findings.append(Finding("NO_PROTECTIVE_MBR", "warning", "there is no protective MBR"))
    elif not record.protective:
        words = "the MBR does not protect the GPT: it has no entry of type 0xee"
        findings.append(Finding("NO_PROTECTIVE_MBR", "warning", words))
    there = [header for header in headers if header is not None]
    counts = next((header for header in there if header.is_good), there[0])
    table = Table(
        kind="gpt",
        size_bytes=source.size_bytes,
        sector_bytes=sector_bytes,
        mbr=record,
        primary=headers[0],
        backup=headers[1],
        partitions=counts.partitions,
        findings=tuple(findings),
    )
    return check.checked(table, whole=whole)
