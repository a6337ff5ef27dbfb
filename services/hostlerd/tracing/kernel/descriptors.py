"""What descriptors refer to, and who else has the same thing open."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain

from hostlerd.tracing.kernel import proc
from hostlerd.tracing.kernel.mounts import Mounts
from hostlerd.tracing.model.evidence import Opener, Target, TargetKind

_MOST_DESCRIPTORS = 1_000_000
_MASTERS = ("/dev/ptmx", "/dev/pts/ptmx")
_ACCESS_MODE = os.O_RDONLY | os.O_WRONLY | os.O_RDWR


def access_of(pid: int, fd: int) -> tuple[bool, bool]:
    """Whether a descriptor is open to read, and to write. Source: proc(5), fdinfo."""
    flags = proc.fields(f"/proc/{pid}/fdinfo/{fd}").get("flags", "0")
    mode = int(flags, 8) & _ACCESS_MODE
    return mode != os.O_WRONLY, mode != os.O_RDONLY


def target(pid: int, fd: int, mounts: Mounts) -> Target | None:
    """What a descriptor refers to; None if it is gone."""
    name = proc.link(f"/proc/{pid}/fd/{fd}")
    if name.startswith("pipe:["):
        return Target(TargetKind.PIPE, name)
    if name.startswith("socket:["):
        return Target(TargetKind.SOCKET, name)
    if not name.startswith("/"):
        return Target(TargetKind.OTHER, name) if name else None
    mount_id = proc.fields(f"/proc/{pid}/fdinfo/{fd}").get("mnt_id", "")
    mount = mounts.of(pid).get(mount_id)
    if mount is None:
        return Target(TargetKind.FILE, name)
    filesystem = mount.filesystem
    if not mount.is_safe:
        return Target(TargetKind.FILE, name, filesystem, mount.block_device)
    return _of_kind(
        f"/proc/{pid}/fd/{fd}", Target(TargetKind.FILE, name, filesystem, mount.block_device)
    )


def _of_kind(path: str, found: Target) -> Target:
    """Tell devices and FIFOs from files, where asking the file system cannot hang."""
    try:
        seen = os.stat(path)  # noqa: PTH116 - a link of /proc, which is followed by the kernel
    except OSError:
        return found
    numbers = f"{os.major(seen.st_rdev)}:{os.minor(seen.st_rdev)}"
    if stat.S_ISFIFO(seen.st_mode):
        return Target(TargetKind.FIFO, found.name)
    if stat.S_ISBLK(seen.st_mode):
        return Target(TargetKind.BLOCK_DEVICE, found.name, None, numbers)
    if stat.S_ISCHR(seen.st_mode):
        is_terminal = found.name.startswith(("/dev/tty", "/dev/pts/", "/dev/console", "/dev/hvc"))
        return Target(TargetKind.TERMINAL if is_terminal else TargetKind.DEVICE, found.name)
    return found


def is_master_of(opener: Opener, pid: int, fd: int, mounts: Mounts) -> bool:
    """Whether a descriptor is the master side of the terminal that another one is. Source: pts(4).

    Containers have terminals of the same names, in file systems of their own.
    """
    index = proc.fields(f"/proc/{opener.pid}/fdinfo/{opener.fd}").get("tty-index", "")
    if not index or proc.link(f"/proc/{pid}/fd/{fd}") != f"/dev/pts/{index}":
        return False
    here = _devpts(pid, fd, mounts)
    return bool(here) and here == _devpts(opener.pid, opener.fd, mounts)


def _devpts(pid: int, fd: int, mounts: Mounts) -> str:
    """The numbers of the file system that a terminal is in, "" if that cannot be told."""
    info = proc.fields(f"/proc/{pid}/fdinfo/{fd}")
    mount = mounts.of(pid).get(info.get("mnt_id", ""))
    if mount is None or mount.filesystem.type == "devpts":
        return mount.numbers if mount else ""
    # A device /dev/ptmx is that of what is mounted beside it, last if there are several.
    place = posixpath.join(posixpath.dirname(proc.link(f"/proc/{pid}/fd/{fd}")), "pts")
    beside = [m for m in mounts.of(pid).values() if m.filesystem.mount_point == place]
    return beside[-1].numbers if beside else ""


@dataclass
class Openers:
    """Everything that every process has open, read once and when it is asked for.

    `hidden` counts the processes that do not let it be seen.
    """

    _by_name: Mapping[str, list[tuple[int, int]]] | None = field(default=None)
    hidden: int = 0

    def of(self, name: str) -> tuple[Opener, ...]:
        """Who has something open, by the name that /proc has for it."""
        return tuple(
            Opener(pid, fd, *access_of(pid, fd)) for pid, fd in self._all().get(name, ())[:1000]
        )

    def of_master(self, pid: int, fd: int, mounts: Mounts) -> tuple[Opener, ...]:
        """Who has the master side of a terminal that a process has open."""
        found = chain(*map(self.of, _MASTERS))
        return tuple(each for each in found if is_master_of(each, pid, fd, mounts))

    def holding(self, name: str) -> tuple[int, ...]:
        """Which processes have something open."""
        return tuple(dict.fromkeys(pid for pid, _ in self._all().get(name, ())))

    def _all(self) -> Mapping[str, list[tuple[int, int]]]:
        if self._by_name is None:
            self._by_name, self.hidden = _read(proc.processes())
        return self._by_name


def _read(pids: Iterable[int]) -> tuple[Mapping[str, list[tuple[int, int]]], int]:
    found: dict[str, list[tuple[int, int]]] = {}
    count = hidden = 0
    for pid in pids:
        folder = f"/proc/{pid}/fd"
        try:
            descriptors = proc.shown_numbers(folder)
        except PermissionError:
            hidden += 1
            continue
        except OSError:
            # It has ended.
            continue
        for fd in descriptors:
            if name := proc.link(f"{folder}/{fd}"):
                found.setdefault(name, []).append((pid, fd))
                count += 1
        if count >= _MOST_DESCRIPTORS:
            break
    return found, hidden
