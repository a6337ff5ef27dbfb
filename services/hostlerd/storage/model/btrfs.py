"""What btrfs is made of: profiles, subvolumes, and what goes on for long."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PATH_BYTES_MOST = 1024
NAME_BYTES_MOST = 255
TOP_ID = 5
"""The subvolume that has no name and holds all others."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Profile:
    """How chunks are laid out: how many lost devices they survive, how many devices they need.

    Source: mkfs.btrfs(8), PROFILES; Linux include/uapi/linux/btrfs_tree.h for the bit.
    """

    losses: int
    least_devices: int
    bit: int


PROFILES: Mapping[str, Profile] = {
    "single": Profile(0, 1, 1 << 48),
    "dup": Profile(0, 1, 1 << 5),
    "raid0": Profile(0, 1, 1 << 3),
    "raid1": Profile(1, 2, 1 << 4),
    "raid1c3": Profile(2, 3, 1 << 9),
    "raid1c4": Profile(3, 4, 1 << 10),
    "raid10": Profile(1, 2, 1 << 6),
    "raid5": Profile(1, 2, 1 << 7),
    "raid6": Profile(2, 3, 1 << 8),
}


@dataclass(frozen=True, slots=True)
class Subvolume:
    """A subvolume; `path` is from the top, UUIDs are empty where there is none."""

    id: int
    path: str
    parent_id: int
    uuid: str = ""
    source_uuid: str = ""
    received_uuid: str = ""
    is_read_only: bool = False
    generation: int = 0
    created_generation: int = 0
    created_unix_s: int = 0


@dataclass(frozen=True, slots=True)
class Work:
    """Something that goes on for long, or has ended: what it came to.

    `state` is "running", "done", "failed", or "none" if nothing is known of such a thing. `counts`
    has, for each device by its id, what a scrub has counted there.
    """

    kind: str
    state: str
    done: int = 0
    total: int = 0
    error: str = ""
    is_cancelled: bool = False
    counts: Mapping[int, Mapping[str, int]] | None = None

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Work:
        """Read what JSON tells of one. Raises KeyError, TypeError, ValueError."""
        counts = told.get("counts") or {}
        return cls(**{**told, "counts": {int(key): dict(one) for key, one in counts.items()}})


def path_fault(path: str) -> str:
    """Say why a subvolume cannot have that path from the top; empty if it can."""
    if not path or len(path.encode(errors="replace")) > PATH_BYTES_MOST:
        return f"must have 1 to {PATH_BYTES_MOST} bytes"
    if _CONTROL.search(path) or any("\ud800" <= c <= "\udfff" for c in path):
        return "must be UTF-8 without control characters"
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return "must be names with / between them, none of them . or .., and no / around them"
    if any(len(part.encode()) > NAME_BYTES_MOST for part in parts):
        return f"has a name of over {NAME_BYTES_MOST} bytes"
    return ""
