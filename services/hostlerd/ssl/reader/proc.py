"""Reads files of /proc, each with a bound. Source: proc(5)."""

from __future__ import annotations

import os
import pwd
from contextlib import suppress
from functools import cache

MOST_PROCESSES = 100_000
_SMALL_BYTES = 64 << 10


def read(path: str, most_bytes: int = _SMALL_BYTES) -> bytes:
    """Read a file, at most so much of it. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        parts = []
        while most_bytes > 0 and (part := os.read(fd, min(most_bytes, 1 << 20))):
            parts.append(part)
            most_bytes -= len(part)
    finally:
        os.close(fd)
    return b"".join(parts)


def text(path: str, most_bytes: int = _SMALL_BYTES) -> str:
    """Read a file as text, "" where it is gone or not for us."""
    with suppress(OSError):
        return read(path, most_bytes).decode("utf-8", "replace")
    return ""


def processes() -> list[int]:
    """The ids of all processes, in order, as many as are ever looked at. Raises OSError."""
    # A Path for each of thousands of names would double the time.
    names = os.listdir("/proc")  # noqa: PTH208
    return sorted(int(name) for name in names if name.isdigit())[:MOST_PROCESSES]


def link(path: str) -> str:
    """What a symbolic link of /proc says; "" if it is gone or not for us."""
    with suppress(OSError):
        return os.readlink(path)  # noqa: PTH115
    return ""


def comm(pid: int) -> str:
    """The process's name."""
    return text(f"/proc/{pid}/comm").strip()


def arguments(pid: int) -> list[str]:
    """The process's command line, at most 64 KiB of it."""
    return [word for word in text(f"/proc/{pid}/cmdline").split("\0") if word]


def cgroup(pid: int) -> str:
    """The path of the process's cgroup; "" if it is gone."""
    for line in text(f"/proc/{pid}/cgroup").splitlines():
        hierarchy, _, path = line.split(":", 2)
        if hierarchy == "0":
            return path
    return ""


def user(pid: int) -> str:
    """The name of the process's effective user, or its number; "" if it is gone."""
    for line in text(f"/proc/{pid}/status").splitlines():
        if line.startswith("Uid:"):
            return user_name(int(line.split()[2]))
    return ""


@cache
def user_name(uid: int) -> str:
    """What a user is called on this host, or its number."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def socket_inodes(pid: int) -> set[int]:
    """The inodes of the sockets that a process has open."""
    found = set()
    with suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208
            target = link(f"/proc/{pid}/fd/{fd}")
            if target.startswith("socket:["):
                found.add(int(target[8:-1]))
    return found
