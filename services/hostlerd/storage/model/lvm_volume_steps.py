"""The steps of changes to logical volumes. What is said in `lvm_steps` holds for them, too."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hostlerd.runtime.steps import Step
from hostlerd.storage.model.lvm_steps import called
from hostlerd.storage.model.target import Target


@dataclass(frozen=True, slots=True)
class CreateVolume:
    """Make a volume in a group's free extents, on the devices of these numbers.

    `extents` counts its data once, of a thin volume what it seems to have. `parts` are the copies
    of raid1, the stripes of striped.
    """

    group: str
    uuid: str
    seqno: int
    missing: int
    devices: tuple[Target, ...]
    volume: str
    kind: str
    extents: int
    numbers: tuple[str, ...] = ()
    parts: int = 1
    stripe_bytes: int = 0
    pool: str = ""
    metadata_extents: int = 0
    survives_boot = True
    repeatable = False

    def describe(self) -> str:
        """Say what it does."""
        where = ", ".join(called(self.devices, one) for one in self.numbers)
        words = [f"make {self.kind} volume {self.group}/{self.volume} of {self.extents} extents"]
        words += [f"in {self.parts} {'copies' if self.kind == 'raid1' else 'stripes'}"] * (
            self.parts > 1
        )
        words += [f"with {self.metadata_extents} of metadata"] if self.metadata_extents else []
        words += [f"in pool {self.pool}"] if self.pool else []
        words += [f"on {where}"] if where else []
        return " ".join(words)

    def inverse(self) -> Step | None:
        """One that was made is not told from one that somebody has made since."""
        return None


@dataclass(frozen=True, slots=True)
class GrowVolume:
    """Give a volume more extents."""

    group: str
    uuid: str
    seqno: int
    missing: int
    devices: tuple[Target, ...]
    volume: str
    volume_uuid: str
    extents: int
    numbers: tuple[str, ...] = ()
    survives_boot = True
    one_way = True

    def describe(self) -> str:
        """Say what it does."""
        where = ", ".join(called(self.devices, one) for one in self.numbers)
        on = f" on {where}" if where else ""
        return f"grow {self.group}/{self.volume} to {self.extents} extents{on}"

    def inverse(self) -> Step | None:
        """No volume is shrunk here: that cuts off data."""
        return None


@dataclass(frozen=True, slots=True)
class CreateVolumeSnapshot:
    """Keep what a volume is like now; `extents` is the room for changes, 0 for a thin one."""

    group: str
    uuid: str
    seqno: int
    missing: int
    devices: tuple[Target, ...]
    volume: str
    volume_uuid: str
    snapshot: str
    extents: int
    survives_boot = True
    repeatable = False

    def describe(self) -> str:
        """Say what it does."""
        room = f"with {self.extents} extents for changes" if self.extents else "in the same pool"
        return f"take snapshot {self.group}/{self.snapshot} of {self.volume} {room}"

    def inverse(self) -> Step | None:
        """It may be deleted, as a change of its own."""
        return None


@dataclass(frozen=True, slots=True)
class MergeVolumeSnapshot:
    """Have a volume be again what its snapshot is; the snapshot goes with that."""

    group: str
    uuid: str
    seqno: int
    missing: int
    devices: tuple[Target, ...]
    volume: str
    volume_uuid: str
    origin: str
    is_later: bool = False
    survives_boot = True
    one_way = True

    def describe(self) -> str:
        """Say what it does."""
        when = ", when that is next activated" if self.is_later else ""
        return (
            f"merge {self.group}/{self.volume} into {self.origin}{when}: "
            "what was written since is lost"
        )

    def inverse(self) -> Step | None:
        """What was written since is lost."""
        return None


@dataclass(frozen=True, slots=True)
class DeleteVolume:
    """Delete a volume; `active` is its device, if it has one."""

    group: str
    uuid: str
    seqno: int
    missing: int
    devices: tuple[Target, ...]
    volume: str
    volume_uuid: str
    active: tuple[Target, ...] = ()
    survives_boot = True
    repeatable = False

    def describe(self) -> str:
        """Say what it does."""
        of = "".join(f" ({one.describe()})" for one in self.active)
        return f"delete volume {self.group}/{self.volume}{of}: what it holds is lost"

    def inverse(self) -> Step | None:
        """Where it lay is kept with the group's description, and what lies there may be others'."""
        return None


@dataclass(frozen=True, slots=True)
class RenameVolume:
    """Give a volume another name."""

    group: str
    uuid: str
    seqno: int
    missing: int
    devices: tuple[Target, ...]
    volume: str
    volume_uuid: str
    name: str
    survives_boot = True

    def describe(self) -> str:
        """Say what it does."""
        return f"rename {self.group}/{self.volume} to {self.name}"

    def inverse(self) -> Step:
        """Give it the old one."""
        return replace(self, seqno=0, volume=self.name, name=self.volume)


@dataclass(frozen=True, slots=True)
class SetVolumeActive:
    """Have a volume be a device, or be none."""

    group: str
    uuid: str
    seqno: int
    missing: int
    devices: tuple[Target, ...]
    volume: str
    volume_uuid: str
    is_active: bool

    def describe(self) -> str:
        """Say what it does."""
        return f"{'activate' if self.is_active else 'deactivate'} {self.group}/{self.volume}"

    def inverse(self) -> Step:
        """Have it as it was."""
        return replace(self, seqno=0, is_active=not self.is_active)


@dataclass(frozen=True, slots=True)
class RepairVolume:
    """Have the device of a number take the place of those of a volume that are missing."""

    group: str
    uuid: str
    seqno: int
    missing: int
    devices: tuple[Target, ...]
    volume: str
    volume_uuid: str
    number: str
    survives_boot = True
    one_way = True

    def describe(self) -> str:
        """Say what it does."""
        return f"repair {self.group}/{self.volume} onto {called(self.devices, self.number)}"

    def inverse(self) -> Step | None:
        """A volume that lacks a copy is not any safer."""
        return None


@dataclass(frozen=True, slots=True)
class ReplaceVolumeLeg:
    """Have the device of a number take the place of another one in a volume."""

    group: str
    uuid: str
    seqno: int
    missing: int
    devices: tuple[Target, ...]
    volume: str
    volume_uuid: str
    old_number: str
    number: str
    survives_boot = True
    one_way = True

    def describe(self) -> str:
        """Say what it does."""
        old, new = (called(self.devices, one) for one in (self.old_number, self.number))
        return f"replace {old} by {new} in {self.group}/{self.volume}"

    def inverse(self) -> Step | None:
        """The new one is being written by then."""
        return None


@dataclass(frozen=True, slots=True)
class CloneVolume:
    """Make a thin volume of a template, of so many extents, with an identity of its own."""

    group: str
    uuid: str
    seqno: int
    missing: int
    devices: tuple[Target, ...]
    volume: str
    volume_uuid: str
    name: str
    extents: int
    hostname: str = ""
    survives_boot = True
    repeatable = False

    def describe(self) -> str:
        """Say what it does."""
        called_ = f", called {self.hostname}" if self.hostname else ""
        return (
            f"clone {self.group}/{self.volume} as {self.name} of {self.extents} extents{called_}: "
            "with a UUID of its own, an empty machine id and no host keys of ssh"
        )

    def inverse(self) -> Step | None:
        """It may be deleted, as a change of its own."""
        return None


STEPS: tuple[type, ...] = (
    *(CreateVolume, GrowVolume, CreateVolumeSnapshot, MergeVolumeSnapshot, DeleteVolume),
    CloneVolume,
    *(RenameVolume, SetVolumeActive, RepairVolume, ReplaceVolumeLeg),
)
