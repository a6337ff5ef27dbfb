"""Backups of partition tables: the bytes of their structures, in a small file with a checksum.

A file is the line `hostler partition table 1`, a line of JSON (`size_bytes` and `sector_bytes` of
the device, `about` in words, `pieces` as pairs of offset and length in bytes), the bytes of the
pieces one after the other, and the SHA-256 of all that, 32 bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hostler.core.partition.decode import SECTOR_SIZES_BYTES, decode
from hostler.core.partition.model import GptHeader, Table
from hostler.core.partition.source import Source

MAGIC = b"hostler partition table 1\n"
MOST_BYTES = 8 << 20
"""More than a file can have: two times 1 MiB of entries, and 128 records."""
_SUM_BYTES = 32
_LINE_BYTES_MOST = 64 << 10
_MOST_PIECES = 200
_MOST_SIZE_BYTES = (1 << 63) - 1


class BackupInvalid(ValueError):
    """What was read is no backup of a table, or is damaged; the message says which."""


@dataclass(frozen=True, slots=True)
class Backup:
    """The pieces of a device that its partition table is made of, by their offsets in bytes."""

    size_bytes: int
    sector_bytes: int
    pieces: Mapping[int, bytes]
    about: Mapping[str, str] = field(default_factory=dict)

    @property
    def table(self) -> Table:
        """The table that it is of."""
        return decode(Source(self._read, self.size_bytes), self.sector_bytes)

    def _read(self, offset: int, size: int) -> bytes:
        """Read as from the device, where all else is zero."""
        read = bytearray(size)
        for at, piece in self.pieces.items():
            begin, end = max(at, offset), min(at + len(piece), offset + size)
            if begin < end:
                read[begin - offset : end - offset] = piece[begin - at : end - at]
        return bytes(read)


def take(source: Source, sector_bytes: int, about: Mapping[str, str] | None = None) -> Backup:
    """Take a backup of the table that a device has; of none, its first sector."""
    table = decode(source, sector_bytes)
    places = {0: sector_bytes}
    if table.mbr is not None:
        for sector in table.mbr.extended_records:
            places[sector * sector_bytes] = sector_bytes
    for header in (table.primary, table.backup):
        if header is not None:
            places.update(_of_header(header, sector_bytes))
    pieces = {at: source.at(at, size) for at, size in sorted(places.items())}
    return Backup(source.size_bytes, sector_bytes, pieces, about or {})


def _of_header(header: GptHeader, sector_bytes: int) -> dict[int, int]:
    places = {header.sector * sector_bytes: sector_bytes}
    if header.entries_whole:
        size = header.entry_count * header.entry_bytes
        places[header.entries_sector * sector_bytes] = size
    return places


def pack(backup: Backup) -> bytes:
    """Write a backup as a file."""
    said = {
        "size_bytes": backup.size_bytes,
        "sector_bytes": backup.sector_bytes,
        "about": dict(backup.about),
        "pieces": [[at, len(piece)] for at, piece in backup.pieces.items()],
    }
    line = json.dumps(said, sort_keys=True).encode() + b"\n"
    content = MAGIC + line + b"".join(backup.pieces.values())
    return content + hashlib.sha256(content).digest()


def unpack(file: bytes) -> Backup:
    """Read a file. Raises BackupInvalid."""
    if not file.startswith(MAGIC):
        raise BackupInvalid("this is no backup of a partition table")
    if len(file) > MOST_BYTES:
        raise BackupInvalid(f"it has more than {MOST_BYTES} bytes")
    content = file[:-_SUM_BYTES]
    if hashlib.sha256(content).digest() != file[-_SUM_BYTES:]:
        raise BackupInvalid("its checksum is wrong: it is damaged, or cut off")
    end = content.find(b"\n", len(MAGIC), len(MAGIC) + _LINE_BYTES_MOST)
    try:
        said = json.loads(content[len(MAGIC) : end])
        size, sector = said["size_bytes"], said["sector_bytes"]
        about = {str(key): str(value) for key, value in said["about"].items()}
        pieces = _pieces(said["pieces"], content[end + 1 :])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise BackupInvalid("it was written in another form than it says") from e
    if sector not in SECTOR_SIZES_BYTES or type(size) is not int:
        raise BackupInvalid("it is of a device with other sectors than there are")
    if not 0 < size <= _MOST_SIZE_BYTES or any(
        at % sector or at + len(piece) > size for at, piece in pieces.items()
    ):
        raise BackupInvalid("it has pieces that its device has not")
    return Backup(size, sector, pieces, about)


def _pieces(listed: Any, content: bytes) -> dict[int, bytes]:
    pieces: dict[int, bytes] = {}
    taken = 0
    if len(listed) > _MOST_PIECES:
        raise ValueError
    for at, length in listed:
        if type(at) is not int or type(length) is not int or at < 0 or length <= 0:
            raise ValueError
        pieces[at] = content[taken : taken + length]
        taken += length
    if taken != len(content):
        raise ValueError
    return pieces


def differences(kept: Backup, found: Backup) -> list[str]:
    """Say in words how a device's table differs from a backup of it; nothing if it does not."""
    told = []
    for word, before, now in (
        ("size", kept.size_bytes, found.size_bytes),
        ("sector", kept.sector_bytes, found.sector_bytes),
    ):
        if before != now:
            told.append(f"the device's {word} is {now} bytes, that of the backup {before}")
    old, new = kept.table, found.table
    if old.kind != new.kind:
        told.append(f"the device's table is {new.kind}, that of the backup {old.kind}")
    mine = {one.number: one for one in old.partitions}
    its = {one.number: one for one in new.partitions}
    for number in sorted(mine.keys() | its.keys()):
        if number not in its:
            told.append(f"partition {number} is missing on the device")
        elif number not in mine:
            told.append(f"partition {number} is not in the backup")
        elif mine[number] != its[number]:
            told.append(f"partition {number} is another one")
    for at in sorted(kept.pieces.keys() | found.pieces.keys()):
        if kept.pieces.get(at) != found.pieces.get(at):
            told.append(f"the bytes at {at} differ: {_what(at, old, new)}")
    return told


def _what(at: int, *tables: Table) -> str:
    """Name the structure at an offset."""
    if at == 0:
        return "master boot record"
    for table in tables:
        for word, header in (("primary", table.primary), ("backup", table.backup)):
            if header is not None and at == header.sector * table.sector_bytes:
                return f"{word} header"
            if header is not None and at == header.entries_sector * table.sector_bytes:
                return f"entries of the {word} header"
    return "extended boot record"
