"""Copies of files: what is there before, how they end."""

from __future__ import annotations

import re
from dataclasses import dataclass

ORIGIN = re.compile(r"[^\x00-\x1f\x7f]{1,4096}")
"""What a stream is a copy of, as whoever sends it says."""


BURN_BYTES_LEAST, BURN_BYTES_MOST = 1 << 20, 4 << 40
BURN_ROUNDS_MOST = 10_000


@dataclass(frozen=True, slots=True)
class Seen:
    """What is there before a copy.

    `kind` is the source's: "file", "folder", "link" or "node". `left` says what a copy that was
    cut off has left for the target: "same" what this one goes on with, "other" what it removes.
    """

    kind: str
    left: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a copy, or a look at one, ended; the bytes are those of `hostler.core.copying`."""

    entries: int = 0
    files: int = 0
    size_bytes: int = 0
    stored_bytes: int = 0
    resumed_bytes: int = 0
    begun_anew: bool = False
    digest: str = ""
    rounds: int = 0
    written_bytes: int = 0
    read_bytes: int = 0
    unix_s: int = 0
    seconds: float = 0.0
    reason: str = ""
    message: str = ""
