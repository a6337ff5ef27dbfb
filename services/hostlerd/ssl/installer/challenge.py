"""Answers of http-01 in the folder of a web server. RFC 8555, 8.3."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath

from hostlerd.privileged.refused import Refused
from hostlerd.ssl.installer import folder
from hostlerd.ssl.installer.configuration import Configuration

FOLDERS = (".well-known", "acme-challenge")


def publish(allowed: Configuration, webroot: str, token: str, content: str) -> None:
    """Put the answer to a challenge in place, readable by everybody. Raises Refused, OSError."""
    with _folder(allowed, webroot) as fd:
        folder.write_new(fd, token, content.encode(), 0o644)


def withdraw(allowed: Configuration, webroot: str, token: str) -> None:
    """Remove an answer; one that is not there is no error. Raises Refused, OSError."""
    with _folder(allowed, webroot) as fd:
        folder.remove(fd, token)


@contextmanager
def _folder(allowed: Configuration, webroot: str) -> Iterator[int]:
    home = PurePosixPath(webroot)
    if home not in allowed.webroots:
        words = f"{webroot} is not one of [ssl] webroots of hostler.toml"
        raise Refused("PATH_NOT_ALLOWED", words, [("webroot", words)])
    at = home
    for part in FOLDERS:
        with folder.opened(home, at / part) as fd:
            if not folder.kind_of(fd, part):
                os.mkdir(part, 0o755, dir_fd=fd)
        at /= part
    with folder.opened(home, at / "token") as fd:
        yield fd
