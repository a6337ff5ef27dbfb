"""The calls of libc that Python has no name for. Each raises OSError with the errno.

Source: section 2 of the manual, under their names.
"""

from __future__ import annotations

import ctypes
import os

_LIBC = ctypes.CDLL(None, use_errno=True)

MS_NOSUID, MS_NODEV, MS_NOEXEC = 0x2, 0x4, 0x8
MS_BIND, MS_REC, MS_SLAVE, MS_SHARED = 0x1000, 0x4000, 0x80000, 0x100000
MNT_DETACH, UMOUNT_NOFOLLOW = 0x2, 0x8
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWPID = 0x20000, 0x4000000, 0x20000000
PR_SET_PDEATHSIG, PR_SET_NAME, PR_CAPBSET_DROP = 1, 15, 24


def _checked(result: int, what: str = "") -> int:
    if result < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno), what or None)
    return result


def mount(source: str, target: str, fstype: str, flags: int) -> None:
    """Mount, without data."""
    result = _LIBC.mount(
        os.fsencode(source),
        os.fsencode(target),
        fstype.encode(),
        ctypes.c_ulong(flags),
        None,
    )
    _checked(result, target)


def umount(target: str) -> None:
    """Take off the uppermost mount, at once, even if it is in use. umount2(2)."""
    _checked(_LIBC.umount2(os.fsencode(target), MNT_DETACH | UMOUNT_NOFOLLOW), target)


def unshare(flags: int) -> None:
    """Leave namespaces for new ones."""
    _checked(_LIBC.unshare(flags))


def setns(path: str, kind: int) -> None:
    """Join the namespace of that kind at the path."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _checked(_LIBC.setns(fd, kind), path)
    finally:
        os.close(fd)


def prctl(option: int, value: int) -> None:
    """Set one number of this process."""
    zero = ctypes.c_ulong(0)
    _checked(_LIBC.prctl(option, ctypes.c_ulong(value), zero, zero, zero))


def set_name(name: str) -> None:
    """Set what /proc/PID/comm says of this process."""
    _checked(_LIBC.prctl(PR_SET_NAME, ctypes.c_char_p(name.encode()[:15]), 0, 0, 0))


def filesystem_magic(fd: int) -> int:
    """The f_type of the filesystem that the file is on. fstatfs(2)."""
    # struct statfs begins with the long f_type and is well below 512 bytes on every architecture.
    buffer = (ctypes.c_long * 64)()
    _checked(_LIBC.fstatfs(fd, buffer))
    return int(buffer[0])
