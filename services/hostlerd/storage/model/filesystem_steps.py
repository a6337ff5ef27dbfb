"""The steps of changes to filesystems. Each is one operation of the worker, of the same name."""

from __future__ import annotations

from dataclasses import dataclass

from hostlerd.runtime.steps import Step
from hostlerd.storage.model.target import Target


@dataclass(frozen=True, slots=True)
class MakeFilesystem:
    """Make a filesystem or a swap area on a device, over all that it holds."""

    device: Target
    type: str
    label: str = ""
    uuid: str = ""
    survives_boot = True
    repeatable = False

    def describe(self) -> str:
        """Say what it does."""
        named = f" labelled {self.label!r}" if self.label else ""
        named += f" with UUID {self.uuid}" if self.uuid else ""
        return f"make {self.type}{named} on {self.device.describe()}: what it holds is lost"

    def inverse(self) -> Step | None:
        """What it held is gone, but for what was saved."""
        return None


@dataclass(frozen=True, slots=True)
class WipeSignatures:
    """Zero the places of a device that tell what it holds."""

    device: Target
    survives_boot = True
    repeatable = False

    def describe(self) -> str:
        """Say what it does."""
        return f"wipe all signatures of {self.device.describe()}: what it holds is lost"

    def inverse(self) -> Step | None:
        """RestoreSaved puts them back, as a change of its own."""
        return None


@dataclass(frozen=True, slots=True)
class RestoreSaved:
    """Put back what was saved of a device before it was overwritten."""

    device: Target
    saved: str
    survives_boot = True
    repeatable = False

    def describe(self) -> str:
        """Say what it does."""
        return f"put back what was saved as {self.saved} on {self.device.describe()}"

    def inverse(self) -> Step | None:
        """What it overwrites is saved too, under a name of its own."""
        return None


@dataclass(frozen=True, slots=True)
class SetLabel:
    """Give a filesystem another label."""

    device: Target
    type: str
    label: str
    before: str
    survives_boot = True

    def describe(self) -> str:
        """Say what it does."""
        labels = f"{self.label!r} in place of {self.before!r}"
        return f"label {self.type} on {self.device.describe()} {labels}"

    def inverse(self) -> Step:
        """Give it the old one."""
        return SetLabel(self.device, self.type, self.before, self.label)


@dataclass(frozen=True, slots=True)
class GrowFilesystem:
    """Grow a filesystem to the end of its device."""

    device: Target
    type: str
    size_bytes: int
    survives_boot = True
    one_way = True

    def describe(self) -> str:
        """Say what it does."""
        return (
            f"grow {self.type} from {self.size_bytes} bytes to the end of {self.device.describe()}"
        )

    def inverse(self) -> Step | None:
        """No filesystem is shrunk here: that moves data."""
        return None


STEPS: tuple[type, ...] = (
    MakeFilesystem,
    WipeSignatures,
    RestoreSaved,
    SetLabel,
    GrowFilesystem,
)
