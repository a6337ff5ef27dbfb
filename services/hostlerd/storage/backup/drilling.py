"""Drills: a restore that is made only to see whether it is right."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from hostlerd.storage.backup import restoring, snapshots
from hostlerd.storage.backup.compare import compare
from hostlerd.storage.backup.restic import Restic, free_bytes
from hostlerd.storage.backup.running import Run
from hostlerd.storage.model.backup import Outcome, Snapshot
from hostlerd.storage.worker.refused import Refused

_HASH = re.compile(r"[0-9a-f]{64}")
#: All files of a repository but `config`, which restic authenticates, and locks, which come and go.
_HASHED = ("keys", "snapshots", "index", "data")
_SHOWN = 5
# A character that stands for bytes which are no text: such a file cannot be named to restic.
_NO_TEXT = "\ufffd"


def drill(run: Run, restic: Restic, files: int) -> Outcome:
    """Restore so many random files of the latest snapshot, or all of it, and compare.

    Without a number everything in the repository is read before. Raises Refused: DRILL_FAILED
    where anything is not as it was.
    """
    try:
        if not files:
            _read_all(run, restic)
        run.tell("choosing what to restore")
        snapshot = snapshots.find(restic, "latest")
        names, nodes, size = _listed(restic, snapshot, files)
        with _aside(restic, 0 if files else size) as place:
            run.tell(f"restoring {len(names) if files else nodes} to compare them")
            restoring.fetch(restic, snapshot.id, place, names if files else ())
            return _compare(run, place, snapshot, names if files else None, nodes)
    except Refused as e:
        if e.reason in ("RESTIC_FAILED", "PASSWORD_WRONG", "SNAPSHOT_NOT_FOUND"):
            raise Refused("DRILL_FAILED", e.message, backup=restic.backup.name) from e
        raise


def _compare(
    run: Run, place: Path, snapshot: Snapshot, names: list[str] | None, nodes: int
) -> Outcome:
    def tell(done: int) -> None:
        run.tell("comparing with what is there", done, nodes if names is None else 0)

    found = compare(str(place), snapshot.unix_s, tell)
    files, written = restoring.measure(place)
    if names is not None and files != len(set(names)):
        found.differences.append(f"{len(set(names))} files were chosen, and {files} restored")
    if names is None and found.restored != nodes:
        found.differences.append(f"the snapshot has {nodes} entries, restored {found.restored}")
    if found.differences:
        words = "; ".join(found.differences)
        raise Refused("DRILL_FAILED", f"what was restored is not what was backed up: {words}")
    return Outcome(snapshot=snapshot.id, files=files, bytes=written)


def _read_all(run: Run, restic: Restic) -> None:
    """Read each file of the repository. Raises Refused, which names those that are damaged."""
    run.tell("reading the repository")
    damaged = _damaged(run, Path(restic.backup.repository)) if restic.backup.is_local else []
    # The one file whose name tells nothing is `config`: restic cannot open the repository then.
    if damaged:
        shown = ", ".join(damaged[:_SHOWN])
        more = f" and {len(damaged) - _SHOWN} more" if len(damaged) > _SHOWN else ""
        raise Refused(
            "DRILL_FAILED",
            f"{restic.backup.repository}: damaged: {shown}{more}",
            damaged=shown,
        )
    run.tell("checking the repository, all of its data")
    restic.run("check", "--read-data")


def _damaged(run: Run, repository: Path) -> list[str]:
    """The files of a local repository that are not what their names say, by their paths in it."""
    found = []
    for kind in _HASHED:
        for folder, _, names in os.walk(repository / kind):
            for name in sorted(names):
                path = Path(folder) / name
                run.tell(f"reading {kind} of the repository")
                if _HASH.fullmatch(name) and _sha256(path) != name:
                    found.append(str(path.relative_to(repository)))
    return sorted(found)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _listed(restic: Restic, snapshot: Snapshot, files: int) -> tuple[list[str], int, int]:
    """So many of its files, drawn at random; how many entries restic restores of it, and bytes."""
    drawn: list[str] = []
    nodes = seen = size = 0
    lots = random.SystemRandom()

    def look(line: bytes) -> None:
        nonlocal nodes, seen, size
        told: dict[str, Any] = json.loads(line)
        # A socket is listed and never restored.
        if told.get("struct_type") != "node" or told.get("type") == "socket":
            return
        nodes += 1
        size += int(told.get("size", 0))
        path = str(told["path"])
        if told.get("type") != "file" or _NO_TEXT in path:
            return
        seen += 1
        if len(drawn) < files:
            drawn.append(path)
        elif (at := lots.randrange(seen)) < files:
            drawn[at] = path

    restic.run("ls", "--json", snapshot.id, line=look)
    if not nodes:
        raise Refused("DRILL_FAILED", f"snapshot {snapshot.id[:8]} is empty")
    return drawn, nodes, size


@contextmanager
def _aside(restic: Restic, size: int) -> Iterator[Path]:
    """A folder with room for so many bytes, which is gone afterwards. Raises Refused."""
    folder = restic.state / "drills"
    folder.mkdir(mode=0o700, exist_ok=True)
    if size > (room := free_bytes(folder)):
        words = f"the snapshot has {size} bytes, and {folder} has room for {room}"
        raise Refused("NO_SPACE", words, target=str(folder))
    place = Path(mkdtemp(prefix=f"{restic.backup.name}-", dir=folder))
    try:
        yield place
    finally:
        shutil.rmtree(place)
