"""What the kernel says of block devices, and what else is known of them, as it was read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Signature:
    """Magic bytes on a device. Source: libblkid's types and usages."""

    type: str
    usage: str
    uuid: str = ""
    label: str = ""


@dataclass(frozen=True, slots=True)
class PartitionFacts:
    """What a partition is in its table; `start_sector` counts 512 bytes, as in sysfs."""

    of: str
    number: int
    start_sector: int
    uuid: str = ""


@dataclass(frozen=True, slots=True)
class MdMember:
    """A device of an md array, as the array sees it; `slot` is None for a spare."""

    device: str
    state: str
    slot: int | None
    errors: int


@dataclass(frozen=True, slots=True)
class MdFacts:
    """What md says of an array. Source: Linux Documentation/admin-guide/md.rst."""

    level: str
    array_state: str
    raid_disks: int
    degraded: int
    sync_action: str
    sync_done_sectors: int
    sync_total_sectors: int
    mismatch_count: int
    uuid: str
    members: tuple[MdMember, ...]
    layout: int = 0


@dataclass(frozen=True, slots=True)
class IscsiFacts:
    """The session that a disk of another host comes by. Source: Linux scsi_transport_iscsi.c."""

    target: str
    portal: str
    """Address and port of the other host."""
    state: str


@dataclass(frozen=True, slots=True)
class Device:
    """A block device of the kernel. Sizes of sysfs count sectors of 512 bytes; these are bytes."""

    name: str
    number: str
    size_bytes: int
    logical_sector_bytes: int
    physical_sector_bytes: int
    is_read_only: bool = False
    is_removable: bool = False
    is_rotational: bool = False
    disk_sequence: int = 0
    transport: str = ""
    model: str = ""
    serial: str = ""
    wwn: str = ""
    slot: str = ""
    controller: str = ""
    """The PCI function that it is behind, such as "0000:00:1f.2"; empty where there is none."""
    enclosure: str = ""
    """The kernel's name of the enclosure that it is in; empty where there is none."""
    bay: str = ""
    """What the enclosure calls the place in it."""
    state: str = ""
    partition: PartitionFacts | None = None
    backing_file: str = ""
    dm_name: str = ""
    dm_uuid: str = ""
    md: MdFacts | None = None
    iscsi: IscsiFacts | None = None
    exported: str = ""
    """As what the kernel exports it, such as "iblock_7442/leg1"; empty if it does not."""
    lower: tuple[str, ...] = ()
    """The devices that it is built on, as the kernel's holders say."""
    links: tuple[str, ...] = ()
    signatures: tuple[Signature, ...] = ()


@dataclass(frozen=True, slots=True)
class Mount:
    """A mount of the first process. Source: proc_pid_mountinfo(5)."""

    path: str
    number: str
    root: str
    type: str
    source: str
    is_read_only: bool


@dataclass(frozen=True, slots=True)
class Room:
    """What statvfs(3) says of a mounted filesystem."""

    size_bytes: int
    free_bytes: int
    available_bytes: int
    files: int
    free_files: int


@dataclass(frozen=True, slots=True)
class BtrfsDevice:
    """A device of a btrfs filesystem, with its counters of errors."""

    name: str
    device_id: int
    is_missing: bool
    errors: Mapping[str, int]
    size_bytes: int = 0
    allocated_bytes: int = 0


@dataclass(frozen=True, slots=True)
class BtrfsAllocation:
    """What btrfs has given out for one kind of data. Sizes in bytes."""

    kind: str
    profile: str
    total: int
    used: int
    on_disk_total: int
    on_disk_used: int


@dataclass(frozen=True, slots=True)
class Btrfs:
    """A mounted btrfs. Source: Linux fs/btrfs/sysfs.c."""

    uuid: str
    label: str
    devices: tuple[BtrfsDevice, ...]
    allocations: tuple[BtrfsAllocation, ...]
    exclusive_operation: str = ""
    """What the kernel does to it that excludes other such things, "none" if nothing."""


@dataclass(frozen=True, slots=True)
class FstabLine:
    """A line of fstab(5), or a unit of systemd that says the same."""

    line: int
    source: str
    path: str
    type: str
    options: tuple[str, ...]
    unit: str = ""
    """The path of the unit; empty for a line."""

    @property
    def words(self) -> str:
        """What an operator knows it by."""
        return self.unit or f"fstab line {self.line}"


@dataclass(frozen=True, slots=True)
class VolumeGroup:
    """A volume group of LVM. Sizes in bytes; `devices` are names of physical volumes."""

    uuid: str
    name: str
    size_bytes: int
    free_bytes: int
    devices: tuple[str, ...]
    missing: int


@dataclass(frozen=True, slots=True)
class LogicalVolume:
    """A logical volume; `segment_type` as lvs(8) has it, such as "linear", "raid1", "thin"."""

    uuid: str
    group: str
    """The UUID of its group."""
    name: str
    size_bytes: int
    segment_type: str
    origin: str = ""
    """The volume that it is a snapshot of, by its name; empty if it is none."""


@dataclass(frozen=True, slots=True)
class ConfiguredArray:
    """A line ARRAY of mdadm.conf(5)."""

    line: int
    name: str
    uuid: str


@dataclass(frozen=True, slots=True)
class Boot:
    """How this host came up, as far as it can be read. Source: proc(5), UEFI 2.10 3.3, EDD-3."""

    kernel_release: str = ""
    root: str = ""
    """What the kernel was told to mount as root, such as "UUID=…"."""
    kernels: tuple[str, ...] = ()
    """The releases that lie in /boot."""
    loader_partition_uuid: str = ""
    """The partition that EFI loaded the boot loader from."""
    loader_disk_signature: str = ""
    """Eight hexadecimal digits of the MBR that the BIOS booted."""


@dataclass(frozen=True, slots=True)
class Unseen:
    """Something that could not be read, and why."""

    code: str
    subject: str
    message: str


@dataclass(frozen=True, slots=True)
class Observed:
    """All that was seen at one time."""

    devices: tuple[Device, ...]
    mounts: tuple[Mount, ...] = ()
    rooms: Mapping[str, Room] = field(default_factory=dict)
    """By the path of the mount."""
    swaps: tuple[str, ...] = ()
    """Names of devices that are swapped to."""
    swap_files: tuple[str, ...] = ()
    btrfs: tuple[Btrfs, ...] = ()
    fstab: tuple[FstabLine, ...] = ()
    groups: tuple[VolumeGroup, ...] = ()
    volumes: tuple[LogicalVolume, ...] = ()
    configured_arrays: tuple[ConfiguredArray, ...] = ()
    hostname: str = ""
    boot: Boot = field(default_factory=Boot)
    unseen: tuple[Unseen, ...] = ()
