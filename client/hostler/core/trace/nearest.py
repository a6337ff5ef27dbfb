"""What somebody may have meant by a name that there is not. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

MOST_CHARACTERS = 64
"""Longer names are compared by their beginning: comparing takes time."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """`; did you mean NAME?` with the known name that is most like it, or nothing."""
    by_folded = {each.lower(): each for each in sorted(known)}
    close = get_close_matches(name[:MOST_CHARACTERS].lower(), by_folded, n=1, cutoff=0.6)
    return f"; did you mean {by_folded[close[0]]}?" if close else ""
