"""Partition tables as a planner sees them: what is in them, and where they stand on the device."""

from __future__ import annotations

from dataclasses import dataclass

GPT, MBR = "gpt", "dos"
"""Kinds of tables, in the words of sfdisk(8); empty for a device without one."""
EXTENDED = frozenset({"0x05", "0x0f", "0x85"})
FIRST_LOGICAL = 5
SLOTS = 128
"""How many entries a GPT has room for, unless it says otherwise."""
_ENTRY_BYTES = 128
_DOS_LAST = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class Entry:
    """A partition in a table. Sectors are logical ones; an empty `uuid` is still to be drawn.

    `type` is "0x83" in an MBR and a GUID in upper case in a GPT. `attributes` are those of a GPT
    but for the bit that `bootable` stands for.
    """

    number: int
    start_sector: int
    size_sectors: int
    type: str
    name: str = ""
    uuid: str = ""
    bootable: bool = False
    attributes: int = 0

    @property
    def end_sector(self) -> int:
        """The last sector that belongs to it."""
        return self.start_sector + self.size_sectors - 1

    @property
    def is_extended(self) -> bool:
        """Whether it holds logical partitions, and nothing else."""
        return self.type in EXTENDED


@dataclass(frozen=True, slots=True)
class Digest:
    """What lay at a place of a device, by its SHA-256."""

    offset_bytes: int
    length_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes for a place of a device."""

    offset_bytes: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Table:
    """A partition table, as it is on a device or is wanted there.

    Partitions may take `first_sector` to `last_sector`; `slots` is how many entries a GPT has room
    for. `headers` are the places of a GPT's headers, and of extended boot records; `standing` is
    all that the table is made of, as it was read.
    """

    kind: str
    id: str
    size_bytes: int
    sector_bytes: int
    first_sector: int
    last_sector: int
    slots: int
    entries: tuple[Entry, ...] = ()
    is_hybrid: bool = False
    errors: tuple[str, ...] = ()
    standing: tuple[Digest, ...] = ()
    headers: tuple[int, ...] = ()

    @property
    def extended(self) -> Entry | None:
        """The extended partition of an MBR, if it has one."""
        if self.kind != MBR:
            return None
        return next((one for one in self.entries if one.is_extended), None)

    def entry(self, number: int) -> Entry | None:
        """The partition of a number."""
        return next((one for one in self.entries if one.number == number), None)


def empty(kind: str, size_bytes: int, sector_bytes: int, slots: int = SLOTS) -> Table:
    """A table without partitions, for a device of that size."""
    sectors = size_bytes // sector_bytes
    if kind != GPT:
        last = min(sectors - 1, _DOS_LAST)
        return Table(kind, "", size_bytes, sector_bytes, 1, last, 0)
    taken = -(-slots * _ENTRY_BYTES // sector_bytes)
    return Table(GPT, "", size_bytes, sector_bytes, 2 + taken, sectors - taken - 2, slots)
