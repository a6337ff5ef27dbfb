"""Files by the descriptor of their folder, reached without following a link on the way.

Below a configured folder, a name that is a link is refused: whoever may write there must not send
root's hand elsewhere. Source: openat(2), O_NOFOLLOW.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import PurePosixPath

from hostlerd.privileged.refused import Refused

MAX_FILE_BYTES = 4 << 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW


@contextmanager
def opened(home: PurePosixPath, path: PurePosixPath) -> Iterator[int]:
    """Open the folder of `path`, below `home`; it must be there. Raises Refused."""
    try:
        fd = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as e:
        raise Refused("NO_FOLDER", f"{home}: {e.strerror}") from e
    try:
        for part in path.parent.relative_to(home).parts:
            try:
                inner = os.open(part, _FOLDER, dir_fd=fd)
            except OSError as e:
                words = f"{part!r} on the way to {path}: {e.strerror}, or it is a link"
                raise Refused("NO_FOLDER", words) from e
            os.close(fd)
            fd = inner
        yield fd
    finally:
        os.close(fd)


def kind_of(folder: int, name: str) -> str:
    """Say what a name stands for: "" for nothing, "file", or "other", links among them."""
    try:
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return ""
    return "file" if stat.S_ISREG(mode) else "other"


def read(folder: int, name: str) -> bytes | None:
    """Read a regular file of bounded size; None if there is none. Raises Refused, OSError."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        fd = os.open(name, flags, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as e:
        if e.errno == errno.ELOOP:
            raise Refused("NOT_A_FILE", f"{name} is a link") from None
        raise
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise Refused("NOT_A_FILE", f"{name} is not a regular file")
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise Refused("NOT_A_FILE", f"{name} is larger than {MAX_FILE_BYTES} bytes")
    return data


def write_new(folder: int, name: str, data: bytes, mode: int, uid: int = -1, gid: int = -1) -> None:
    """Make a file, whole and on disk; what lies there already is removed first. Raises OSError.

    It gets owner and mode before it gets its contents, and never more than the owner's before.
    """
    remove(folder, name)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(name, flags, 0o600, dir_fd=folder)
    with os.fdopen(fd, "wb") as file:
        os.fchown(fd, uid, gid)
        os.fchmod(fd, mode)
        file.write(data)
        file.flush()
        os.fsync(fd)


def remove(folder: int, name: str) -> None:
    """Remove a name if it is there."""
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)


def owner_and_mode(folder: int, name: str) -> tuple[int, int, int]:
    """Answer user, group and permissions of a name. Raises OSError."""
    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    return found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)


def user_id(name: str, path: str) -> int:
    """Answer the number of a user. Raises Refused."""
    try:
        return int(name) if name.isdigit() else pwd.getpwnam(name).pw_uid
    except KeyError:
        raise Refused("INVALID", f"there is no user {name}", [(path, "is not known")]) from None


def group_id(name: str, path: str) -> int:
    """Answer the number of a group. Raises Refused."""
    try:
        return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise Refused("INVALID", f"there is no group {name}", [(path, "is not known")]) from None
