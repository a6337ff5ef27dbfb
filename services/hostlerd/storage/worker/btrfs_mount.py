"""The way to a btrfs that is mounted, and to a folder in it, by no link and over no other mount."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hostlerd.storage.model.btrfs import TOP_ID
from hostlerd.storage.worker.btrfs_ioctl import filesystem
from hostlerd.storage.worker.btrfs_tree import subvolume_of, subvolumes
from hostlerd.storage.worker.refused import Refused
from hostlerd.storage.worker.use import plain

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPTIONS, _MOUNT_OPTIONS = 3, 5


@contextmanager
def opened(uuid: str, *, writable: bool = False) -> Iterator[int]:
    """A folder where the filesystem is mounted. Raises Refused, OSError."""
    fd = descriptor(uuid, writable=writable)
    try:
        yield fd
    finally:
        os.close(fd)


def descriptor(uuid: str, *, writable: bool = False) -> int:
    """The same, for the caller to close."""
    for path, _, is_read_only in _mounts():
        if writable and is_read_only:
            continue
        if (fd := _open(path, uuid)) is not None:
            return fd
    how = " for writing" if writable else ""
    raise Refused("NOT_MOUNTED", f"btrfs {uuid} is not mounted{how}", filesystem=uuid)


@contextmanager
def folder(uuid: str, path: str) -> Iterator[int]:
    """A folder or a subvolume by its path from the top, "" the top. Raises Refused, OSError."""
    for mount, root, is_read_only in _mounts():
        inner = _below(root, path)
        if is_read_only or inner is None or (start := _open(mount, uuid)) is None:
            continue
        fd = _walk(start, inner)
        if fd is None:
            continue
        try:
            # A folder over which something else is mounted would be another one.
            if _path_of(fd, uuid) == path:
                yield fd
                return
        finally:
            os.close(fd)
    raise Refused(
        "NOT_MOUNTED",
        f"{path or 'the top'} of btrfs {uuid} is not there, or nothing that it is in is mounted",
        filesystem=uuid,
    )


def roots(uuid: str) -> Iterator[tuple[str, str]]:
    """What of a filesystem is mounted, each with where."""
    for path, root, _ in _mounts():
        if (fd := _open(path, uuid)) is not None:
            os.close(fd)
            yield root, path


def _mounts() -> list[tuple[str, str, bool]]:
    """Path, root from the top and whether it is read-only of all mounts of btrfs."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        fields = line.split(" ")
        dash = fields.index("-", 6)
        if fields[dash + 1] != "btrfs":
            continue
        options = {*fields[_MOUNT_OPTIONS].split(","), *fields[dash + _OPTIONS].split(",")}
        found.append((plain(fields[4]), plain(fields[3]).strip("/"), "ro" in options))
    return found


def _below(root: str, path: str) -> str | None:
    """The path from a mount of `root`; None if it is not below that."""
    if not root:
        return path
    if path == root:
        return ""
    return path.removeprefix(f"{root}/") if path.startswith(f"{root}/") else None


def _open(path: str, uuid: str) -> int | None:
    try:
        fd = os.open(path, _FOLDER)
    except OSError:
        return None
    try:
        if filesystem(fd)[0] == uuid:
            return fd
    except OSError:
        pass
    os.close(fd)
    return None


def _walk(start: int, path: str) -> int | None:
    """Go down by names, through no link; closes `start`."""
    fd = start
    for name in filter(None, path.split("/")):
        try:
            below = os.open(name, _FOLDER, dir_fd=fd)
        except OSError:
            os.close(fd)
            return None
        os.close(fd)
        fd = below
    return fd


def _path_of(fd: int, uuid: str) -> str | None:
    try:
        if filesystem(fd)[0] != uuid:
            return None
    except OSError:
        return None
    of, inner = subvolume_of(fd)
    if of == TOP_ID:
        return inner
    above = next((one.path for one in subvolumes(fd) if one.id == of), None)
    return None if above is None else "/".join(filter(None, (above, inner)))
