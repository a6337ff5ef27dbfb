"""What speaks against the health of a host."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Level(enum.IntEnum):
    """How bad something is."""

    GOOD = 1
    WARNING = 2
    CRITICAL = 3


@dataclass(frozen=True, slots=True)
class Reason:
    """Something that is not well. `id` is the node's that it is about; `code` a stable word."""

    code: str
    level: Level
    id: str
    message: str
