"""Whose turn it is to take back, newest change first, and what becomes of one who fails."""

from __future__ import annotations

import time
from collections.abc import Mapping

from .documents import Part, Turn

# With the pauses between them some seconds; the try after these is the last.
TRIES = 4
_PAUSE_S = 0.5
_FIRST = 1 << 62


class Queue:
    """Keeps the order over domains. One that fails is set aside for a while, the others go on."""

    def __init__(self) -> None:
        self._tries: dict[str, int] = {}
        self._not_before: dict[str, float] = {}
        self._given_up: dict[str, Part | None] = {}

    def begin(self) -> None:
        """Forget how often a group before was tried; what was given up stays so."""
        self._tries.clear()
        self._not_before.clear()

    def given_up(self, domain: str, part: Part | None) -> bool:
        """Whether nothing more is tried for this part, as long as it stays as it is."""
        return domain in self._given_up and self._given_up[domain] == part

    def silent(self) -> list[str]:
        """Domains that were given up in this group with their part still there."""
        return sorted(d for d, tries in self._tries.items() if tries > TRIES)

    def next(self, parts: Mapping[str, Part | None]) -> Turn | None:
        """The turn of the domain with the newest change; None if all are to wait for a while."""
        now = time.monotonic()
        ready = {d: newest(p) for d, p in parts.items() if self._not_before.get(d, 0.0) <= now}
        if not ready:
            return None
        domain = max(ready, key=lambda d: (ready[d], d))
        others = max((order for d, order in ready.items() if d != domain), default=-1)
        return Turn(domain, min(others + 1, ready[domain]), self._tries.get(domain, 0) >= TRIES)

    def went_on(self, turn: Turn, parts: Mapping[str, Part | None]) -> bool:
        """Note what came of a turn by what is left. Answers whether it came on."""
        domain = turn.domain
        if domain not in parts or newest(parts[domain]) < turn.from_ns:
            self._tries.pop(domain, None)
            return True
        tries = self._tries[domain] = self._tries.get(domain, 0) + 1
        self._not_before[domain] = time.monotonic() + _PAUSE_S * 2 ** (tries - 1)
        if turn.last:
            self._given_up[domain] = parts[domain]
        return False


def newest(part: Part | None) -> int:
    """The order of a part's newest change; what cannot be read comes first."""
    if part is None:
        return _FIRST
    return max((entry.order_ns for entry in part.entries), default=0)
