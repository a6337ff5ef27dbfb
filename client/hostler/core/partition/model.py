"""What a partition table says, as it stands on the disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["note", "warning", "error"]
Kind = Literal["gpt", "mbr", "none"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong with a table, or worth knowing. `code` is a stable word."""

    code: str
    severity: Severity
    message: str


@dataclass(frozen=True, slots=True)
class Chs:
    """An address by cylinder, head and sector; sectors count from 1.

    1023/254/63 and 1023/255/63 stand for what is beyond it.
    """

    cylinder: int
    head: int
    sector: int

    @property
    def is_beyond(self) -> bool:
        """Whether it says no more than that the address does not fit."""
        return self.cylinder == 1023 and self.head in (254, 255) and self.sector == 63


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition of either kind of table; sectors are those of the table.

    `type` is "0x83" in an MBR and a GUID in upper case in a GPT, `uuid` the partition's own GUID.
    """

    number: int
    start_sector: int
    size_sectors: int
    type: str
    type_name: str
    sector_bytes: int
    active: bool = False
    name: str = ""
    uuid: str = ""
    attributes: int = 0
    start_chs: Chs | None = None
    end_chs: Chs | None = None
    ebr_sector: int | None = None
    is_extended: bool = False

    @property
    def end_sector(self) -> int:
        """The last sector that belongs to it."""
        return self.start_sector + self.size_sectors - 1

    @property
    def start_bytes(self) -> int:
        """Where it begins."""
        return self.start_sector * self.sector_bytes

    @property
    def size_bytes(self) -> int:
        """How large it is."""
        return self.size_sectors * self.sector_bytes


@dataclass(frozen=True, slots=True)
class Mbr:
    """A master boot record with the chain of its extended partition."""

    signature: str
    """The disk's signature, such as "0x1a2b3c4d"."""
    boot_code: bool
    """Whether there is any boot code."""
    partitions: tuple[Partition, ...]
    protective: bool
    """Whether an entry of type 0xee stands for a GPT."""
    hybrid: bool
    """Whether others stand beside it."""
    extended_records: tuple[int, ...] = ()
    """The sectors of the extended boot records, in the order of their chain."""


@dataclass(frozen=True, slots=True)
class GptHeader:
    """One of the two headers of a GPT, with what it says about its entries."""

    sector: int
    own_sector: int
    other_sector: int
    first_usable_sector: int
    last_usable_sector: int
    disk_uuid: str
    entries_sector: int
    entry_count: int
    entry_bytes: int
    header_crc_good: bool
    entries_crc_good: bool
    entries_whole: bool
    """Whether all entries could be read; a dump may end before them."""
    partitions: tuple[Partition, ...]

    @property
    def is_good(self) -> bool:
        """Whether a kernel would believe it."""
        return self.header_crc_good and self.entries_crc_good and self.own_sector == self.sector


@dataclass(frozen=True, slots=True)
class Gap:
    """Sectors that belong to no partition, both ends included."""

    first_sector: int
    last_sector: int

    @property
    def size_sectors(self) -> int:
        """How many they are."""
        return self.last_sector - self.first_sector + 1


@dataclass(frozen=True, slots=True)
class Table:
    """What was found on a device or in a dump.

    `partitions` are those that count: of a GPT those of its good header.
    """

    kind: Kind
    size_bytes: int
    sector_bytes: int
    mbr: Mbr | None
    partitions: tuple[Partition, ...]
    findings: tuple[Finding, ...]
    primary: GptHeader | None = None
    backup: GptHeader | None = None
    gaps: tuple[Gap, ...] = ()

    @property
    def is_hybrid(self) -> bool:
        """Whether the MBR names partitions of the GPT as well."""
        return self.kind == "gpt" and self.mbr is not None and self.mbr.hybrid
