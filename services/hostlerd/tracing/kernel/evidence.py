"""Finds out what tasks wait for: each thing where the kernel shows it, and only where needed."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from hostlerd.tracing.kernel import freezers, locks, proc
from hostlerd.tracing.kernel.descriptors import Openers, access_of, target
from hostlerd.tracing.kernel.futexes import futex
from hostlerd.tracing.kernel.mounts import Mounts, used
from hostlerd.tracing.kernel.peers import Peers
from hostlerd.tracing.kernel.processes import process
from hostlerd.tracing.kernel.servers import of_device
from hostlerd.tracing.model.evidence import (
    Evidence,
    Filesystem,
    Futex,
    Opener,
    Peer,
    Target,
    TargetKind,
)
from hostlerd.tracing.model.task import Call, Task

_MOST_PATH_BYTES = 4096
_MOST_FILES = 200
_LOCK_CALLS = frozenset(("flock", "fcntl", "fcntl64"))
# Those that are about a path which they have not opened yet.
_FIFO_WAITS = frozenset(("wait_for_partner", "fifo_open"))
_WITH_OPENERS = frozenset((TargetKind.PIPE, TargetKind.FIFO, TargetKind.DEVICE))


@dataclass
class Collector:
    """Collects evidence about the waits of one diagnosis."""

    mounts: Mounts = field(default_factory=Mounts)
    openers: Openers = field(default_factory=Openers)

    def __post_init__(self) -> None:
        self.peers = Peers(self.openers)
        self._targets: dict[int, Target] = {}
        self._futexes: dict[int, Futex] = {}
        self._opened: dict[int, tuple[Opener, ...]] = {}
        self._peers: dict[int, Peer] = {}
        self._lock_holders: dict[int, tuple[int, ...]] = {}
        self._servers: dict[int, tuple[int, ...]] = {}
        self._tracers: dict[int, int] = {}
        self._wchans: dict[int, str] = {}

    @cached_property
    def _locks(self) -> list[locks.FileLock]:
        return locks.read()

    def collect(self, waiting: Iterable[Task], others: Iterable[int] = ()) -> Evidence:
        """Look into tasks that wait; `others` are processes that are only to be named."""
        named = set(others)
        for task in waiting:
            named.add(task.pid)
            self._look(task)
        holders = self._holders()
        named |= holders
        return Evidence(
            targets=self._targets,
            futexes=self._futexes,
            openers=self._opened,
            hidden=self.openers.hidden,
            peers=self._peers,
            lock_holders=self._lock_holders,
            servers=self._servers,
            tracers=self._tracers,
            wchans=self._wchans,
            frozen=freezers.frozen(),
            processes={pid: process(pid) for pid in named},
            writes_to={pid: place for pid in holders if (place := self._fullest(pid))},
        )

    def _look(self, task: Task) -> None:
        tid, call = task.tid, task.call
        folder = f"/proc/{task.pid}/task/{tid}"
        wchan = proc.text(f"{folder}/wchan").strip()
        self._wchans[tid] = "" if wchan == "0" else wchan
        if task.state == "t":
            self._tracers[tid] = int(proc.fields(f"{folder}/status").get("TracerPid", "0"))
        if call is None:
            return
        if call.waits_on_futex:
            self._futexes[tid] = futex(task)
        found = self._target(task)
        if found is not None:
            self._targets[tid] = found
            self._look_at_target(task, call, found)

    def _look_at_target(self, task: Task, call: Call, found: Target) -> None:
        """Find out who else has to do with what a call is about."""
        tid = task.tid
        if found.device and (servers := of_device(found.device, self.peers)):
            self._servers[tid] = servers
        if call.name in _LOCK_CALLS:
            self._look_at_locks(task, found)
        elif found.kind is TargetKind.SOCKET:
            if peer := self.peers.of(task.pid, found.name):
                self._peers[tid] = peer
        elif found.kind in _WITH_OPENERS:
            self._opened[tid] = self.openers.of(found.name)
        elif found.kind is TargetKind.TERMINAL and call.fd is not None:
            self._opened[tid] = self.openers.of_master(task.pid, call.fd, self.mounts)
        elif found.filesystem and found.filesystem.type.startswith("fuse"):
            # Which server has which mount the kernel does not tell.
            self._opened[tid] = self.openers.of("/dev/fuse")

    def _target(self, task: Task) -> Target | None:
        call = task.call
        if call is None:
            return None
        if call.fd is not None:
            return target(task.pid, call.fd, self.mounts)
        if call.path is None:
            return None
        path = self._path(task, call.path)
        if not path:
            return None
        mount = self.mounts.above(task.pid, path)
        if self._wchans[task.tid] in _FIFO_WAITS:
            return Target(TargetKind.FIFO, path)
        if mount is None:
            return Target(TargetKind.FILE, path)
        return Target(TargetKind.FILE, path, mount.filesystem, mount.block_device)

    def _path(self, task: Task, address: int) -> str:
        """A path in the memory of a task, made whole by its folder; "" if it cannot be read."""
        try:
            fd = os.open(f"/proc/{task.pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return ""
        try:
            # Not over the end of its page: the next one may not be there.
            room = _MOST_PATH_BYTES - address % _MOST_PATH_BYTES
            data = os.pread(fd, room, address)
        except (OSError, OverflowError):
            return ""
        finally:
            os.close(fd)
        path = data.partition(b"\0")[0].decode("utf-8", "replace")
        return posixpath.normpath(posixpath.join(proc.link(f"/proc/{task.pid}/cwd"), path))

    def _look_at_locks(self, task: Task, found: Target) -> None:
        held = locks.holders(self._locks, task.pid, self._place(task))
        if held is None:
            return
        opened = [(o.pid, o.fd) for o in self.openers.of(found.name)]
        owners = (pid for lock in held for pid in locks.owners(lock, opened))
        self._lock_holders[task.tid] = tuple(dict.fromkeys(owners))

    def _place(self, task: Task) -> str:
        """Where the file of a call is, in the words of /proc/locks."""
        fd = task.call.fd if task.call else None
        info = proc.fields(f"/proc/{task.pid}/fdinfo/{fd}")
        mount = self.mounts.of(task.pid).get(info.get("mnt_id", ""))
        if mount is None or "ino" not in info:
            return ""
        major, _, minor = mount.numbers.partition(":")
        return f"{int(major):02x}:{int(minor):02x}:{info['ino']}"

    def _holders(self) -> set[int]:
        found = {pid for pids in self._lock_holders.values() for pid in pids}
        found |= {opener.pid for opened in self._opened.values() for opener in opened}
        found |= {pid for peer in self._peers.values() for pid in peer.pids}
        found |= {pid for pids in self._servers.values() for pid in pids}
        found |= {pid for each in self._futexes.values() for pid in each.mapped_by}
        return found | set(self._tracers.values())

    def _fullest(self, pid: int) -> Filesystem | None:
        """The fullest file system that a process writes files of."""
        best: Filesystem | None = None
        seen: set[str] = set()
        for fd in proc.numbers(f"/proc/{pid}/fd")[:_MOST_FILES]:
            found = target(pid, fd, self.mounts)
            place = found.filesystem if found and found.kind is TargetKind.FILE else None
            if place is None or place.mount_point in seen or not access_of(pid, fd)[1]:
                continue
            seen.add(place.mount_point)
            place = used(f"/proc/{pid}/fd/{fd}", place)
            if best is None or (place.used_percent or 0) > (best.used_percent or 0):
                best = place
        return best
