"""Restoring a snapshot to a place where nothing is."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path

from hostlerd.storage.backup import snapshots
from hostlerd.storage.backup.restic import Restic, free_bytes, restored_size
from hostlerd.storage.backup.running import Run
from hostlerd.storage.model.backup import Definition, Outcome, is_within
from hostlerd.storage.worker.refused import Refused

# filepath.Match of Go, with which restic compares.
_SPECIAL = re.compile(r"([\\*?\[\]])")


def restore(
    run: Run, restic: Restic, snapshot: str, target: str, include: Sequence[str]
) -> Outcome:
    """Restore a snapshot, or what `include` names of it, and compare it with restic's hashes.

    What was restored stays if anything fails. Raises Refused.
    """
    found = snapshots.find(restic, snapshot)
    size, _ = restored_size(restic, found.id)
    place = Path(target)
    prepare(restic.backup, place)
    if not include and size > free_bytes(place):
        raise Refused(
            "NO_SPACE",
            f"the snapshot has {size} bytes, and {target} has room for {free_bytes(place)}",
            target=target,
        )
    run.tell(f"restoring to {target}")
    fetch(restic, found.id, place, include)
    files, written = measure(place)
    if not files:
        raise Refused("SNAPSHOT_LACKS_IT", "the snapshot has nothing of that", target=target)
    return Outcome(snapshot=found.id, files=files, bytes=written)


def fetch(restic: Restic, snapshot: str, place: Path, include: Sequence[str] = ()) -> None:
    """Have restic restore, and read again what it wrote. Raises Refused."""
    words = [word for one in include for word in ("--include", escaped(one))]
    restic.run("restore", snapshot, "--target", str(place), "--verify", *words)


def escaped(path: str) -> str:
    """A path as a pattern that matches this path alone."""
    return _SPECIAL.sub(r"\\\1", path)


def prepare(backup: Definition, place: Path) -> None:
    """Make the folder, or see that it is empty and nobody can lead us elsewhere. Raises Refused."""
    for other in (*backup.paths, *((backup.repository,) if backup.is_local else ())):
        if is_within(str(place), other) or is_within(other, str(place)):
            raise _unusable(place, f"is to be apart from {other}")
    for each in reversed(place.parents):
        _refuse_unless_roots(each, place)
    try:
        place.mkdir(mode=0o700)
    except FileExistsError:
        _refuse_unless_roots(place, place)
        if any(place.iterdir()):
            raise _unusable(place, "is not empty") from None
    except OSError as e:
        raise _unusable(place, str(e.strerror)) from e


def _refuse_unless_roots(folder: Path, place: Path) -> None:
    try:
        seen = folder.lstat()
    except OSError as e:
        raise _unusable(place, f"{folder}: {e.strerror}") from e
    if not stat.S_ISDIR(seen.st_mode):
        raise _unusable(place, f"{folder} is no folder")
    # In a sticky folder nobody can take away what is root's.
    if seen.st_uid != 0 or (seen.st_mode & 0o022 and not seen.st_mode & stat.S_ISVTX):
        raise _unusable(place, f"{folder} is not root's alone to change")


def _unusable(place: Path, why: str) -> Refused:
    return Refused("TARGET_UNUSABLE", f"{place}: {why}", target=str(place))


def measure(place: Path) -> tuple[int, int]:
    """How many files, and how many bytes of them, lie in a folder; folders are no files."""
    files = written = 0
    for folder, _, names in os.walk(os.fsencode(place)):
        for name in names:
            seen = os.lstat(os.path.join(folder, name))  # noqa: PTH118
            files += 1
            written += seen.st_size if stat.S_ISREG(seen.st_mode) else 0
    return files, written
