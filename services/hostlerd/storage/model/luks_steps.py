"""The steps of changes to LUKS. Each is one operation of the worker, of the same name.

None holds a key: a step says where the worker finds it.
"""

from __future__ import annotations

from dataclasses import dataclass

from hostlerd.runtime.steps import Step
from hostlerd.storage.model.target import Target


@dataclass(frozen=True, slots=True)
class OpenLuks:
    """Have what is enciphered on a device be a device of its own, in the clear."""

    device: Target
    uuid: str
    name: str
    key_file: str = ""
    credential: str = ""
    is_read_only: bool = False

    def describe(self) -> str:
        """Say what it does."""
        key = self.key_file or f"credential {self.credential}"
        how = " for reading" if self.is_read_only else ""
        return f"open LUKS {self.uuid} on {self.device.id} as {self.name}{how} with {key}"

    def inverse(self) -> Step:
        """Close it."""
        return CloseLuks(self.device, self.uuid, self.name)


@dataclass(frozen=True, slots=True)
class CloseLuks:
    """Close what is open; nothing if it is not."""

    device: Target
    uuid: str
    name: str
    one_way = True

    def describe(self) -> str:
        """Say what it does."""
        return f"close LUKS {self.uuid} on {self.device.id}, open as {self.name}"

    def inverse(self) -> Step | None:
        """That takes a key."""
        return None


@dataclass(frozen=True, slots=True)
class BackupLuksHeader:
    """Keep a header with all its keys, as what is saved before something is overwritten."""

    device: Target
    uuid: str
    survives_boot = True
    one_way = True

    def describe(self) -> str:
        """Say what it does."""
        return f"keep the header of LUKS {self.uuid} on {self.device.id}"

    def inverse(self) -> Step | None:
        """It does no harm."""
        return None


STEPS: tuple[type, ...] = (OpenLuks, CloseLuks, BackupLuksHeader)
