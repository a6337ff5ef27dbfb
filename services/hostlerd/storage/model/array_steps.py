"""The steps of changes to arrays of md. Each is one operation of the worker, of the same name."""

from __future__ import annotations

from dataclasses import dataclass

from hostlerd.runtime.steps import Step
from hostlerd.storage.model.target import Target


@dataclass(frozen=True, slots=True)
class CreateArray:
    """Make an array of devices, over all that they hold."""

    name: str
    level: str
    devices: tuple[Target, ...]
    spares: tuple[Target, ...] = ()
    layout: str = ""
    chunk_bytes: int = 0
    bitmap: bool = False
    assume_clean: bool = False
    write_mostly: int = 0
    survives_boot = True
    repeatable = False

    def describe(self) -> str:
        """Say what it does."""
        words = [f"make {self.level} {self.name}"]
        words += [f"in layout {self.layout}"] if self.layout else []
        words += [f"with chunks of {self.chunk_bytes} bytes"] if self.chunk_bytes else []
        words += ["with a bitmap"] if self.bitmap else []
        words += ["taken for clean as it is"] if self.assume_clean else []
        words += [f"reading the last {self.write_mostly} at need"] if self.write_mostly else []
        of = "; ".join(one.describe() for one in self.devices)
        spare = "; ".join(one.describe() for one in self.spares)
        beside = f", and of spares: {spare}" if spare else ""
        return f"{' '.join(words)} of: {of}{beside}: what they hold is lost"

    def inverse(self) -> Step | None:
        """What the devices held is gone, but for what was saved."""
        return None


@dataclass(frozen=True, slots=True)
class AddMember:
    """Add a device to an array, over all that it holds: where one lacks, else as a spare."""

    array: Target
    uuid: str
    device: Target
    survives_boot = True
    repeatable = False

    def describe(self) -> str:
        """Say what it does."""
        return f"add to {self.array.id}: {self.device.describe()}: what it holds is lost"

    def inverse(self) -> Step:
        """Take it out again; what it held is gone, but for what was saved."""
        return TakeOutMember(self.array, self.uuid, self.device)


@dataclass(frozen=True, slots=True)
class ReAddMember:
    """Add a device back to the array that it is of: with a bitmap, what has changed is copied."""

    array: Target
    uuid: str
    device: Target
    survives_boot = True
    repeatable = False

    def describe(self) -> str:
        """Say what it does."""
        return f"add back to {self.array.id}: {self.device.describe()}"

    def inverse(self) -> Step:
        """Take it out again."""
        return TakeOutMember(self.array, self.uuid, self.device)


@dataclass(frozen=True, slots=True)
class FailMember:
    """Have md use a member no more."""

    array: Target
    uuid: str
    device: Target
    survives_boot = True
    one_way = True

    def describe(self) -> str:
        """Say what it does."""
        return f"mark as failed in {self.array.id}: {self.device.describe()}"

    def inverse(self) -> Step | None:
        """The array has gone on without it by then."""
        return None


@dataclass(frozen=True, slots=True)
class RemoveMember:
    """Take a spare, or a member that has failed, out of an array. It keeps what is on it."""

    array: Target
    uuid: str
    device: Target
    survives_boot = True
    one_way = True

    def describe(self) -> str:
        """Say what it does."""
        return f"take out of {self.array.id}: {self.device.describe()}"

    def inverse(self) -> Step | None:
        """It may be added again, as a change of its own."""
        return None


@dataclass(frozen=True, slots=True)
class TakeOutMember:
    """Take a device that was just added out of an array again, whatever md does with it."""

    array: Target
    uuid: str
    device: Target
    survives_boot = True
    one_way = True

    def describe(self) -> str:
        """Say what it does."""
        return f"take out of {self.array.id} again: {self.device.describe()}"

    def inverse(self) -> Step | None:
        """It is a way back itself."""
        return None


@dataclass(frozen=True, slots=True)
class RemoveDetached:
    """Take the members out of an array whose devices are unplugged."""

    array: Target
    uuid: str
    names: tuple[str, ...]
    survives_boot = True
    one_way = True

    def describe(self) -> str:
        """Say what it does."""
        return f"take out of {self.array.id} what is unplugged: {', '.join(self.names)}"

    def inverse(self) -> Step | None:
        """There is nothing to put back."""
        return None


@dataclass(frozen=True, slots=True)
class ReplaceMember:
    """Copy a member to a spare, which takes its place when all is copied."""

    array: Target
    uuid: str
    old: Target
    new: Target
    survives_boot = True
    one_way = True

    def describe(self) -> str:
        """Say what it does."""
        return (
            f"replace in {self.array.id} {self.old.describe()} by {self.new.id}; "
            "the old one stays in use until the new one has all"
        )

    def inverse(self) -> Step | None:
        """The old one stays in use as long as the copying goes on."""
        return None


@dataclass(frozen=True, slots=True)
class ReshapeArray:
    """Have an array use more devices, or more of each."""

    array: Target
    uuid: str
    raid_disks: int = 0
    whole_size: bool = False
    survives_boot = True
    repeatable = False

    def describe(self) -> str:
        """Say what it does."""
        words = f"to {self.raid_disks} devices" if self.raid_disks else "to all of its devices"
        return f"grow {self.array.id} {words}"

    def inverse(self) -> Step | None:
        """No array is shrunk here: that may cut off data."""
        return None


@dataclass(frozen=True, slots=True)
class ResumeArray:
    """Have md go on with what it waits with for the first write."""

    array: Target
    uuid: str
    one_way = True

    def describe(self) -> str:
        """Say what it does."""
        return f"have md go on with {self.array.id}, which stands still until it is written to"

    def inverse(self) -> Step | None:
        """The first write would have done the same."""
        return None


@dataclass(frozen=True, slots=True)
class SetSyncAction:
    """Have md read all of an array and compare, or repair too, or cease."""

    array: Target
    uuid: str
    action: str
    one_way = True

    def describe(self) -> str:
        """Say what it does."""
        words = {
            "check": "compare all copies or parity of",
            "repair": "compare all copies or parity, and write what differs anew, of",
            "idle": "cease to compare all of",
        }
        return f"{words[self.action]} {self.array.id}"

    def inverse(self) -> Step | None:
        """Cease; what was repaired stays so."""
        return SetSyncAction(self.array, self.uuid, "idle") if self.action == "check" else None


@dataclass(frozen=True, slots=True)
class SetSyncSpeed:
    """Bound what synchronising an array takes, in KiB/s of each device; 0 for the host's bound."""

    array: Target
    uuid: str
    least_kib: int
    most_kib: int
    least_kib_before: int
    most_kib_before: int

    def describe(self) -> str:
        """Say what it does."""
        least, most = (f"{n} KiB/s" if n else "the host's" for n in (self.least_kib, self.most_kib))
        return f"synchronise {self.array.id} with at least {least} and at most {most}"

    def inverse(self) -> Step:
        """Set what was set before."""
        return SetSyncSpeed(
            *(self.array, self.uuid),
            *(self.least_kib_before, self.most_kib_before, self.least_kib, self.most_kib),
        )


@dataclass(frozen=True, slots=True)
class StopArray:
    """Stop an array; its members keep all that is on them."""

    array: Target
    uuid: str
    name: str
    devices: tuple[Target, ...]
    is_degraded: bool = False

    def describe(self) -> str:
        """Say what it does."""
        return f"stop {self.array.id} ({self.array.name})"

    def inverse(self) -> Step:
        """Assemble it of the same devices."""
        return AssembleArray(self.uuid, self.name, self.devices, self.is_degraded)


@dataclass(frozen=True, slots=True)
class AssembleArray:
    """Start an array of the devices that are of it."""

    uuid: str
    name: str
    devices: tuple[Target, ...]
    is_degraded: bool = False
    one_way = True

    def describe(self) -> str:
        """Say what it does."""
        words = "though devices of it lack, " if self.is_degraded else ""
        of = ", ".join(one.id for one in self.devices)
        return f"start {self.name} ({self.uuid}), {words}of {of}"

    def inverse(self) -> Step | None:
        """Whoever sees it may use it at once."""
        return None


@dataclass(frozen=True, slots=True)
class DiscardArray:
    """Stop an array for good: what it holds is lost with its members' superblocks."""

    array: Target
    uuid: str
    survives_boot = True
    repeatable = False

    def describe(self) -> str:
        """Say what it does."""
        return f"stop for good {self.array.describe()}: what it holds is lost"

    def inverse(self) -> Step | None:
        """What it held is saved in part, and its members are zeroed next."""
        return None


@dataclass(frozen=True, slots=True)
class ZeroMember:
    """Zero the superblock of a device that was of an array."""

    device: Target
    survives_boot = True
    repeatable = False

    def describe(self) -> str:
        """Say what it does."""
        return f"zero the superblock of {self.device.describe()}"

    def inverse(self) -> Step | None:
        """RestoreSaved puts it back, as a change of its own."""
        return None


STEPS: tuple[type, ...] = (
    *(CreateArray, AddMember, ReAddMember, FailMember, RemoveMember, TakeOutMember),
    *(RemoveDetached, ReplaceMember, ReshapeArray, ResumeArray, SetSyncAction),
    *(SetSyncSpeed, StopArray, AssembleArray, DiscardArray, ZeroMember),
)
