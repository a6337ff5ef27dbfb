"""Mounts, swap areas and fstab.

Source: proc_pid_mountinfo(5), proc_swaps(5), fstab(5).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as TimedOut
from pathlib import Path

from hostlerd.storage.model.observed import FstabLine, Mount, Room, Unseen

_OWN = ("/var/lib/hostler", "/var/log/hostler", "/run/hostler", "/run/credentials")
_ESCAPE = re.compile(r"\\([0-7]{3})")
_FILE_BYTES_MOST = 16 << 20
_STATVFS_TIMEOUT_S = 3.0


def mounts() -> tuple[Mount, ...]:
    """The mounts of the host, as this daemon's copy of its tree has them.

    What the daemon's own sandbox has mounted over its folders is no mount of the host.
    """
    found = parse_mountinfo(_read("/proc/self/mountinfo"))
    return tuple(one for one in found if not one.path.startswith(_OWN))


def parse_mountinfo(said: str) -> tuple[Mount, ...]:
    """Read mountinfo; a line that is none is left out."""
    found = []
    for line in said.splitlines():
        fields = line.split(" ")
        try:
            dash = fields.index("-", 6)
            kind, source = fields[dash + 1], fields[dash + 2]
            super_options = fields[dash + 3].split(",")
        except (ValueError, IndexError):
            continue
        found.append(
            Mount(
                path=_plain(fields[4]),
                number=fields[2],
                root=_plain(fields[3]),
                type=kind,
                source=_plain(source),
                # Of the filesystem: the sandbox makes each mount in this copy read-only.
                is_read_only="ro" in super_options,
            )
        )
    return tuple(found)


def swaps() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of devices that are swapped to, and paths of files."""
    devices, files = [], []
    for line in _read("/proc/swaps").splitlines()[1:]:
        fields = line.split()
        if len(fields) < 2:
            continue
        path = _plain(fields[0])
        if fields[1] == "partition":
            devices.append(os.path.basename(os.path.realpath(path)))  # noqa: PTH119
        else:
            files.append(path)
    return tuple(devices), tuple(files)


def fstab() -> tuple[FstabLine, ...]:
    """The lines of fstab."""
    try:
        return parse_fstab(_read("/etc/fstab"))
    except FileNotFoundError:
        return ()


def parse_fstab(said: str) -> tuple[FstabLine, ...]:
    """Read fstab; comments and what has too few fields are left out."""
    found = []
    for number, line in enumerate(said.splitlines(), 1):
        fields = line.split()
        if len(fields) < 3 or fields[0].startswith("#"):
            continue
        options = tuple(fields[3].split(",")) if len(fields) > 3 else ("defaults",)
        found.append(FstabLine(number, _plain(fields[0]), _plain(fields[1]), fields[2], options))
    return tuple(found)


def rooms(of: Iterable[Mount]) -> tuple[Mapping[str, Room], list[Unseen]]:
    """How much room there is at each mount; one that does not answer is left out, and said."""
    asked = [mount.path for mount in of]
    found: dict[str, Room] = {}
    unseen: list[Unseen] = []
    pool = ThreadPoolExecutor(8, thread_name_prefix="statvfs")
    try:
        answers = [(path, pool.submit(_room, path)) for path in asked]
        for path, answer in answers:
            try:
                found[path] = answer.result(_STATVFS_TIMEOUT_S)
            except TimedOut:
                words = f"{path} does not answer"
                unseen.append(Unseen("MOUNT_UNREADABLE", path, words))
            except OSError as e:
                unseen.append(Unseen("MOUNT_UNREADABLE", path, f"{path}: {e.strerror}"))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return found, unseen


def _room(path: str) -> Room:
    said = os.statvfs(path)
    return Room(
        size_bytes=said.f_blocks * said.f_frsize,
        free_bytes=said.f_bfree * said.f_frsize,
        available_bytes=said.f_bavail * said.f_frsize,
        files=said.f_files,
        free_files=said.f_favail,
    )


def _plain(field: str) -> str:
    return _ESCAPE.sub(lambda found: chr(int(found[1], 8)), field)


def _read(path: str) -> str:
    with Path(path).open("rb") as file:
        return file.read(_FILE_BYTES_MOST).decode("utf-8", "surrogateescape")
