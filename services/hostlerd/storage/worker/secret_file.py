"""Files of secrets: root's alone, or they are none."""

from __future__ import annotations

import os
import stat

from hostlerd.storage.worker.refused import Refused

_BYTES_MOST = 4096


def read(path: str, field: str) -> bytes:
    """What a file of root's alone holds. Raises Refused with SECRET_UNUSABLE."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as e:
        raise unusable(field, path, str(e.strerror)) from e
    try:
        seen = os.fstat(fd)
        if not stat.S_ISREG(seen.st_mode) or seen.st_uid != 0 or seen.st_mode & 0o077:
            raise unusable(field, path, "is to be a file of root's that nobody else may open")
        content = os.read(fd, _BYTES_MOST + 1)
    finally:
        os.close(fd)
    if len(content) > _BYTES_MOST:
        raise unusable(field, path, f"has more than {_BYTES_MOST} bytes")
    return content


def unusable(field: str, path: str, why: str) -> Refused:
    """The refusal of a file of secrets. Never with a word of what is in it."""
    return Refused("SECRET_UNUSABLE", f"{field} {path}: {why}", field=field, path=path)
