"""The steps of changes to disks as such. Each is one operation of the worker, of the same name."""

from __future__ import annotations

from dataclasses import dataclass

from hostlerd.runtime.steps import Step
from hostlerd.storage.model.target import Target


@dataclass(frozen=True, slots=True)
class SetLocator:
    """Have the enclosure blink at a disk, or cease."""

    disk: Target
    is_on: bool

    def describe(self) -> str:
        """Say what it does."""
        how = (
            "have its enclosure blink at" if self.is_on else "have its enclosure cease to blink at"
        )
        return f"{how} {self.disk.describe()}"

    def inverse(self) -> Step:
        """The opposite."""
        return SetLocator(self.disk, not self.is_on)


@dataclass(frozen=True, slots=True)
class StartBurnIn:
    """Begin to write all of a disk and to read it back."""

    disk: Target
    survives_boot = True
    repeatable = False

    def describe(self) -> str:
        """Say what it does."""
        words = f"write all of {self.disk.describe()} and read it back"
        return f"{words}: all that it holds is lost"

    def inverse(self) -> Step:
        """Cease; what it held is gone, but for what was saved."""
        return CancelBurnIn(self.disk.id)


@dataclass(frozen=True, slots=True)
class CancelBurnIn:
    """Have the burn-in of a disk cease."""

    id: str
    one_way = True

    def describe(self) -> str:
        """Say what it does."""
        return f"cease to write and read {self.id}"

    def inverse(self) -> Step | None:
        """It is a way back itself."""
        return None


STEPS: tuple[type, ...] = (SetLocator, StartBurnIn, CancelBurnIn)
