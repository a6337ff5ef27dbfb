"""Handles of network namespaces: /run/netns/NAME, as iproute2 makes and understands them."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from hostlerd.privileged.refused import Refused

from . import libc

NETNS = Path("/run/netns")
NSFS_MAGIC = 0x6E736673
NS_GET_NSTYPE = 0xB703
CLONE_NEWNET = 0x40000000


def attach(names: Sequence[str], fds: Sequence[int]) -> None:
    """Mount each network namespace at its handle; all of them or none.

    Refused: a descriptor that is no network namespace, a name that is in use.
    """
    if len(names) != len(fds):
        raise Refused("MALFORMED", "as many descriptors as names are needed")
    for name, fd in zip(names, fds, strict=True):
        if not is_network_namespace(fd):
            raise Refused("NOT_A_NAMESPACE", f"what came for {name} is no network namespace")
    _make_shared()
    done: list[str] = []
    try:
        for name, fd in zip(names, fds, strict=True):
            _attach(name, fd)
            done.append(name)
    except BaseException:
        detach(done)
        raise


def detach(names: Sequence[str]) -> None:
    """Unmount and remove handles; what is not there is as it should be."""
    for name in names:
        handle = NETNS / name
        with suppress(FileNotFoundError):
            # Something may have been mounted over it; a file that is no mount ends the loop.
            with suppress(OSError):
                while True:
                    libc.umount(str(handle))
            handle.unlink()


def exists(name: str) -> bool:
    """Whether the handle is there and is a network namespace."""
    try:
        fd = os.open(NETNS / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        return is_network_namespace(fd)
    finally:
        os.close(fd)


def inode(name: str) -> int:
    """The number of the namespace behind a handle, as in net:[NUMBER]; 0 if there is none."""
    return (NETNS / name).stat().st_ino if exists(name) else 0


def is_network_namespace(fd: int) -> bool:
    """Ask the kernel, not the name. Source: ioctl_ns(2)."""
    try:
        # The magic comes first: the number of the ioctl may mean anything to another file.
        if libc.filesystem_magic(fd) != NSFS_MAGIC:
            return False
        return fcntl.ioctl(fd, NS_GET_NSTYPE) == CLONE_NEWNET
    except OSError:
        return False


def _attach(name: str, fd: int) -> None:
    handle = NETNS / name
    try:
        os.close(os.open(handle, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0))
    except FileExistsError:
        raise Refused("HANDLE_EXISTS", f"{handle} is in use") from None
    try:
        libc.mount(f"/proc/self/fd/{fd}", str(handle), "none", libc.MS_BIND)
    except BaseException:
        handle.unlink()
        raise


def _make_shared() -> None:
    """Make /run/netns a shared mount point, as ip-netns(8) does, so that others see handles."""
    NETNS.mkdir(mode=0o755, exist_ok=True)
    try:
        libc.mount("", str(NETNS), "none", libc.MS_SHARED | libc.MS_REC)
    except OSError as e:
        if e.errno != errno.EINVAL:
            raise
        libc.mount(str(NETNS), str(NETNS), "none", libc.MS_BIND | libc.MS_REC)
        libc.mount("", str(NETNS), "none", libc.MS_SHARED | libc.MS_REC)
