"""Who uses what is mounted somewhere: processes, mounts in it, loop devices and swap files on it.

Processes are found by what they have open, mapped, run and stand in. Source: proc(5).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from hostlerd.storage.worker import sysfs
from hostlerd.storage.worker.use import plain

TOLD_MOST = 16
_MAPS_BYTES_MOST = 8 << 20


def holders(where: str, own: frozenset[int] = frozenset()) -> list[str]:
    """Who uses what is below a mount point, in words; empty if nobody is seen to."""
    found = [*_mounts(where), *_files(where)]
    device = _device(where)
    for place in sorted(Path("/proc").iterdir()):
        if not place.name.isdigit() or int(place.name) in own:
            continue
        if (path := _held(place, where, device)) is not None:
            name = sysfs.text(place / "comm") or "?"
            found.append(f"{name} ({place.name}) has {path}")
    return found


def _held(place: Path, where: str, device: int | None) -> str | None:
    """The first path below a mount point that a process holds."""
    for link in _links(place):
        try:
            path = os.readlink(link)  # noqa: PTH115 # as text
            # Another namespace may call another filesystem so.
            if _below(path, where) and _is_of(link, device):
                return path
        except OSError:
            continue
    try:
        with (place / "maps").open("rb") as file:
            said = file.read(_MAPS_BYTES_MOST).decode("utf-8", "surrogateescape")
    except OSError:
        return None
    for line in said.splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and _below(fields[5], where) and device in (None, _number(fields[3])):
            return fields[5]
    return None


def _links(place: Path) -> Iterator[Path]:
    yield from (place / name for name in ("cwd", "root", "exe"))
    try:
        yield from (place / "fd").iterdir()
    except OSError:
        # It has ended.
        return


def _is_of(link: Path, device: int | None) -> bool:
    return device is None or link.stat().st_dev == device


def _device(where: str) -> int | None:
    """The number of what is mounted there; None for a btrfs, whose parts have their own."""
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        fields = line.split(" ")
        if plain(fields[4]) == where and fields[fields.index("-", 6) + 1] == "btrfs":
            return None
    return os.stat(where).st_dev  # noqa: PTH116


def _number(said: str) -> int:
    major, _, minor = said.partition(":")
    return os.makedev(int(major, 16), int(minor, 16))


def _mounts(where: str) -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        path = plain(line.split(" ")[4])
        if path != where and _below(path, where):
            yield f"{path} is mounted in it"


def _files(where: str) -> Iterator[str]:
    for entry in sysfs.BLOCK.glob("loop*/loop/backing_file"):
        if _below(sysfs.text(entry), where):
            yield f"{entry.parent.parent.name} is {sysfs.text(entry)}"
    for line in Path("/proc/swaps").read_text(errors="surrogateescape").splitlines()[1:]:
        path = plain(line.split()[0])
        if _below(path, where):
            yield f"{path} is swapped to"


def _below(path: str, where: str) -> bool:
    return path == where or path.startswith(f"{where}/")
