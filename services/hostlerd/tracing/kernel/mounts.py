"""Mounts of processes, the devices behind them, and how full they are. Source: proc(5)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from hostlerd.tracing.kernel import proc
from hostlerd.tracing.model.evidence import Filesystem

# Asking these never waits for a device or a server: what is asked for is in memory.
_SAFE = frozenset(
    (
        *("ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "vfat", "tmpfs", "devtmpfs", "ramfs"),
        *("overlay", "squashfs", "erofs", "rootfs", "devpts", "proc", "sysfs", "mqueue", "debugfs"),
        *("tracefs", "cgroup", "cgroup2", "securityfs", "hugetlbfs"),
    )
)
_ESCAPES = {"\\040": " ", "\\011": "\t", "\\012": "\n", "\\134": "\\"}


@dataclass(frozen=True, slots=True)
class Mount:
    """A mount, with the numbers that its files have in /proc/locks.

    `block_device` has the numbers of the device behind it, "" if there is none.
    """

    filesystem: Filesystem
    numbers: str
    block_device: str

    @property
    def is_safe(self) -> bool:
        """Whether asking about its files cannot hang."""
        return self.filesystem.type in _SAFE


class Mounts:
    """The mounts that processes see, each mount namespace read once."""

    def __init__(self) -> None:
        self._by_namespace: dict[str, Mapping[str, Mount]] = {}

    def of(self, pid: int) -> Mapping[str, Mount]:
        """The mounts of a process by their ids."""
        namespace = proc.link(f"/proc/{pid}/ns/mnt") or str(pid)
        if namespace not in self._by_namespace:
            content = proc.text(f"/proc/{pid}/mountinfo", proc.MOST_BYTES)
            self._by_namespace[namespace] = dict(map(_parse, content.splitlines()))
        return self._by_namespace[namespace]

    def above(self, pid: int, path: str) -> Mount | None:
        """The mount that a path of a process lies on; None if that cannot be told."""
        best: Mount | None = None
        for mount in self.of(pid).values():
            place = mount.filesystem.mount_point.rstrip("/")
            longest = len(best.filesystem.mount_point.rstrip("/")) if best else -1
            if (path == place or path.startswith(f"{place}/")) and len(place) >= longest:
                best = mount
        return best


def used(path: str, filesystem: Filesystem) -> Filesystem:
    """Answer the file system that a path lies on with how much of it is used, as df(1) counts."""
    if filesystem.type not in _SAFE:
        return filesystem
    with suppress(OSError):
        told = os.statvfs(path)
        taken = told.f_blocks - told.f_bfree
        if whole := taken + told.f_bavail:
            return replace(filesystem, used_percent=100 * taken / whole)
    return filesystem


def _parse(line: str) -> tuple[str, Mount]:
    words = line.split(" ")
    kind, source = words[words.index("-") + 1 :][:2]
    for escape, character in _ESCAPES.items():
        words[4] = words[4].replace(escape, character)
    device = words[2] if not words[2].startswith("0:") else _numbers_of(source)
    return words[0], Mount(Filesystem(words[4], kind, source), words[2], device)


def _numbers_of(source: str) -> str:
    """The numbers of a device by its name, for file systems that have numbers of their own."""
    if not source.startswith("/dev/"):
        return ""
    return proc.text(
        f"/sys/class/block/{source.removeprefix('/dev/').replace('/', '!')}/dev"
    ).strip()
