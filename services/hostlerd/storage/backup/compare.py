"""Comparing what was restored with what is there: bytes of paths, since names are no text."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

# The clock of files stands still for up to a tick: what was changed right then is told by neither.
_TICK_S = 0.05
_PIECE_BYTES = 1 << 20
_DIFFERENCES_MOST = 20


@dataclass(slots=True)
class Compared:
    """What came of it."""

    restored: int = 0
    compared: int = 0
    differences: list[str] = field(default_factory=list)

    def differs(self, path: bytes, what: str) -> None:
        """Note a difference."""
        if len(self.differences) < _DIFFERENCES_MOST:
            self.differences.append(f"{os.fsdecode(path)!r}: {what}")


def compare(place: str, before_unix_s: float, tell: Callable[[int], None]) -> Compared:
    """Compare a restored tree with the host's own, where that has not changed since a moment.

    `tell` is called with how many were looked at.
    """
    found = Compared()
    links: dict[tuple[int, int], tuple[int, int]] = {}
    root = os.fsencode(place)
    for path in _all(root):
        found.restored += 1
        tell(found.restored)
        live = path[len(root) :]
        try:
            theirs = os.lstat(live)
        except OSError:
            # Gone or moved since.
            continue
        if theirs.st_ctime >= before_unix_s - _TICK_S:
            continue
        ours = os.lstat(path)
        found.compared += 1
        what = _difference(path, live, ours, theirs)
        if not what and not stat.S_ISDIR(ours.st_mode) and theirs.st_nlink > 1:
            twin = links.setdefault((theirs.st_dev, theirs.st_ino), (ours.st_dev, ours.st_ino))
            what = "" if twin == (ours.st_dev, ours.st_ino) else "is no hard link any more"
        if what:
            found.differs(live, what)
    return found


def _all(root: bytes) -> Iterator[bytes]:
    for folder, folders, files in os.walk(root, onerror=_raise):
        for name in (*folders, *files):
            yield os.path.join(folder, name)  # noqa: PTH118


def _raise(error: OSError) -> None:
    raise error


def _difference(path: bytes, live: bytes, ours: os.stat_result, theirs: os.stat_result) -> str:
    """What differs first; empty if nothing does."""
    if stat.S_IFMT(ours.st_mode) != stat.S_IFMT(theirs.st_mode):
        return "is of another type"
    if not stat.S_ISLNK(ours.st_mode) and ours.st_mode != theirs.st_mode:
        return f"has mode {ours.st_mode:o}, and had {theirs.st_mode:o}"
    if (ours.st_uid, ours.st_gid) != (theirs.st_uid, theirs.st_gid):
        return "has another owner or group"
    if ours.st_mtime_ns != theirs.st_mtime_ns:
        return "has another time of change"
    if ours.st_rdev != theirs.st_rdev:
        return "is another device"
    if stat.S_ISLNK(ours.st_mode):
        same = os.readlink(path) == os.readlink(live)  # noqa: PTH115
        return "" if same else "leads elsewhere"
    if stat.S_ISREG(ours.st_mode):
        if ours.st_size != theirs.st_size:
            return f"has {ours.st_size} bytes, and had {theirs.st_size}"
        if not _same_content(path, live):
            return "has other contents"
    return "" if _attributes(path) == _attributes(live) else "has other extended attributes"


def _attributes(path: bytes) -> dict[str, bytes]:
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:
        return {}
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in names}


def _same_content(one: bytes, other: bytes) -> bool:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(one, flags), "rb") as ours:
        try:
            fd = os.open(other, flags)
        except OSError:
            return False
        with os.fdopen(fd, "rb") as theirs:
            while True:
                piece = ours.read(_PIECE_BYTES)
                if piece != theirs.read(_PIECE_BYTES):
                    return False
                if not piece:
                    return True
