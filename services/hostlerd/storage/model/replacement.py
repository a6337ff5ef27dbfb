"""The replacement of a disk: what was on it, what becomes of that, and what speaks against it."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from hostlerd.runtime.steps import Step
from hostlerd.storage.model.target import Target


class Fate(enum.Enum):
    """What becomes of something that was on the old disk."""

    TO_DO = 1
    """Steps bring it back on the new one."""
    RUNNING = 2
    """It is being copied to the new one."""
    DONE = 3
    """The new one has it."""
    BY_HAND = 4
    """No step brings it back; the words say what would."""


class Weight(enum.Enum):
    """How much a finding counts."""

    NOTE = 1
    WARNING = 2
    ERROR = 3
    """The disk is not replaced by that one."""


@dataclass(frozen=True, slots=True)
class Follow:
    """What the kernel copies by itself: of an array, a btrfs or a group, so many bytes."""

    kind: str
    """"md", "btrfs" or "lvm"."""
    uuid: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Content:
    """Something that was on the old disk. `number` is its partition's; 0: of the whole disk."""

    number: int
    kind: str
    """"array", "btrfs", "lvm", "swap", "filesystem" or another word for what it is."""
    id: str
    """Of the graph, of what it is a part of."""
    fate: Fate
    words: str
    steps: tuple[Step, ...] = ()
    overwrites: Target | None = None
    """The place on the new disk whose contents are lost."""
    follow: Follow | None = None
    least_bytes: int = 0
    """How large the place on the new disk has to be, if that is not what is copied."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of the new disk, or of the way to it."""

    code: str
    weight: Weight
    message: str


@dataclass(frozen=True, slots=True)
class Boot:
    """Something that a boot loader needs of the new disk, and what to run for it."""

    code: str
    message: str
    command: str = ""


@dataclass(frozen=True, slots=True)
class Pull:
    """Which disk to pull: all that tells it from the others. Empty where it is not known."""

    id: str
    is_there: bool
    name: str = ""
    serial: str = ""
    wwn: str = ""
    model: str = ""
    path: str = ""
    """Where it is plugged in, as in /dev/disk/by-path."""
    enclosure: str = ""
    bay: str = ""
    """Of its enclosure, as the enclosure calls it."""
    words: str = ""
    target: Target | None = None


@dataclass(frozen=True, slots=True)
class Replacement:
    """All that is to be known of it. `steps` are those of the table, and then the contents'."""

    old: str
    new: str
    pull: Pull
    table_of: str = ""
    """The disk whose partition table is copied; empty if none is."""
    table_steps: tuple[Step, ...] = ()
    contents: tuple[Content, ...] = ()
    findings: tuple[Finding, ...] = ()
    boot: tuple[Boot, ...] = ()

    @property
    def steps(self) -> tuple[Step, ...]:
        """All steps, in order."""
        return (*self.table_steps, *(step for one in self.contents for step in one.steps))

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What speaks against it."""
        return tuple(one for one in self.findings if one.weight is Weight.ERROR)
