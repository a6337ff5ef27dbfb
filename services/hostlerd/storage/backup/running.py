"""Runs of restic: one at a time for each backup."""

from __future__ import annotations

from collections.abc import Callable

from hostlerd.privileged import runs
from hostlerd.storage.backup.restic import Child
from hostlerd.storage.model.backup import Outcome
from hostlerd.storage.worker.refused import Refused

Run = runs.Run[Outcome, Child]
Runs = runs.Runs[Outcome, Child]
Work = Callable[[Run], Outcome]
"""Does the work of a run. Raises Refused, OSError, Stopped."""


def new_runs() -> Runs:
    """The runs of one of the programs."""
    return runs.Runs(Outcome, Child, _busy)


def get(known: Runs, run_id: str) -> Run:
    """The run of this id. Raises Refused."""
    found = known.find(run_id)
    if found is None:
        raise Refused("RUN_NOT_FOUND", "no such run is known: its program has ended since")
    return found


def _busy(name: str, activity: str) -> Refused:
    return Refused("BACKUP_BUSY", f"backup {name} is being worked on: {activity}", backup=name)
