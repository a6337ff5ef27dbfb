"""Volume groups of LVM, what they lie on and what is in them, as the worker reports them.

Source: lvm(8), lvs(8), lvmraid(7), lvmthin(7); LVM2 lib/misc/lvm-string.c for names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

NAME = re.compile(r"[A-Za-z0-9+_.][A-Za-z0-9+_.-]{0,126}")
UUID = re.compile(r"[0-9A-Za-z]{6}(-[0-9A-Za-z]{4}){5}-[0-9A-Za-z]{6}")
KINDS = ("linear", "striped", "raid1", "thin-pool", "thin")
"""The kinds that are made here; the others are only shown."""
HOSTNAME = re.compile(
    r"|[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?){0,8}"
)
"""The name of a host, or none."""
EXTENTS_MOST = 1 << 48
SIZE_MOST_BYTES = 1 << 60
EXTENT_BYTES = 4 << 20
"""What vgcreate(8) takes unless it is told otherwise."""
_RESERVED_BEGIN = ("snapshot", "pvmove")
_RESERVED_WITHIN = re.compile(
    r"_(cdata|cmeta|corig|cpool|cvol|iorig|imeta|mlog|mimage|pmspare|rimage|rmeta|tdata|tmeta"
    r"|vdata|vorigin)"
)
# DM_NAME_LEN of Linux include/uapi/linux/dm-ioctl.h, less what LVM puts behind for what a volume is
# made of, such as "_rimage_63".
_DM_NAME_MOST = 127 - 16


def group_name_fault(name: str) -> str:
    """Say why a group cannot be called so; empty if it can."""
    if not NAME.fullmatch(name) or name in (".", ".."):
        return "must be 1 to 127 letters, digits and + _ . -, not beginning with -"
    return ""


def volume_name_fault(group: str, name: str) -> str:
    """Say why a volume of a group cannot be called so; empty if it can."""
    if why := group_name_fault(name):
        return why
    if name.startswith(_RESERVED_BEGIN) or _RESERVED_WITHIN.search(name):
        return "LVM keeps that name for what volumes are made of"
    if len(mapped_name(group, name)) > _DM_NAME_MOST:
        return "is too long for the device mapper, together with the group's"
    return ""


def mapped_name(group: str, name: str) -> str:
    """What the device mapper calls a volume: each dash of the names is doubled."""
    return f"{group.replace('-', '--')}-{name.replace('-', '--')}"


@dataclass(frozen=True, slots=True)
class PhysicalVolume:
    """A device of a group."""

    uuid: str
    number: str
    """MAJOR:MINOR; empty if the device is missing."""
    extents: int
    used_extents: int
    is_allocatable: bool = True

    @property
    def is_missing(self) -> bool:
        """Whether no device has it."""
        return not self.number

    @property
    def free_extents(self) -> int:
        """What new volumes may take of it."""
        return self.extents - self.used_extents if self.is_allocatable and self.number else 0


@dataclass(frozen=True, slots=True)
class Volume:
    """A logical volume, or a hidden part of one, whose name is in brackets."""

    uuid: str
    name: str
    size_bytes: int
    kind: str
    """The type of its first segment, as lvs(8) has it: linear, striped, raid1, thin-pool, thin…"""
    layout: tuple[str, ...] = ()
    role: tuple[str, ...] = ()
    origin: str = ""
    pool: str = ""
    parent: str = ""
    is_active: bool = False
    is_open: bool = False
    number: str = ""
    """MAJOR:MINOR of its device; empty if it is not active."""
    health: str = ""
    """The word of lvs(8), such as "partial" or "refresh needed"; empty if it is well."""
    sync_percent: float | None = None
    data_percent: float | None = None
    metadata_percent: float | None = None
    is_merging: bool = False
    moves: str = ""
    """The device that pvmove(8) empties by this one, by its path."""
    carriers: tuple[str, ...] = ()
    """UUIDs of the physical volumes that it lies on, by itself or by its parts."""
    legs: int = 1
    """How many copies or stripes it has."""

    @property
    def is_visible(self) -> bool:
        """Whether it is a volume of its own."""
        return not self.name.startswith("[")

    @property
    def is_snapshot(self) -> bool:
        """Whether it keeps what another volume was like, in room of its own (not thin)."""
        return bool(self.origin) and "snapshot" in self.role and not self.pool

    @property
    def is_thin_snapshot(self) -> bool:
        """Whether it is a thin volume that began as another one."""
        return bool(self.origin) and bool(self.pool)


@dataclass(frozen=True, slots=True)
class Group:
    """A volume group."""

    uuid: str
    name: str
    seqno: int
    """Counts its changes: two that have the same have the same content."""
    extent_bytes: int
    physical: tuple[PhysicalVolume, ...]
    volumes: tuple[Volume, ...] = ()
    """Hidden parts of volumes among them."""
    is_foreign: bool = False
    """Exported, or locked by a cluster: nothing of it is changed here."""

    @property
    def free_extents(self) -> int:
        """What new volumes may take."""
        return sum(one.free_extents for one in self.physical)

    @property
    def missing(self) -> int:
        """How many of its devices are missing."""
        return sum(one.is_missing for one in self.physical)

    @property
    def visible(self) -> tuple[Volume, ...]:
        """Its volumes, by their names."""
        return tuple(sorted((v for v in self.volumes if v.is_visible), key=lambda v: v.name))

    def volume(self, name: str) -> Volume | None:
        """The volume of a name."""
        return next((one for one in self.volumes if one.name == name), None)

    def carrier(self, number: str) -> PhysicalVolume | None:
        """The physical volume on the device of a number."""
        return next((one for one in self.physical if one.number == number != ""), None)

    def extents_of(self, size_bytes: int, multiple: int = 1) -> int:
        """How many extents hold so many bytes, a multiple of so many: rounded up, at least one."""
        count = max(1, -(-size_bytes // self.extent_bytes))
        return -(-count // multiple) * multiple


def busy_with(group: Group) -> str:
    """What LVM does to a group for long, in words; empty if nothing."""
    for one in group.volumes:
        if one.moves:
            return f"the move of what is on {one.moves}"
        if one.is_merging:
            return f"the merge of {one.name}"
    return ""


def device_uuid(group: Group, volume: Volume) -> str:
    """The UUID that the device mapper has of a volume that is active."""
    return "LVM-" + (group.uuid + volume.uuid).replace("-", "")
