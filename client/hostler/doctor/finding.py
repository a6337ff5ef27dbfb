"""What a check has found."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any


class Level(enum.StrEnum):
    """How it ended. SKIPPED was not asked, since something before it failed."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check of one thing: what was found, and what to do unless all is well.

    `host` and `domain` are empty for what concerns this machine alone; `code` is a stable word,
    empty if all is well.
    """

    check: str
    level: Level
    message: str
    code: str = ""
    advice: str = ""
    host: str = ""
    domain: str = ""

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "host": self.host,
            "domain": self.domain,
            "check": self.check,
            "level": str(self.level),
            "code": self.code,
            "message": self.message,
            "advice": self.advice,
        }
