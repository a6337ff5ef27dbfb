"""Backups as they are: definitions from the worker, the rest from the programs that run restic."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.storage.kernel import tool
from hostlerd.storage.kernel.doors import follow
from hostlerd.storage.kernel.worker_client import Worker
from hostlerd.storage.model import backup as model
from hostlerd.storage.model.backup import Backup, Definition, Outcome, Record, Snapshot
from hostlerd.storage.model.backup_steps import BACKUP, RESTORE

_ASK_S = 900.0
_TOOL_S = 20.0


@dataclass(frozen=True, slots=True)
class Backups:
    """All that is known of backups. Every method blocks, within bounds."""

    worker: Worker
    doors: Mapping[str, Worker]

    def all(self) -> tuple[Backup, ...]:
        """All backups, by name. Raises DomainError."""
        defined = self.worker.ask("ListBackups", {})["items"]
        if not defined:
            return ()
        runs, drills = self._records(BACKUP), self._records(RESTORE)
        found = []
        for one in defined:
            definition = Definition.read(one["backup"])
            run, busy = runs.get(definition.name, (Record(), False))
            drill, drilling = drills.get(definition.name, (Record(), False))
            run, drill = (each.of(definition.repository) for each in (run, drill))
            since = int(one["since_unix_s"])
            found.append(Backup(definition, since, run, drill, busy or drilling))
        return tuple(found)

    def definitions(self) -> tuple[Definition, ...]:
        """All definitions, by name. Raises DomainError."""
        items = self.worker.ask("ListBackups", {})["items"]
        return tuple(Definition.read(one["backup"]) for one in items)

    def snapshots(self, name: str) -> tuple[Snapshot, ...]:
        """The snapshots of a backup, the newest first. Raises DomainError."""
        told = self.doors[BACKUP].ask("ListSnapshots", {"name": name}, _ASK_S)
        return tuple(Snapshot.read(one) for one in told["items"])

    def forgotten(self, name: str) -> tuple[str, ...]:
        """The ids of the snapshots that its retention keeps no more. Raises DomainError."""
        told = self.doors[BACKUP].ask("ListForgotten", {"name": name}, _ASK_S)
        return tuple(map(str, told["items"]))

    def follow(self, role: str, run: str, tell: Callable[[int, int, str], None]) -> Outcome:
        """Watch a run to its end; answer how it ended. Raises what it failed with.

        What `tell` raises stops it.
        """
        return Outcome(**follow(self.doors[role], run, tell))

    def _records(self, role: str) -> dict[str, tuple[Record, bool]]:
        items: list[dict[str, Any]] = self.doors[role].ask("Records", {}, _TOOL_S)["items"]
        return {str(one["name"]): (Record.read(one), bool(one["busy"])) for one in items}


def refuse_calendar(definition: Definition) -> None:
    """Raise InvalidRequest unless systemd understands when a backup is to run."""
    if not definition.calendar:
        return
    said = tool.run(model.calendar_argv(definition), _TOOL_S)
    if said.status != 0:
        words = said.errors.strip() or "systemd does not understand it"
        raise InvalidRequest.of([Violation("backup.schedule.calendar", words[:500])])
