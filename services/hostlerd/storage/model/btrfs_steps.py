"""The steps of changes to btrfs. Each is one operation of the worker, of the same name."""

from __future__ import annotations

from dataclasses import dataclass

from hostlerd.runtime.steps import Step
from hostlerd.storage.model.target import Target


@dataclass(frozen=True, slots=True)
class StartScrub:
    """Have all copies of everything read, compared and put right."""

    uuid: str
    is_read_only: bool = False
    one_way = True

    def describe(self) -> str:
        """Say what it does."""
        what = "and only count" if self.is_read_only else "and put right"
        return f"read and compare {what} all of btrfs {self.uuid}"

    def inverse(self) -> Step | None:
        """What was put right is right."""
        return None


@dataclass(frozen=True, slots=True)
class StartReplace:
    """Copy a device to another one, which takes its place when all is copied."""

    uuid: str
    device_id: int
    old: tuple[Target, ...]
    """The device that goes; none if it is missing."""
    new: Target
    size_bytes: int
    avoids_old: bool = False
    """Read from the old one only what no other device has."""
    survives_boot = True
    repeatable = False

    def describe(self) -> str:
        """Say what it does."""
        old = self.old[0].describe() if self.old else "which is missing"
        read = ", read from only where no other has it," if self.old and self.avoids_old else ""
        return (
            f"replace in btrfs {self.uuid} device {self.device_id}, {old},{read} by "
            f"{self.new.describe()}: what the new one holds is lost"
        )

    def inverse(self) -> Step:
        """Give it up: the old one stays in use."""
        return CancelBtrfsWork(self.uuid, "replace")


@dataclass(frozen=True, slots=True)
class AddBtrfsDevice:
    """Add a device to a filesystem, over all that it holds."""

    uuid: str
    device: Target
    survives_boot = True
    repeatable = False

    def describe(self) -> str:
        """Say what it does."""
        return f"add to btrfs {self.uuid}: {self.device.describe()}: what it holds is lost"

    def inverse(self) -> Step | None:
        """What it held is gone, but for what was saved; RemoveDevice takes it out."""
        return None


@dataclass(frozen=True, slots=True)
class StartRemoval:
    """Move all that is on a device to the others, and take it out."""

    uuid: str
    device_id: int
    device: tuple[Target, ...]
    """The device; none if it is missing."""
    used_bytes: int
    survives_boot = True
    one_way = True

    def describe(self) -> str:
        """Say what it does."""
        which = self.device[0].describe() if self.device else "which is missing"
        words = f"move {self.used_bytes} bytes from device {self.device_id} of btrfs {self.uuid}"
        return f"{words} to the others, and take it out: {which}"

    def inverse(self) -> Step | None:
        """It may be added again, as a change of its own."""
        return None


@dataclass(frozen=True, slots=True)
class StartBalance:
    """Write what is allocated anew, in other profiles or only spread."""

    uuid: str
    data: str = ""
    metadata: str = ""
    usage_percent: int = 0
    kinds: tuple[str, ...] = ("data", "metadata")
    is_forced: bool = False
    one_way = True

    def describe(self) -> str:
        """Say what it does."""
        words = f"balance {' and '.join(self.kinds)} of btrfs {self.uuid}"
        into = [
            f"{kind} to {profile}"
            for kind, profile in (("data", self.data), ("metadata", self.metadata))
            if profile
        ]
        words += f", {', '.join(into)}" if into else ""
        words += f", chunks less than {self.usage_percent} % used" if self.usage_percent else ""
        return words + (", with less redundancy" if self.is_forced else "")

    def inverse(self) -> Step | None:
        """Another balance is a change of its own."""
        return None


@dataclass(frozen=True, slots=True)
class CancelBtrfsWork:
    """Have something cease that goes on for long."""

    uuid: str
    kind: str
    one_way = True

    def describe(self) -> str:
        """Say what it does."""
        return f"cancel the {self.kind} of btrfs {self.uuid}"

    def inverse(self) -> Step | None:
        """It can be begun again."""
        return None


@dataclass(frozen=True, slots=True)
class ResetErrorCounters:
    """Set the error counters of devices to zero."""

    uuid: str
    device_ids: tuple[int, ...]
    survives_boot = True
    one_way = True

    def describe(self) -> str:
        """Say what it does."""
        which = ", ".join(map(str, self.device_ids))
        return f"set the error counters of device {which} of btrfs {self.uuid} to zero"

    def inverse(self) -> Step | None:
        """The plan has told what they were."""
        return None


@dataclass(frozen=True, slots=True)
class CreateSubvolume:
    """Make a subvolume, empty."""

    uuid: str
    path: str
    survives_boot = True

    def describe(self) -> str:
        """Say what it does."""
        return f"create subvolume {self.path} of btrfs {self.uuid}"

    def inverse(self) -> Step:
        """Delete it, if it is empty still."""
        return TakeBackSubvolume(self.uuid, self.path, "")


@dataclass(frozen=True, slots=True)
class CreateSnapshot:
    """Make a snapshot of a subvolume."""

    uuid: str
    source: str
    source_id: int
    source_uuid: str
    path: str
    is_read_only: bool = False
    survives_boot = True

    def describe(self) -> str:
        """Say what it does."""
        how = "a read-only snapshot" if self.is_read_only else "a snapshot"
        return f"create {how} of {self.source or 'the top'} as {self.path} of btrfs {self.uuid}"

    def inverse(self) -> Step:
        """Delete it, if nobody has written to it."""
        return TakeBackSubvolume(self.uuid, self.path, self.source_uuid)


@dataclass(frozen=True, slots=True)
class TakeBackSubvolume:
    """Delete what was just made: an empty subvolume, or a snapshot nobody has written to."""

    uuid: str
    path: str
    source_uuid: str
    survives_boot = True
    one_way = True

    def describe(self) -> str:
        """Say what it does."""
        return f"delete {self.path} of btrfs {self.uuid} again, if it is as it was made"

    def inverse(self) -> Step | None:
        """It is a way back itself."""
        return None


@dataclass(frozen=True, slots=True)
class DeleteSubvolume:
    """Delete a subvolume or a snapshot: what it alone holds is lost."""

    uuid: str
    path: str
    id: int
    subvolume_uuid: str
    generation: int
    """The transaction that had changed it last when the plan was made."""
    survives_boot = True
    repeatable = False

    def describe(self) -> str:
        """Say what it does."""
        return (
            f"delete subvolume {self.path} (id {self.id}, {self.subvolume_uuid}) of btrfs "
            f"{self.uuid}: what it alone holds is lost"
        )

    def inverse(self) -> Step | None:
        """It is gone."""
        return None


STEPS: tuple[type, ...] = (
    *(StartScrub, StartReplace, AddBtrfsDevice, StartRemoval, StartBalance, CancelBtrfsWork),
    *(ResetErrorCounters, CreateSubvolume, CreateSnapshot, TakeBackSubvolume, DeleteSubvolume),
)
