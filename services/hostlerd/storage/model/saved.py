"""What the worker keeps of devices that were overwritten."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hostlerd.storage.model.target import Target

ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}")


@dataclass(frozen=True, slots=True)
class Region:
    """A piece of a device."""

    offset: int
    length: int
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Saved:
    """What is kept of one device: which one it was, and which pieces of it."""

    id: str
    operation: str
    unix_s: int
    target: Target
    regions: tuple[Region, ...]

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Saved:
        """Read what JSON tells of one. Raises KeyError, TypeError, ValueError."""
        target = dict(told["target"])
        return cls(
            str(told["id"]),
            str(told["operation"]),
            int(told["unix_s"]),
            Target(**{**target, "signatures": tuple(target["signatures"])}),
            tuple(Region(**region) for region in told["regions"]),
        )
