"""Decodes the headers and entries of GUID partition tables.

Source: UEFI specification 2.10, 5.3.
"""

from __future__ import annotations

import struct
import uuid
import zlib

from hostler.core.partition import types
from hostler.core.partition.model import GptHeader, Partition
from hostler.core.partition.source import Source

MAGIC = b"EFI PART"
MAX_ENTRIES = 1024
"""More than any tool makes; the usual number is 128."""
MAX_ENTRY_BYTES = 4096
_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
_ENTRY = struct.Struct("<16s16sQQQ72s")


def decode_header(source: Source, sector: int, sector_bytes: int) -> GptHeader | None:
    """Decode the header in that sector with its entries; None where there is none.

    One whose sizes make no sense is none either: nothing in it could be believed.
    """
    raw = source.at(sector * sector_bytes, sector_bytes)
    if len(raw) < _HEADER.size or raw[:8] != MAGIC:
        return None
    (
        _,
        _,
        header_bytes,
        crc,
        _,
        own,
        other,
        first,
        last,
        disk,
        entries,
        count,
        size,
        entries_crc,
    ) = _HEADER.unpack_from(raw)
    if not _HEADER.size <= header_bytes <= len(raw):
        return None
    if not 128 <= size <= MAX_ENTRY_BYTES or size % 8 or not 0 < count <= MAX_ENTRIES:
        return None
    table = source.at(entries * sector_bytes, count * size)
    whole = len(table) == count * size
    unsigned = raw[:16] + bytes(4) + raw[20:header_bytes]
    return GptHeader(
        sector=sector,
        own_sector=own,
        other_sector=other,
        first_usable_sector=first,
        last_usable_sector=last,
        disk_uuid=_guid(disk),
        entries_sector=entries,
        entry_count=count,
        entry_bytes=size,
        header_crc_good=zlib.crc32(unsigned) == crc,
        entries_crc_good=whole and zlib.crc32(table) == entries_crc,
        entries_whole=whole,
        partitions=_partitions(table, size, sector_bytes),
    )


def _guid(raw: bytes) -> str:
    return str(uuid.UUID(bytes_le=raw)).upper()


def _partitions(table: bytes, size: int, sector_bytes: int) -> tuple[Partition, ...]:
    found = []
    for number in range(1, len(table) // size + 1):
        kind, own, start, end, attributes, name = _ENTRY.unpack_from(table, (number - 1) * size)
        if kind == bytes(16):
            continue
        guid = _guid(kind)
        found.append(
            Partition(
                number=number,
                start_sector=start,
                size_sectors=end - start + 1,
                type=guid,
                type_name=types.gpt_name(guid),
                sector_bytes=sector_bytes,
                active=bool(attributes & 4),
                name=name.decode("utf-16-le", "replace").split("\0")[0],
                uuid=_guid(own),
                attributes=attributes,
            )
        )
    return tuple(found)
