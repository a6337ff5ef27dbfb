"""What belongs to a file beside its contents, how it is seen and how it is given to a copy.

A file is named by an open folder and its name there: no symlink on the way can be swapped.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass

MAX_DEPTH = 256
"""Folders in each other. Two of each are open at a time, and a process may open 1024 files."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_TICK_S = 0.001
_MAX_TICKS = 20


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a copy has to have in common with its source; ACLs are among the xattrs.

    `mode` has the type too. `size_bytes` is that of a regular file, `device` the number of a device
    node, `link` what a symlink says; they are 0 or empty for all others.
    """

    mode: int
    uid: int
    gid: int
    size_bytes: int
    mtime_ns: int
    atime_ns: int
    device: int
    link: str
    xattrs: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """A file as it was seen: `version` is another as soon as anybody changes it."""

    attributes: Attributes
    inode: tuple[int, int]
    version: tuple[int, ...]
    links: int


def look(folder: int, name: str) -> Seen:
    """See a file, symlinks not followed. Raises OSError."""
    status = _settled(folder, name)
    kind = stat.S_IFMT(status.st_mode)
    attributes = Attributes(
        mode=status.st_mode,
        uid=status.st_uid,
        gid=status.st_gid,
        size_bytes=status.st_size if kind == stat.S_IFREG else 0,
        mtime_ns=status.st_mtime_ns,
        atime_ns=status.st_atime_ns,
        device=status.st_rdev if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0,
        link=os.readlink(name, dir_fd=folder) if kind == stat.S_IFLNK else "",
        xattrs=_xattrs(folder, name),
    )
    inode = (status.st_dev, status.st_ino)
    return Seen(attributes, inode, version_of(status), status.st_nlink)


def version_of(status: os.stat_result) -> tuple[int, ...]:
    """What differs once a file was changed, or another one took its name."""
    return (
        status.st_dev,
        status.st_ino,
        status.st_mode,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def give(folder: int, name: str, wanted: Attributes) -> None:
    """Give a new file its attributes. Raises OSError for one that it cannot have.

    The order matters: a new owner takes away capabilities and set-id bits, an ACL changes the mode,
    and a mode may forbid the rest.
    """
    have = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if (have.st_uid, have.st_gid) != (wanted.uid, wanted.gid):
        os.chown(name, wanted.uid, wanted.gid, dir_fd=folder, follow_symlinks=False)
    for key, value in wanted.xattrs:
        os.setxattr(_path(folder, name), key, value, follow_symlinks=False)
    if not stat.S_ISLNK(wanted.mode):
        os.chmod(name, stat.S_IMODE(wanted.mode), dir_fd=folder)
    times = (wanted.atime_ns, wanted.mtime_ns)
    os.utime(name, ns=times, dir_fd=folder, follow_symlinks=False)


def forget_acls(folder: int) -> None:
    """Take the ACLs from an open folder that inherited them: what is made in it inherits none."""
    for key in ("system.posix_acl_default", "system.posix_acl_access"):
        try:
            os.removexattr(folder, key)
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
                raise


def open_folder(name: str, within: int | None = None) -> int:
    """Open a folder that is no symlink, and leave its access time if the system lets us."""
    return _without_atime(name, _FOLDER, within)


def open_file(name: str, within: int) -> int:
    """Open a regular file to read. What became a FIFO meanwhile does not hold us."""
    return _without_atime(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, within)


def names(folder: int) -> list[str]:
    """What is in an open folder, sorted."""
    return sorted(os.listdir(folder))


def walk(folder: int, name: str, path: str = "") -> Iterator[tuple[str, int, str]]:
    """Name a file, then what is in it: its path, and its open folder and name there for now."""
    yield path, folder, name
    if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        return
    opened = open_folder(name, folder)
    try:
        for one in names(opened):
            yield from walk(opened, one, f"{path}/{one}" if path else one)
    finally:
        os.close(opened)


def _without_atime(name: str, flags: int, within: int | None) -> int:
    try:
        return os.open(name, flags | os.O_NOATIME, dir_fd=within)
    except PermissionError:  # O_NOATIME is the owner's right.
        return os.open(name, flags, dir_fd=within)


def _settled(folder: int, name: str) -> os.stat_result:
    # The kernel stamps changes with a clock that moves each few milliseconds: what was changed in
    # this tick could be changed once more without another stamp.
    for _ in range(_MAX_TICKS):
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if status.st_ctime_ns != time.clock_gettime_ns(_COARSE):
            break
        time.sleep(_TICK_S)
    return status


_COARSE = 5  # CLOCK_REALTIME_COARSE, for which Python has no name. Source: time.h of Linux.


def _xattrs(folder: int, name: str) -> tuple[tuple[str, bytes], ...]:
    path = _path(folder, name)
    try:
        keys = os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return ()
        raise
    return tuple((key, os.getxattr(path, key, follow_symlinks=False)) for key in sorted(keys))


def _path(folder: int, name: str) -> str:
    # The calls for xattrs take no folder.
    return f"/proc/self/fd/{folder}/{name}"
