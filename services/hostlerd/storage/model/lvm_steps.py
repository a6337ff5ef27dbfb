"""The steps of changes to volume groups of LVM: each is an operation of the worker, of its name.

All name their group by its UUID and all devices of it that are there: LVM looks at no others. Its
`seqno` is the one that the plan saw; 0 where steps before have counted on, or where a step that was
cut off is carried out once more: what it was to end may have ended then, and that is no error. A
`number` is the `place` of one of these devices.
"""

from __future__ import annotations

from dataclasses import dataclass

from hostlerd.runtime.steps import Step
from hostlerd.storage.model.target import Target


def called(devices: tuple[Target, ...], number: str) -> str:
    """What the device of a number, or of a place on a disk, is called."""
    found = next((one for one in devices if one.place == number), None)
    if found is None:
        return number
    return found.id if found.part is None else found.describe()


@dataclass(frozen=True, slots=True)
class CreateGroup:
    """Make a group of devices, over all that they hold."""

    group: str
    devices: tuple[Target, ...]
    extent_bytes: int
    survives_boot = True
    repeatable = False

    def describe(self) -> str:
        """Say what it does."""
        of = "; ".join(one.describe() for one in self.devices)
        return (
            f"make volume group {self.group}, with extents of {self.extent_bytes} bytes, of: {of}: "
            "what they hold is lost"
        )

    def inverse(self) -> Step | None:
        """What the devices held is gone, but for what was saved."""
        return None


@dataclass(frozen=True, slots=True)
class ExtendGroup:
    """Add a device to a group, over all that it holds."""

    group: str
    uuid: str
    seqno: int
    missing: int
    devices: tuple[Target, ...]
    device: Target
    survives_boot = True
    repeatable = False

    def describe(self) -> str:
        """Say what it does."""
        return f"add to {self.group}: {self.device.describe()}: what it holds is lost"

    def inverse(self) -> Step:
        """Take it out again; what it held is gone, but for what was saved."""
        devices = (*self.devices, self.device)
        return ReduceGroup(self.group, self.uuid, 0, self.missing, devices, self.device.place)


@dataclass(frozen=True, slots=True)
class ReduceGroup:
    """Take a device out of a group that nothing lies on."""

    group: str
    uuid: str
    seqno: int
    missing: int
    devices: tuple[Target, ...]
    number: str
    survives_boot = True
    one_way = True

    def describe(self) -> str:
        """Say what it does."""
        return f"take out of {self.group}: {called(self.devices, self.number)}"

    def inverse(self) -> Step | None:
        """It may be added again, as a change of its own."""
        return None


@dataclass(frozen=True, slots=True)
class RemoveMissing:
    """Have a group do without the devices that are missing. Refused while a volume needs one."""

    group: str
    uuid: str
    seqno: int
    missing: int
    devices: tuple[Target, ...]
    survives_boot = True
    one_way = True

    def describe(self) -> str:
        """Say what it does."""
        return f"have {self.group} do without {self.missing} devices that are missing"

    def inverse(self) -> Step | None:
        """There is nothing to put back."""
        return None


@dataclass(frozen=True, slots=True)
class RemoveGroup:
    """End a group that has no volumes."""

    group: str
    uuid: str
    seqno: int
    missing: int
    devices: tuple[Target, ...]
    survives_boot = True
    one_way = True

    def describe(self) -> str:
        """Say what it does."""
        return f"end volume group {self.group} ({self.uuid})"

    def inverse(self) -> Step | None:
        """Its description is kept, and may be put back as a change of its own."""
        return None


@dataclass(frozen=True, slots=True)
class StartMove:
    """Begin to move what lies on a device to others of its group; to any if none is named."""

    group: str
    uuid: str
    seqno: int
    missing: int
    devices: tuple[Target, ...]
    number: str
    numbers: tuple[str, ...] = ()
    survives_boot = True
    one_way = True

    def describe(self) -> str:
        """Say what it does."""
        to = ", ".join(called(self.devices, one) for one in self.numbers) or "the others"
        return f"move all of {self.group} on {called(self.devices, self.number)} to {to}"

    def inverse(self) -> Step:
        """Cease: what is moved stays where it is now."""
        return AbortMove(
            *(self.group, self.uuid, 0, self.missing, self.devices), number=self.number
        )


@dataclass(frozen=True, slots=True)
class AbortMove:
    """Cease to move what lies on a device."""

    group: str
    uuid: str
    seqno: int
    missing: int
    devices: tuple[Target, ...]
    number: str
    one_way = True

    def describe(self) -> str:
        """Say what it does."""
        return f"cease to move what lies on {called(self.devices, self.number)}"

    def inverse(self) -> Step | None:
        """It may be begun again."""
        return None


@dataclass(frozen=True, slots=True)
class RestoreGroup:
    """Put back a description of a group that was kept before a change. No volume may be active."""

    group: str
    uuid: str
    seqno: int
    missing: int
    devices: tuple[Target, ...]
    saved: str
    survives_boot = True
    repeatable = False

    def describe(self) -> str:
        """Say what it does."""
        return f"put back the description of {self.group} that was kept as {self.saved}"

    def inverse(self) -> Step | None:
        """The one before is kept too."""
        return None


STEPS: tuple[type, ...] = (
    *(CreateGroup, ExtendGroup, ReduceGroup, RemoveMissing, RemoveGroup),
    *(StartMove, AbortMove, RestoreGroup),
)
