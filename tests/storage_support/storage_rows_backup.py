"""Every change of backups, and how it is disturbed. What is there then the files say.

What a change only begins is waited for by its witness.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from journal_rows import ask
from journal_stage import eventually
from storage_backups import definition, secret
from storage_rows import STORAGE, row
from storage_stage import Storage

from hostler.api.storage.v1 import backup_pb2 as pb
from hostlerd.storage.kernel.doors import Door

SERVICE = f"{STORAGE}.BackupService"
NAME = "kept"


def _defined(place: Storage, **more: Any) -> Any:
    """A backup that is to run each night."""
    wanted = definition(place.folder, NAME, **more)
    schedule = {"calendar": "*-*-* 03:00:00", "time_zone": "UTC"}
    return pb.ApplyBackupRequest(
        backup={**wanted, "schedule": schedule, "warn_after": {"seconds": 100_000}}
    )


def _none(place: Storage) -> None:
    _quiet(place)
    for file in _files(place):
        file.unlink()


def _some(place: Storage) -> None:
    _none(place)
    ask(place, f"{SERVICE}/ApplyBackup", _defined(place))


def _files(place: Storage) -> list[Path]:
    root = place.stage.folder
    return [
        *(root / "worker-state/backups").glob("*"),
        *(root / "root/etc/systemd/system").glob("*.timer"),
    ]


def _definitions(place: Storage) -> Any:
    """What defines backups, and their timers."""
    return {file.name: file.read_text() for file in _files(place)}


def _quiet(place: Storage) -> None:
    """Wait until nothing goes on."""
    doors = [Door(role, place.stage.folder) for role in ("backup", "restore")]

    def is_quiet() -> bool:
        said = [one for door in doors for one in door.ask("Records", {})["items"]]
        return not any(one["busy"] for one in said)

    eventually(is_quiet, 60)


def repository(place: Storage) -> None:
    """A repository with two snapshots of two files, the same each time."""
    _quiet(place)
    folder = place.folder
    if not (folder / "template").exists():
        secret(folder)
        (folder / "tree").mkdir()
        for name in ("one", "two"):
            (folder / "tree" / name).write_bytes(os.urandom(50_000))
        _some(place)
        for _ in range(2):
            ask(place, f"{SERVICE}/RunBackup", pb.RunBackupRequest(name=NAME))
            _quiet(place)
        shutil.copytree(folder / "repository", folder / "template")
    shutil.rmtree(folder / "repository")
    shutil.copytree(folder / "template", folder / "repository")
    # What it keeps of a repository that is another one now.
    shutil.rmtree(place.stage.folder / "backup-state/cache", ignore_errors=True)
    shutil.rmtree(folder / "back", ignore_errors=True)
    for record in (place.stage.folder / "restore-state/records").glob("*"):
        record.unlink()
    _none(place)
    retention = {"keep_last": 1}
    ask(place, f"{SERVICE}/ApplyBackup", _defined(place, retention=retention))


def snapshots(place: Storage) -> int:
    """How many snapshots there are, when nothing goes on: each is a file of the repository."""
    _quiet(place)
    return len(list((place.folder / "repository/snapshots").iterdir()))


def _restored(place: Storage) -> Any:
    """The files that were restored, and what they hold."""
    _quiet(place)
    back = place.folder / "back"
    return {
        str(path.relative_to(back)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(back.rglob("*"))
        if path.is_file()
    }


def _drilled(place: Storage) -> Any:
    """What is known of the last drill, and what it has left."""
    _quiet(place)
    state = place.stage.folder / "restore-state"
    told = [json.loads(path.read_text())["last"] for path in (state / "records").glob("*.json")]
    left = [str(path) for path in (state / "drills").glob("*")]
    return [(one["files"], one["reason"]) for one in told], left


def _restore(place: Storage) -> Any:
    newest = next((place.folder / "repository/snapshots").iterdir()).name
    target = str(place.folder / "back")
    return pb.RestoreBackupRequest(name=NAME, snapshot=newest, target=target)


_begun = partial(row, unrepeatable=True, points=12)
DEFINITION_ROWS = (
    row("define-backup", f"{SERVICE}/ApplyBackup", _defined, _none, _definitions),
    row(
        "redefine-backup",
        f"{SERVICE}/ApplyBackup",
        partial(_defined, excludes=["*.tmp"]),
        _some,
        _definitions,
    ),
    row(
        "delete-backup",
        f"{SERVICE}/DeleteBackup",
        lambda place: pb.DeleteBackupRequest(name=NAME),
        _some,
        _definitions,
    ),
)
BACKUP_ROWS = (
    _begun(
        "run-backup",
        f"{SERVICE}/RunBackup",
        lambda place: pb.RunBackupRequest(name=NAME),
        repository,
        snapshots,
    ),
    _begun(
        "forget-snapshots",
        f"{SERVICE}/ForgetSnapshots",
        lambda place: pb.ForgetSnapshotsRequest(name=NAME),
        repository,
        snapshots,
    ),
)
RESTORE_ROWS = (
    _begun("restore-backup", f"{SERVICE}/RestoreBackup", _restore, repository, _restored),
    _begun(
        "drill-backup",
        f"{SERVICE}/DrillBackup",
        lambda place: pb.DrillBackupRequest(name=NAME, sample_files=2),
        repository,
        _drilled,
    ),
)
