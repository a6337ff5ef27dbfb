"""Passwords and credentials of repositories: read from root's own files, told to restic alone."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from hostlerd.storage.worker.refused import Refused

_BYTES_MOST = 4096
_LINE = re.compile(r"([A-Z][A-Z0-9_]*)=([\x20-\x7e]*)")
#: What restic takes from its environment for the kinds of repositories that there are here, and
#: nothing that changes what it does. Source: restic(1), "Environment Variables".
_NAMES = frozenset(
    {
        *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION"),
        *("RESTIC_REST_USERNAME", "RESTIC_REST_PASSWORD"),
    }
)


@contextmanager
def password(path: str) -> Iterator[int]:
    """The password as a file that is in memory only, for as long as the block lasts.

    Raises Refused.
    """
    content = _read(path, "password_file").rstrip(b"\r\n")
    if not content or b"\n" in content:
        raise _unusable("password_file", path, "is to hold one line, the password")
    fd = os.memfd_create("hostler-password", os.MFD_CLOEXEC)
    try:
        os.write(fd, content)
        yield fd
    finally:
        os.close(fd)


def credentials(path: str) -> dict[str, str]:
    """What a file of NAME=VALUE lines tells; nothing if there is no such file. Raises Refused."""
    if not path:
        return {}
    found: dict[str, str] = {}
    text = _read(path, "credentials_file").decode("utf-8", "replace")
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        # Never the line itself: it may hold a key.
        match = _LINE.fullmatch(line)
        if match is None or match[1] not in _NAMES:
            words = f"line {number} is none of {', '.join(sorted(_NAMES))}, with = and a value"
            raise _unusable("credentials_file", path, words)
        found[match[1]] = match[2]
    return found


def _read(path: str, field: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as e:
        raise _unusable(field, path, str(e.strerror)) from e
    try:
        seen = os.fstat(fd)
        if not stat.S_ISREG(seen.st_mode) or seen.st_uid != 0 or seen.st_mode & 0o077:
            raise _unusable(field, path, "is to be a file of root's that nobody else may open")
        content = os.read(fd, _BYTES_MOST + 1)
    finally:
        os.close(fd)
    if len(content) > _BYTES_MOST:
        raise _unusable(field, path, f"has more than {_BYTES_MOST} bytes")
    return content


def _unusable(field: str, path: str, why: str) -> Refused:
    return Refused("SECRET_UNUSABLE", f"{field} {path}: {why}", field=field, path=path)
