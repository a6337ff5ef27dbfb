"""Root asks for a revert: what the removal of the packages does while something is pending."""

from __future__ import annotations

import sys
import time

from .documents import DOMAINS
from .place import Place

TIMEOUT_S = 120.0
_POLL_S = 0.1


def is_pending(place: Place) -> bool:
    """Whether there is a group, or what is left of one."""
    names = (place.group, place.reverting, place.kept, *(place.part(d) for d in DOMAINS))
    return any(path.exists() for path in names)


def revert(place: Place, timeout_s: float = TIMEOUT_S) -> None:
    """Have whatever is pending taken back at once, and wait. Exits with a message if it stays."""
    if not is_pending(place):
        return
    place.asked.touch(mode=0o600)
    end = time.monotonic() + timeout_s
    while is_pending(place):
        if time.monotonic() > end:
            sys.exit("a pending change is still being taken back; see hostler-pending.service")
        time.sleep(_POLL_S)
