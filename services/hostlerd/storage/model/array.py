"""An array of md: its members, and how many of them it can lose.

Source: md(4), Linux Documentation/admin-guide/md.rst, drivers/md/raid10.c.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

LEVELS = ("raid0", "raid1", "raid4", "raid5", "raid6", "raid10", "linear")
MADE = ("raid0", "raid1", "raid5", "raid6", "raid10")
"""The levels that are made here; the others are only shown."""
REDUNDANT = frozenset(("raid1", "raid4", "raid5", "raid6", "raid10"))
RESHAPED = frozenset(("raid1", "raid4", "raid5", "raid6", "raid10"))
"""The levels that take more devices and stay what they are."""
FEWEST = {"raid0": 2, "raid1": 2, "raid4": 3, "raid5": 3, "raid6": 4, "raid10": 2, "linear": 1}
PARITY_LAYOUTS = ("left-asymmetric", "right-asymmetric", "left-symmetric", "right-symmetric")
"""As the kernel numbers them."""
MEMBER_SIGNATURE = "linux_raid_member"
"""What libblkid calls md's superblock."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,23}")
"""Short enough that a host's name of some length fits into the superblock's 32 bytes beside it."""
_RAID10 = re.compile(r"([nfo])([1-9][0-9]?)")
_NEAR, _FAR, _OFFSET = 0xFF, 0xFF00, 1 << 16
_FAR_SETS = 17
"""The bit of a layout from which on the form of the far copies is told."""


@dataclass(frozen=True, slots=True)
class Copies:
    """How raid10 spreads the copies of a chunk. Source: drivers/md/raid10.c, setup_geo()."""

    near: int
    far: int
    is_offset: bool = False
    set_form: int = 0
    """How the copies of a chunk stay within a set of devices; 0 if they do not, as mdadm has it."""

    @classmethod
    def of_layout(cls, number: int) -> Copies:
        """Read the kernel's number."""
        near, far = number & _NEAR, (number & _FAR) >> 8
        return cls(near, far, bool(number & _OFFSET), number >> _FAR_SETS)

    @classmethod
    def parse(cls, words: str) -> Copies | None:
        """Read mdadm's words, such as "n2" or "o3"; None if they are none."""
        found = _RAID10.fullmatch(words)
        if found is None:
            return None
        count = int(found[2])
        return cls(count, 1) if found[1] == "n" else cls(1, count, found[1] == "o")

    @property
    def count(self) -> int:
        """How many copies there are of each chunk."""
        return self.near * self.far

    @property
    def words(self) -> str:
        """As mdadm writes it."""
        if self.far == 1:
            return f"n{self.near}"
        letter = "o" if self.is_offset else "f"
        return f"{letter}{self.far}" if self.near == 1 else f"n{self.near}{letter}{self.far}"

    def holders(self, raid_disks: int) -> frozenset[frozenset[int]]:
        """The sets of slots that have all copies of some chunk between them.

        Empty for what is no layout. Source: md(4), "RAID10"; drivers/md/raid10.c,
        __raid10_find_phys().
        """
        if raid_disks < 1 or self.near < 1 or self.far < 1:
            return frozenset()
        far = self.far
        width = {0: raid_disks, 1: raid_disks // far}.get(self.set_form, far * self.near)
        if not 1 <= width <= raid_disks:
            return frozenset()
        return frozenset(
            frozenset(self._of_chunk(chunk * self.near, raid_disks, width))
            for chunk in range(raid_disks)
        )

    def _of_chunk(self, first: int, raid_disks: int, width: int) -> Iterator[int]:
        """The slots of one chunk: `near` neighbours, each of them shifted `far` - 1 times.

        Far copies stay in sets of `width` devices; the last set takes what is left over.
        """
        last_start = (raid_disks // width - 1) * width
        last_width = raid_disks - last_start
        for copy in range(self.near):
            slot = (first + copy) % raid_disks
            yield slot
            for _ in range(self.far - 1):
                start = slot // width * width
                slot += self.near
                if raid_disks % width and slot > last_start:
                    slot = last_start + (slot - last_start) % last_width
                else:
                    slot = start + slot % width
                yield slot


@dataclass(frozen=True, slots=True)
class Member:
    """A device of an array; `slot` is None for a spare and for one that has failed."""

    name: str
    """The kernel's."""
    slot: int | None
    states: frozenset[str]
    """The kernel's words: in_sync, spare, faulty, write_mostly, replacement and so on."""
    errors: int = 0
    is_there: bool = True
    """Whether the device has not been unplugged."""

    @property
    def is_faulty(self) -> bool:
        """Whether md uses it no more."""
        return "faulty" in self.states or not self.is_there

    @property
    def is_whole(self) -> bool:
        """Whether it holds all that its slot is to hold."""
        return "in_sync" in self.states and self.slot is not None and not self.is_faulty

    @property
    def is_replacement(self) -> bool:
        """Whether it is being written in place of another one."""
        return "replacement" in self.states

    @property
    def role(self) -> str:
        """What it is to the array, in a word."""
        if self.is_faulty:
            return "faulty"
        if self.is_whole:
            return "active"
        if self.slot is None:
            return "spare"
        return "replacing" if self.is_replacement else "rebuilding"


@dataclass(frozen=True, slots=True)
class Sync:
    """What md is doing to an array. `done` and `total` are bytes of each of its devices."""

    action: str = "idle"
    """The kernel's word: idle, resync, recover, check, repair, reshape, frozen."""
    done_bytes: int = 0
    total_bytes: int = 0
    rate_bytes_per_second: int = 0
    mismatch_sectors: int = 0
    is_delayed: bool = False
    """It waits for another array that shares a disk with it."""

    @property
    def is_idle(self) -> bool:
        """Whether nothing goes on."""
        return self.action in ("idle", "frozen", "")


@dataclass(frozen=True, slots=True)
class Speed:
    """Bounds of what synchronising may take, in KiB/s of each device; None: the host's."""

    least_kib: int | None = None
    most_kib: int | None = None


@dataclass(frozen=True, slots=True)
class Array:
    """An array as the kernel has it."""

    name: str
    """The kernel's, such as "md127"."""
    uuid: str
    label: str
    """Its own name, as in /dev/md/NAME."""
    level: str
    state: str
    raid_disks: int
    degraded: int
    members: tuple[Member, ...]
    layout: int = 0
    chunk_bytes: int = 0
    metadata: str = ""
    bitmap: str = ""
    component_bytes: int = 0
    data_offset_bytes: int = 0
    """Where on each device the data begins, at the latest."""
    size_bytes: int = 0
    sync: Sync = Sync()
    speed: Speed = Speed()
    is_reshaping: bool = False
    """Whether it is between two shapes, at work or standing still."""

    @property
    def stands_still(self) -> bool:
        """Whether something is left to be done, and md waits with it for the first write.

        So it comes up after a boot. Source: md.rst, array_state "read-auto".
        """
        return self.state == "read-auto" and (
            self.is_reshaping
            or any(
                one.slot is not None and not one.is_whole and not one.is_faulty
                for one in self.members
            )
        )

    @property
    def layout_words(self) -> str:
        """The layout as mdadm writes it; empty where a level has none."""
        if self.level == "raid10":
            return Copies.of_layout(self.layout).words
        if self.level in ("raid4", "raid5", "raid6") and self.layout < len(PARITY_LAYOUTS):
            return PARITY_LAYOUTS[self.layout]
        return ""

    @property
    def whole_slots(self) -> frozenset[int]:
        """The slots of which a device holds all."""
        return frozenset(one.slot for one in self.members if one.slot is not None and one.is_whole)

    def member(self, name: str) -> Member | None:
        """The member that the kernel calls so."""
        return next((one for one in self.members if one.name == name), None)

    def has_all_data(self, without: Collection[str] = ()) -> bool:
        """Whether everything is still there without the members of these names."""
        slots = frozenset(
            one.slot
            for one in self.members
            if one.slot is not None and one.is_whole and one.name not in without
        )
        return survives(self.level, self.raid_disks, slots, self.layout)

    def more_losses(self) -> int:
        """How many more whole members it can lose, whichever those are."""
        return spare_losses(self.level, self.raid_disks, self.whole_slots, self.layout)


def survives(level: str, raid_disks: int, slots: Collection[int], layout: int = 0) -> bool:
    """Whether the devices in these slots together have a copy of everything."""
    if level == "raid1":
        return len(slots) >= 1
    if level == "raid10":
        return all(holders & frozenset(slots) for holders in _holders(raid_disks, layout))
    missing_most = {"raid4": 1, "raid5": 1, "raid6": 2}.get(level, 0)
    return raid_disks - len(slots) <= missing_most


def spare_losses(level: str, raid_disks: int, slots: Collection[int], layout: int = 0) -> int:
    """How many of these slots may go, whichever they are; -1 if too many are gone already."""
    if not survives(level, raid_disks, slots, layout):
        return -1
    if level == "raid1":
        return len(slots) - 1
    if level == "raid10":
        return min(len(one & frozenset(slots)) for one in _holders(raid_disks, layout)) - 1
    missing_most = {"raid4": 1, "raid5": 1, "raid6": 2}.get(level, 0)
    return missing_most - (raid_disks - len(slots))


def _holders(raid_disks: int, layout: int) -> frozenset[frozenset[int]]:
    """The sets that have all copies of something; of no layout, each device is taken for one."""
    found = Copies.of_layout(layout).holders(raid_disks)
    return found or frozenset(frozenset((slot,)) for slot in range(raid_disks))
