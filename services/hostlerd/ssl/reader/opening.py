"""Opens files that anybody may have put there: regular ones alone, and never more than so much."""

from __future__ import annotations

import os
import stat


class NotRegular(OSError):
    """No regular file: never opened."""


def status_of(path: str) -> tuple[int, os.stat_result]:
    """A descriptor by which a regular file can be opened, and its status; links are followed.

    The file itself is not opened: a device or a pipe would notice. Raises OSError, NotRegular.
    Source: open(2), O_PATH.
    """
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        raise NotRegular("is no regular file")
    return fd, status


def content(path_fd: int, most_bytes: int) -> bytes:
    """The content of what `status_of` answered, one byte more than asked for if it is larger.

    Raises OSError.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
    fd = os.open(f"/proc/self/fd/{path_fd}", flags)
    try:
        parts, left = [], most_bytes + 1
        while left > 0 and (part := os.read(fd, min(left, 1 << 20))):
            parts.append(part)
            left -= len(part)
    finally:
        os.close(fd)
    return b"".join(parts)


def read(path: str, most_bytes: int) -> bytes:
    """The content of a regular file. Raises OSError, NotRegular."""
    fd, _ = status_of(path)
    try:
        return content(fd, most_bytes)
    finally:
        os.close(fd)
