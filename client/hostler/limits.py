"""How wide a fan-out is, and how many hosts may fail in it."""

from __future__ import annotations

import re
from dataclasses import dataclass

DEFAULT_WINDOW = 256
MAX_WINDOW = 500


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How many hosts may fail before no further one is started: a number, or a share in percent."""

    count: int = 0
    percent: float | None = None

    @classmethod
    def parse(cls, text: str) -> Tolerance:
        """Read "3" or "10%". Raises ValueError."""
        found = re.fullmatch(r"(\d{1,9})|(\d{1,3}(?:\.\d+)?)%", text)
        if found is None or float(found[2] or 0) > 100:
            raise ValueError(f"{text!r} is neither a number nor a percentage up to 100%")
        if found[1] is not None:
            return cls(count=int(found[1]))
        return cls(percent=float(found[2]))

    def allowed(self, total: int) -> int:
        """How many of so many hosts may fail."""
        return self.count if self.percent is None else int(total * self.percent / 100)
