"""Which processes are in which network namespace."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Found:
    """PIDs by the inode of their network namespace; `truncated` if there are more than these."""

    by_inode: Mapping[int, Sequence[int]]
    truncated: bool = False


Tasks = Callable[[int], Found]
"""Finds what is in the network namespace of that inode, in all for 0."""


def proc_tasks(inode: int) -> Found:
    """Read it from /proc. Only root sees the processes of all users: see proc(5), ptrace access."""
    found: dict[int, list[int]] = defaultdict(list)
    for pid in sorted(int(p) for p in os.listdir("/proc") if p.isdigit()):  # noqa: PTH208
        with suppress(OSError):
            seen = Path(f"/proc/{pid}/ns/net").stat().st_ino
            if not inode or seen == inode:
                found[seen].append(pid)
    return Found(found)
