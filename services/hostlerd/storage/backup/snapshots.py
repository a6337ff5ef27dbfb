"""The snapshots of a backup."""

from __future__ import annotations

import socket
from datetime import datetime
from typing import Any

from hostlerd.storage.backup.restic import Restic
from hostlerd.storage.model.backup import Definition, Snapshot
from hostlerd.storage.worker.refused import Refused

_NANOS = 9


def host_of(backup: Definition) -> str:
    """The host under whose name snapshots are kept: another one where it stands in for that."""
    return backup.host or socket.gethostname()


def chosen(backup: Definition) -> tuple[str, ...]:
    """What makes restic look at this backup's snapshots and at no others."""
    return ("--host", host_of(backup), "--tag", tag(backup))


def tag(backup: Definition) -> str:
    """What marks the snapshots of this backup."""
    return f"hostler:{backup.name}"


def listed(restic: Restic) -> list[Snapshot]:
    """All snapshots, the newest first. Raises Refused."""
    told = restic.ask("snapshots", *chosen(restic.backup))
    found = [_snapshot(one) for one in told or ()]
    return sorted(found, key=lambda one: (one.unix_s, one.id), reverse=True)


def find(restic: Restic, name: str) -> Snapshot:
    """The snapshot of this id, or whose id begins so, or the latest. Raises Refused."""
    found = listed(restic)
    if name in ("", "latest"):
        matching = found[:1]
    else:
        matching = [one for one in found if one.id.startswith(name)]
    if len(matching) == 1:
        return matching[0]
    words = "is ambiguous" if matching else "is not there"
    raise Refused(
        "SNAPSHOT_NOT_FOUND",
        f"snapshot {name or 'latest'} of backup {restic.backup.name} {words}",
        backup=restic.backup.name,
    )


def forgotten(restic: Restic) -> list[str]:
    """The ids of those that the retention keeps no more. Raises Refused."""
    keep = restic.backup.retention
    words = [
        word
        for option, number in (
            ("--keep-last", keep.last),
            ("--keep-daily", keep.daily),
            ("--keep-weekly", keep.weekly),
            ("--keep-monthly", keep.monthly),
        )
        if number
        for word in (option, str(number))
    ]
    if not words:
        return []
    # All of one backup are one group, though its paths were others once.
    told = restic.ask("forget", "--dry-run", "--group-by", "", *words, *chosen(restic.backup))
    groups: list[dict[str, Any]] = told or []
    return sorted(str(one["id"]) for group in groups for one in group["remove"] or ())


def _snapshot(told: dict[str, Any]) -> Snapshot:
    return Snapshot(
        id=str(told["id"]),
        unix_s=unix_s(str(told["time"])),
        host=str(told["hostname"]),
        paths=tuple(map(str, told["paths"])),
    )


def unix_s(moment: str) -> float:
    """Read a moment as Go writes it, with up to nine digits behind the dot."""
    head, dot, tail = moment.partition(".")
    if dot:
        digits = tail[: len(tail) - len(tail.lstrip("0123456789"))]
        moment = f"{head}.{digits.ljust(_NANOS, '0')[:6]}{tail[len(digits) :]}"
    return datetime.fromisoformat(moment).timestamp()
