"""Checks of filesystems that are not mounted, by their own tools, which only read then.

What such a tool reads may be hostile: it runs with the daemon's small privileges, not with root's.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hostlerd.storage.errors import DeviceBusy, ToolFailed
from hostlerd.storage.kernel.tool import run

_TIMEOUT_S = 3600.0
_SAID_MOST = 16 << 10


@dataclass(frozen=True, slots=True)
class Checked:
    """What a tool found."""

    clean: bool
    said: str


@dataclass(frozen=True, slots=True)
class _Checker:
    """A tool, and with which status it ends where there is something to repair."""

    argv: Callable[[str], tuple[str, ...]]
    faulty: frozenset[int]


#: Source: e2fsck(8), btrfs-check(8), xfs_repair(8), fsck.fat(8).
_CHECKERS: Mapping[str, _Checker] = {
    "ext4": _Checker(lambda path: ("/usr/sbin/e2fsck", "-f", "-n", path), frozenset({4, 12})),
    "btrfs": _Checker(lambda path: ("/usr/bin/btrfs", "check", "--readonly", path), frozenset({1})),
    "xfs": _Checker(lambda path: ("/usr/sbin/xfs_repair", "-n", path), frozenset({1})),
    "vfat": _Checker(lambda path: ("/usr/sbin/fsck.vfat", "-n", path), frozenset({1})),
}


def check(name: str, kind: str) -> Checked:
    """Check the filesystem of a kind on a device. Raises DeviceBusy, ToolFailed."""
    path = str(Path("/dev") / name.replace("!", "/"))
    checker = _CHECKERS[kind]
    try:
        # Nobody can mount it while it is claimed here; the tools that only read do not claim it.
        claim = os.open(path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC)
    except OSError as e:
        if e.errno != errno.EBUSY:
            raise
        raise DeviceBusy(f"{name} is in use: check it when it is not", device=name) from e
    try:
        answer = run(checker.argv(path), _TIMEOUT_S)
    finally:
        os.close(claim)
    said = f"{answer.output}{answer.errors}".strip()[-_SAID_MOST:]
    if answer.status not in (0, *checker.faulty):
        tool = checker.argv(path)[0]
        raise ToolFailed(f"{tool} ended with status {answer.status}", tool=tool, stderr=said)
    return Checked(answer.status == 0, said)
