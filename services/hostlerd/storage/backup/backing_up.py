"""Runs of backups, and forgetting their snapshots: what the program `backup` does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hostlerd.storage.backup import snapshots
from hostlerd.storage.backup.keeping import Records
from hostlerd.storage.backup.restic import INCOMPLETE, Restic, repository_id
from hostlerd.storage.backup.running import Run
from hostlerd.storage.model.backup import Definition, Outcome
from hostlerd.storage.worker.refused import Refused


def back_up(run: Run, restic: Restic, records: Records) -> Outcome:
    """Run a backup. Raises Refused also if a file could not be read: that is no backup."""
    backup = restic.backup
    run.tell("opening the repository")
    _open(restic, records)
    summary: dict[str, Any] = {}

    def look(line: bytes) -> None:
        told = _read(line)
        if told.get("message_type") == "status":
            done, total = int(told.get("bytes_done", 0)), int(told.get("total_bytes", 0))
            run.tell(f"backing up {backup.name}", done, total)
        elif told.get("message_type") == "summary":
            summary.update(told)

    words = ("--json", *snapshots.chosen(backup), *_excludes(backup))
    status = restic.run("backup", *words, "--", *backup.paths, line=look, good=(0, INCOMPLETE))
    snapshot = str(summary.get("snapshot_id", ""))
    if status == INCOMPLETE:
        raise Refused(
            "BACKUP_INCOMPLETE",
            f"some of {', '.join(backup.paths)} could not be read; snapshot {snapshot} lacks it",
            snapshot=snapshot,
        )
    if not snapshot:
        raise Refused("RESTIC_FAILED", "restic told of no snapshot")
    return Outcome(
        snapshot=snapshot,
        files=int(summary["total_files_processed"]),
        bytes=int(summary["total_bytes_processed"]),
    )


def forget(run: Run, restic: Restic, ids: Sequence[str]) -> Outcome:
    """Forget these snapshots, and remove from the repository what only they had."""
    here = {one.id for one in snapshots.listed(restic)}
    if missing := [one for one in ids if one not in here]:
        raise Refused("SNAPSHOT_NOT_FOUND", f"{missing[0]} is no snapshot of this backup")
    run.tell(f"forgetting {len(ids)} snapshots")
    restic.run("forget", "--prune", *ids)
    return Outcome(files=len(ids))


def _open(restic: Restic, records: Records) -> None:
    """Make sure that it is the repository which it was; make it if there has been none yet.

    A repository that has gone, as one on a disk that is not mounted, is never made anew.
    """
    backup = restic.backup
    known = records.get(backup.name).of(backup.repository).repository_id
    if not known and _is_missing(restic):
        restic.run("init")
    found = repository_id(restic)
    if known and found != known:
        raise Refused(
            "REPOSITORY_CHANGED",
            f"{backup.repository} is another repository ({found[:8]}) than before ({known[:8]})",
            backup=backup.name,
        )
    if not known:
        records.note_repository(backup, found)


def _is_missing(restic: Restic) -> bool:
    where = Path(restic.backup.repository)
    if restic.backup.is_local:
        return not where.exists() or not any(where.iterdir())
    try:
        repository_id(restic)
    except Refused as e:
        if e.reason != "REPOSITORY_MISSING":
            raise
        return True
    return False


def _excludes(backup: Definition) -> list[str]:
    words = [word for one in backup.excludes for word in ("--exclude", one)]
    return [*words, "--one-file-system"] if backup.one_file_system else words


def _read(line: bytes) -> dict[str, Any]:
    try:
        told = json.loads(line)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
