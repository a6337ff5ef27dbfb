"""Passwords and credentials of repositories: read from root's own files, told to restic alone."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from hostlerd.storage.worker import secret_file

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
    content = secret_file.read(path, "password_file").rstrip(b"\r\n")
    if not content or b"\n" in content:
        raise secret_file.unusable("password_file", path, "is to hold one line, the password")
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
    text = secret_file.read(path, "credentials_file").decode("utf-8", "replace")
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        # Never the line itself: it may hold a key.
        match = _LINE.fullmatch(line)
        if match is None or match[1] not in _NAMES:
            words = f"line {number} is none of {', '.join(sorted(_NAMES))}, with = and a value"
            raise secret_file.unusable("credentials_file", path, words)
        found[match[1]] = match[2]
    return found
