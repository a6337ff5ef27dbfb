"""The doors: who may ask which of the two programs for what, a request a line."""

from __future__ import annotations

import os
import re
import shutil
import socket
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hostlerd.privileged import door
from hostlerd.privileged.grammar import Check, array, record, text, whole
from hostlerd.privileged.lines import answer_lines
from hostlerd.privileged.orphans import Turns
from hostlerd.privileged.refused import Fault
from hostlerd.privileged.runs import Stopped
from hostlerd.storage.backup import backing_up, drilling, restoring, snapshots
from hostlerd.storage.backup.keeping import Records, definition
from hostlerd.storage.backup.restic import Child, Restic
from hostlerd.storage.backup.running import Work, get, new_runs
from hostlerd.storage.model.backup import NAME, SNAPSHOT, Record, path_fault
from hostlerd.storage.worker.refused import Refused

DAEMON_USER = "hostler-storage"
MAX_REQUEST_BYTES = 1 << 20
MAX_CONNECTIONS = 32
IDLE_S = 30.0
SEND_TIMEOUT_S = 30.0
MOST_INCLUDED = 1000
MOST_FORGOTTEN = 20_000
MOST_SAMPLE = 10_000
_RUN = text(re.compile(r"[0-9a-f]{32}"))
_NAME = text(NAME)


def _path(value: Any, path: str, faults: list[Fault]) -> None:
    if not isinstance(value, str) or path_fault(value):
        faults.append((path, "must be an absolute path, without . and .."))


class Server:
    """One of the programs."""

    def __init__(self, role: str, definitions: Path, state: Path) -> None:
        self._role = role
        self._definitions = definitions
        self._state = state
        self._records = Records(state / "records")
        self._runs = new_runs()
        self._turns = Turns()
        self._table: Mapping[str, tuple[Mapping[str, Check], Callable[..., dict[str, Any]]]] = {
            "Look": ({"run": _RUN}, self._look),
            "Stop": ({"run": _RUN}, self._stop),
            "Records": ({}, self._told),
            "Settle": ({}, dict),
            **(self._of_backup() if role == "backup" else self._of_restore()),
        }

    @property
    def operations(self) -> Mapping[str, frozenset[str]]:
        """What can be asked, and the fields that each has."""
        return {name: frozenset(checks) for name, (checks, _) in self._table.items()}

    def serve(self, listen: Path | None, idle_s: float) -> None:
        """Serve until nobody has asked for a while and nothing goes on."""
        # What a program that was killed has left of a drill.
        shutil.rmtree(self._state / "drills", ignore_errors=True)
        listener = door.listening_socket(f"storage-{self._role}", listen)
        # Its own user: what the timers start.
        allowed = door.ROOT | door.uid_of(DAEMON_USER) | {os.getuid()}
        while True:
            door.serve(listener, self._answer, allowed, MAX_CONNECTIONS, idle_s)
            if not self._runs.is_busy():
                return

    def _answer(self, peer: socket.socket) -> None:
        def answer(asked: Any) -> dict[str, Any]:
            return self._carry_out(asked, peer)

        answer_lines(peer, answer, MAX_REQUEST_BYTES, IDLE_S, SEND_TIMEOUT_S)

    def _carry_out(self, asked: Any, peer: socket.socket) -> dict[str, Any]:
        name = asked.get("op") if isinstance(asked, dict) else None
        if not isinstance(name, str) or name not in self._table:
            raise Refused("MALFORMED", "the request names no operation that there is")
        checks, run = self._table[name]
        fields = {key: value for key, value in asked.items() if key != "op"}
        faults: list[Fault] = []
        record(checks, tuple(checks))(fields, "", faults)
        if faults:
            told = "; ".join(f"{where}: {what}" for where, what in faults[:5])
            raise Refused("INVALID", told, faults[:100])
        begins = name.startswith("Begin") or name == "Settle"
        with self._turns.taken(peer) if begins else nullcontext():
            return run(**fields)

    def _of_backup(self) -> dict[str, tuple[Mapping[str, Check], Callable[..., dict[str, Any]]]]:
        ids = array(text(SNAPSHOT), 1, MOST_FORGOTTEN)
        return {
            "BeginBackup": ({"name": _NAME}, self._back_up),
            "BeginForget": ({"name": _NAME, "snapshots": ids}, self._forget),
            "ListSnapshots": ({"name": _NAME}, self._snapshots),
            "ListForgotten": ({"name": _NAME}, self._forgotten),
        }

    def _of_restore(self) -> dict[str, tuple[Mapping[str, Check], Callable[..., dict[str, Any]]]]:
        restore = {
            "name": _NAME,
            "snapshot": text(SNAPSHOT),
            "target": _path,
            "include": array(_path, 0, MOST_INCLUDED),
        }
        return {
            "BeginRestore": (restore, self._restore),
            "BeginDrill": ({"name": _NAME, "files": whole(0, MOST_SAMPLE)}, self._drill),
        }

    def _back_up(self, name: str) -> dict[str, Any]:
        def work(run: Any) -> Any:
            return backing_up.back_up(run, self._restic(name, run.child), self._records)

        return self._begin(name, work, noted=True)

    def _forget(self, name: str, snapshots: list[str]) -> dict[str, Any]:
        def work(run: Any) -> Any:
            return backing_up.forget(run, self._restic(name, run.child), snapshots)

        return self._begin(name, work)

    def _restore(self, name: str, snapshot: str, target: str, include: list[str]) -> dict[str, Any]:
        def work(run: Any) -> Any:
            restic = self._restic(name, run.child)
            return restoring.restore(run, restic, snapshot, target, include)

        return self._begin(name, work)

    def _drill(self, name: str, files: int) -> dict[str, Any]:
        def work(run: Any) -> Any:
            return drilling.drill(run, self._restic(name, run.child), files)

        return self._begin(name, work, noted=True, full=not files)

    def _begin(
        self, name: str, work: Work, noted: bool = False, full: bool = False
    ) -> dict[str, Any]:
        # That there is none is told at once.
        backup = definition(self._definitions, name)
        note = (lambda o: self._records.note(backup, o, full)) if noted else (lambda o: None)
        return {"run": self._runs.begin(name, work, note)}

    def _snapshots(self, name: str) -> dict[str, Any]:
        found = self._asked(name, snapshots.listed)
        return {"items": [asdict(one) for one in found]}

    def _forgotten(self, name: str) -> dict[str, Any]:
        return {"items": self._asked(name, snapshots.forgotten)}

    def _asked(self, name: str, ask: Callable[[Restic], list[Any]]) -> list[Any]:
        try:
            return ask(self._restic(name, Child()))
        except Stopped:
            raise Refused("STOPPED", "it was told to stop") from None

    def _restic(self, name: str, child: Child) -> Restic:
        # A drill and a restore read the repository alone: what a cache holds proves nothing.
        cached = self._role == "backup"
        return Restic(definition(self._definitions, name), self._state, child, cached)

    def _look(self, run: str) -> dict[str, Any]:
        return get(self._runs, run).seen()

    def _stop(self, run: str) -> dict[str, Any]:
        get(self._runs, run).child.stop()
        return {}

    def _told(self) -> dict[str, Any]:
        # Before the records: what is over by now has its record there.
        busy = self._runs.busy()
        known = {**dict.fromkeys(busy, Record()), **self._records.all()}
        return {
            "items": [
                {"name": name, "busy": name in busy, **asdict(one)} for name, one in known.items()
            ]
        }
