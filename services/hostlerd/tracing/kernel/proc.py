"""Reads files of /proc and /sys, each with a bound. Source: proc(5)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

_SMALL_BYTES = 16 << 10
MOST_BYTES = 16 << 20
MOST_TASKS = 100_000


def read(path: str, most_bytes: int = _SMALL_BYTES) -> bytes:
    """Read a file, at most so much of it. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        data = os.read(fd, most_bytes)
        # One read gives a page or less of what is made line by line.
        while data and len(data) < most_bytes and (more := os.read(fd, most_bytes - len(data))):
            data += more
    finally:
        os.close(fd)
    return data


def text(path: str, most_bytes: int = _SMALL_BYTES) -> str:
    """Read a file as text, "" where it is gone or not for us."""
    with suppress(OSError):
        return read(path, most_bytes).decode("utf-8", "replace")
    return ""


def numbers(path: str) -> list[int]:
    """The entries of a folder that are numbers: processes, threads, descriptors.

    [] if it is gone, or not for us.
    """
    with suppress(OSError):
        return shown_numbers(path)
    return []


def shown_numbers(path: str) -> list[int]:
    """The same. Raises OSError."""
    # A Path for each of thousands of names would double the time.
    return [int(name) for name in os.listdir(path) if name.isdigit()]  # noqa: PTH208


def processes() -> list[int]:
    """The ids of all processes, in order, as many as are ever looked at."""
    return sorted(numbers("/proc"))[:MOST_TASKS]


def link(path: str) -> str:
    """What a symbolic link of /proc says; "" if it is gone or not for us."""
    with suppress(OSError):
        return os.readlink(path)  # noqa: PTH115
    return ""


def fields(path: str, most_bytes: int = _SMALL_BYTES) -> dict[str, str]:
    """The lines `key: value` of a file."""
    return dict(_pairs(text(path, most_bytes)))


def _pairs(content: str) -> Iterator[tuple[str, str]]:
    for line in content.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            yield key, value.strip()
