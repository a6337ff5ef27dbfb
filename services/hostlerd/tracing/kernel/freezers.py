"""Which processes are in frozen control groups. Sources: cgroup-v1/freezer-subsystem, cgroup-v2."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator

from hostlerd.tracing.kernel import proc

_MOST_GROUPS = 20_000
# Version 1 says so in one file of each group, version 2 in another.
_V1 = ("freezer.state", ("FROZEN", "FREEZING"))
_V2 = ("cgroup.events", ("frozen 1",))
_Sign = tuple[str, tuple[str, ...]]


def frozen() -> dict[int, str]:
    """The frozen group of each process that is in one, by process.

    It is the outermost one: whoever freezes a group freezes what is in those below it.
    """
    found: dict[int, str] = {}
    for root, sign in _hierarchies():
        frozen_by: dict[str, str] = {}
        for folder in _groups(root):
            if _is_frozen(folder, sign):
                above = frozen_by.get(posixpath.dirname(folder))
                name = frozen_by[folder] = above or folder.removeprefix(root) or "/"
                # Not cgroup.threads: a frozen group takes its processes whole.
                for line in proc.text(f"{folder}/cgroup.procs", proc.MOST_BYTES).split():
                    found.setdefault(int(line), name)
    return found


def _hierarchies() -> Iterator[tuple[str, _Sign]]:
    """Where hierarchies are mounted whose groups can be frozen, and what says that one is."""
    for line in proc.text("/proc/self/mountinfo", proc.MOST_BYTES).splitlines():
        head, _, tail = line.partition(" - ")
        words = tail.split(" ")
        place = head.split(" ")[4]
        if words[0] == "cgroup2":
            yield place, _V2
        elif words[0] == "cgroup" and "freezer" in words[-1].split(","):
            yield place, _V1


def _groups(root: str) -> Iterator[str]:
    """All groups below a root, the outer ones first."""
    waiting, count = [root], 0
    while waiting and count < _MOST_GROUPS:
        folder = waiting.pop(0)
        count += 1
        yield folder
        try:
            with os.scandir(folder) as entries:
                waiting.extend(e.path for e in entries if e.is_dir(follow_symlinks=False))
        except OSError:
            continue


def _is_frozen(folder: str, sign: _Sign) -> bool:
    name, words = sign
    told = proc.text(f"{folder}/{name}", 4096)
    return any(word in told for word in words)
