"""Roots that are not the host's: those of containers, and of units with a root of their own.

Whoever is inside may have put anything there. No link is followed, so that no way leads out: what a
link in there leads to is told under its own name, if a folder that is looked through has it. File
systems that a process serves, or another host, are left alone, for they answer when they like.
Source: openat2(2), RESOLVE_NO_SYMLINKS; proc_pid_mountinfo(5).
"""

from __future__ import annotations

import ctypes
import os
import re
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from hostlerd.ssl.model import cgroup
from hostlerd.ssl.reader import proc

MOST, MOST_FILES_EACH = 200, 20_000
_MOST_DEPTH = 16
_OPENAT2 = 437
# Without links there is but "..", which no path here has, that would lead out.
_NO_SYMLINKS, _BENEATH = 0x04, 0x08
_MOUNTINFO_BYTES = 4 << 20
_LOCAL = frozenset(
    (
        *("ext2", "ext3", "ext4", "xfs", "btrfs", "overlay", "tmpfs", "ramfs", "squashfs"),
        *("f2fs", "zfs", "bcachefs", "erofs", "iso9660", "vfat", "exfat"),
    )
)
_ESCAPED = re.compile(rb"\\([0-3][0-7]{2})")
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Root:
    """A root: a descriptor of it, whose it is, and which folders in it are not looked into."""

    fd: int
    name: str
    forbidden: frozenset[str]

    def open(self, path: str, flags: int) -> int:
        """Open what has this path in there, links aside. Raises OSError."""
        how = struct.pack("=QQQ", flags | os.O_CLOEXEC, 0, _NO_SYMLINKS | _BENEATH)
        name = os.fsencode(path.lstrip("/") or ".")
        found = _libc.syscall(
            ctypes.c_long(_OPENAT2), self.fd, name, how, ctypes.c_size_t(len(how))
        )
        if found < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)
        return int(found)

    def may_enter(self, folder: str) -> bool:
        """Whether a folder, by its path in there, is on a file system that answers by itself."""
        parts = folder.rstrip("/").split("/")
        return not any("/".join(parts[:n]) in self.forbidden for n in range(1, len(parts) + 1))


@contextmanager
def opened(pid: int) -> Iterator[Root]:
    """The root of a process, as long as the block goes. Raises OSError."""
    fd = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        path = proc.cgroup(pid)
        name = cgroup.container_of(path) or cgroup.unit_of(path) or proc.comm(pid)
        yield Root(fd, name, forbidden(proc.read(f"/proc/{pid}/mountinfo", _MOUNTINFO_BYTES)))
    finally:
        os.close(fd)


def forbidden(mountinfo: bytes) -> frozenset[str]:
    """Where file systems are mounted that are not local; "" is the root itself."""
    if len(mountinfo) >= _MOUNTINFO_BYTES:
        # There is more of it, and nobody knows what.
        return frozenset({""})
    found = {}
    for line in mountinfo.splitlines():
        before, dash, after = line.partition(b" - ")
        words = before.split(b" ")
        if dash and len(words) > 4:
            place = _ESCAPED.sub(lambda m: bytes([int(m[1], 8)]), words[4])
            # The last of those at one place is what is seen there.
            found[os.fsdecode(place).rstrip("/")] = after.split(b" ")[0].decode("latin-1")
    return frozenset(place for place, kind in found.items() if kind not in _LOCAL)


def files(root: Root, folders: Sequence[str]) -> Iterator[str]:
    """The regular files below folders of a root, in order, by their paths in there."""
    waiting = [(folder.rstrip("/"), 0) for folder in reversed(folders)]
    seen: set[str] = set()
    while waiting:
        folder, depth = waiting.pop()
        if folder in seen or not root.may_enter(folder):
            continue
        seen.add(folder)
        try:
            fd = root.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK)
        except OSError:
            continue
        try:
            with os.scandir(fd) as entries:
                inner = sorted(entries, key=lambda e: e.name)
            kinds = [(e.name, e.is_dir(follow_symlinks=False)) for e in inner if _is_plain(e)]
        finally:
            os.close(fd)
        waiting += [
            (f"{folder}/{name}", depth + 1)
            for name, is_dir in reversed(kinds)
            if is_dir and depth < _MOST_DEPTH
        ]
        yield from (f"{folder}/{name}" for name, is_dir in kinds if not is_dir)


def _is_plain(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or a regular file."""
    return entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False)


def pids(processes: Sequence[int]) -> list[int]:
    """The first process of each root that is not the host's."""
    # The reader's own root is the host's, whatever is mounted in it.
    status = os.stat("/")  # noqa: PTH116
    seen = {(status.st_dev, status.st_ino)}
    found = []
    for pid in processes:
        try:
            status = os.stat(f"/proc/{pid}/root")  # noqa: PTH116
        except OSError:
            continue
        key = (status.st_dev, status.st_ino)
        if key not in seen:
            seen.add(key)
            found.append(pid)
    return found
