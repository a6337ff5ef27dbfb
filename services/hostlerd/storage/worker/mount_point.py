"""Mount points: made where they are missing, and removed again."""

from __future__ import annotations

import errno
import os
from pathlib import PurePosixPath

from hostlerd.storage.worker.refused import Refused

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def missing(where: str) -> str:
    """The topmost folder that `make` would make, "" if all are there. Raises Refused, OSError."""
    path = PurePosixPath("/")
    fd = os.open("/", _FOLDER)
    try:
        for part in PurePosixPath(where).parts[1:]:
            path /= part
            try:
                lower = _entered(fd, part, path)
            except FileNotFoundError:
                return str(path)
            os.close(fd)
            fd = lower
    finally:
        os.close(fd)
    return ""


def make(where: str) -> None:
    """Make a mount point, with all folders on the way to it, or none of them.

    Links are not followed: systemd mounts nowhere by one. Raises Refused, OSError.
    """
    made, path = "", PurePosixPath("/")
    fd = os.open("/", _FOLDER)
    try:
        for part in PurePosixPath(where).parts[1:]:
            path /= part
            try:
                lower = _entered(fd, part, path)
            except FileNotFoundError:
                os.mkdir(part, 0o755, dir_fd=fd)
                made = made or str(path)
                lower = _entered(fd, part, path)
                os.fchmod(lower, 0o755)
            os.close(fd)
            fd = lower
    except (Refused, OSError):
        unmake(where, made)
        raise
    finally:
        os.close(fd)


def _entered(fd: int, part: str, path: PurePosixPath) -> int:
    try:
        return os.open(part, _FOLDER, dir_fd=fd)
    except OSError as e:
        if e.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        raise Refused(
            "MOUNT_POINT_STRANGE", f"{path} is a link or no folder", path=str(path)
        ) from None


def unmake(where: str, made: str) -> None:
    """Remove the folders from `where` up to `made` that are empty; what is in use stays."""
    path, top = PurePosixPath(where), PurePosixPath(made or "/")
    if not made or not path.is_relative_to(top):
        return
    for one in (path, *path.parents):
        if not one.is_relative_to(top):
            return
        try:
            os.rmdir(one)  # noqa: PTH106 # a pure path
        except FileNotFoundError:
            continue
        except OSError:
            # Somebody has put something there, or mounted over it.
            return
