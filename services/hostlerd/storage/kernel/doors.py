"""The doors of the programs beside the worker, and following what was begun there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hostlerd.storage.errors import RunLost, WorkerLost
from hostlerd.storage.kernel.worker_client import Worker, refusal
from hostlerd.storage.model.backup_steps import BACKUP, RESTORE
from hostlerd.storage.model.copy_steps import COPIER

SOCKETS = Path("/run/hostler")
LOOK_S = 20.0
"""How long a program may take to say how far it is."""

_PAUSE_S = 0.5

Tell = Callable[[int, int, str], None]


class Door(Worker):
    """One of the programs."""

    def __init__(self, role: str, folder: Path = SOCKETS) -> None:
        super().__init__(folder / f"storage-{role}.sock")
        self.program = "program that copies" if role == COPIER else f"program of {role}s"


def doors() -> dict[str, Worker]:
    """All of them, by the names that steps have for them."""
    return {role: Door(role) for role in (BACKUP, RESTORE, COPIER)}


def follow(door: Worker, run: str, tell: Tell) -> Mapping[str, Any]:
    """Watch a run to its end; answer how it ended. Raises what it failed with.

    What `tell` raises stops it.
    """
    while True:
        try:
            seen = door.ask("Look", {"run": run}, LOOK_S)
        except WorkerLost:
            raise RunLost("the program that did it has ended in the middle") from None
        if seen["state"] == "failed":
            raise refusal(seen)
        if seen["state"] == "done":
            outcome: Mapping[str, Any] = seen["outcome"]
            return outcome
        try:
            tell(int(seen["done"]), int(seen["total"]), str(seen["activity"]))
        except BaseException:
            door.ask("Stop", {"run": run}, LOOK_S)
            raise
        time.sleep(_PAUSE_S)
