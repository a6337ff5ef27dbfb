"""Handles of network namespaces: /run/netns/NAME, as ip-netns(8) has them.

A handle is a bind mount. It must be made in the mount namespace of PID 1, where the host looks for
it; the daemon lives in another one and so leaves it to the launcher.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from hostlerd.netns.kernel.syscalls import MS_BIND, MS_REC, MS_SHARED, mount, umount

DIRECTORY = Path("/run/netns")


class Handles(Protocol):
    """Makes and removes handles."""

    def attach_many(self, handles: Sequence[tuple[str, int]]) -> None:
        """Give namespaces, each by a file descriptor of it, their names; all of them or none."""
        ...

    def detach(self, name: str) -> None:
        """Remove a handle; one that is not there is no error."""
        ...


class DirectHandles:
    """Makes handles itself: where the process is in the host's own mount namespace, as root."""

    def attach_many(self, handles: Sequence[tuple[str, int]]) -> None:
        """Mount each; on failure those before it are taken away again. Raises OSError."""
        _make_shared()
        done: list[str] = []
        try:
            for name, fd in handles:
                _attach(name, fd)
                done.append(name)
        except OSError:
            for name in done:
                self.detach(name)
            raise

    def detach(self, name: str) -> None:
        """Unmount and remove the handle."""
        path = DIRECTORY / name
        # EINVAL: a file without a mount, left by something that was killed between the two.
        with suppress(OSError):
            umount(str(path))
        path.unlink(missing_ok=True)


class LauncherHandles:
    """Has handles made by the launcher, in the mount namespace of PID 1."""

    def __init__(self, client: LauncherAttach) -> None:
        self._client = client

    def attach_many(self, handles: Sequence[tuple[str, int]]) -> None:
        """Give the descriptors to the launcher. Raises LauncherRefused."""
        self._client.attach_many(handles)

    def detach(self, name: str) -> None:
        """Ask the launcher to remove the handle. Raises LauncherRefused."""
        self._client.detach(name)


class LauncherAttach(Protocol):
    """What LauncherHandles needs of the launcher's client."""

    def attach_many(self, handles: Sequence[tuple[str, int]]) -> None:
        """Mount namespaces at their handles."""
        ...

    def detach(self, name: str) -> None:
        """Remove a handle."""
        ...


def inodes() -> dict[str, int]:
    """List the handles: the inode of each name's namespace, as in net:[INODE].

    0 means that a file is there and no namespace is mounted on it.
    """
    try:
        names = sorted(os.listdir(DIRECTORY))  # noqa: PTH208 - names are all that is needed
    except FileNotFoundError:
        return {}
    found = {}
    for name in names:
        with suppress(FileNotFoundError):
            found[name] = inode(name)
    return found


def exists(name: str) -> bool:
    """Tell whether a handle is there, or a file left of one."""
    return (DIRECTORY / name).exists()


def inode(name: str) -> int:
    """Answer the inode of a handle's namespace; 0 for a file without one. Raises OSError."""
    seen = (DIRECTORY / name).stat()
    return seen.st_ino if seen.st_dev == _nsfs() else 0


def open_handle(name: str) -> int:
    """Open a namespace by its handle; answer the file descriptor. Raises OSError."""
    return os.open(DIRECTORY / name, os.O_RDONLY | os.O_CLOEXEC)


def _nsfs() -> int:
    return Path("/proc/thread-self/ns/net").stat().st_dev


def _attach(name: str, fd: int) -> None:
    path = DIRECTORY / name
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0))
    except FileExistsError:
        if inode(name):
            raise
    try:
        mount(f"/proc/thread-self/fd/{fd}", str(path), MS_BIND)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _make_shared() -> None:
    """Make the folder a shared mount, so that handles show in every mount namespace."""
    DIRECTORY.mkdir(mode=0o755, parents=True, exist_ok=True)
    try:
        mount("", str(DIRECTORY), MS_SHARED | MS_REC)
    except OSError as e:
        if e.errno != errno.EINVAL:
            raise
        # It is no mount yet. Source: create_netns_dir in iproute2's ipnetns.c.
        mount(str(DIRECTORY), str(DIRECTORY), MS_BIND | MS_REC)
        mount("", str(DIRECTORY), MS_SHARED | MS_REC)
