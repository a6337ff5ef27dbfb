"""The door: who may ask the program for what, a request a line."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from hostlerd.privileged import door
from hostlerd.privileged.grammar import Check, flag, record, text, whole
from hostlerd.privileged.lines import answer_lines
from hostlerd.privileged.orphans import Turns
from hostlerd.privileged.refused import Fault
from hostlerd.privileged.runs import Flag, Runs
from hostlerd.storage.copier import streams, work
from hostlerd.storage.copier.roots import declared
from hostlerd.storage.model.backup import path_fault
from hostlerd.storage.model.copies import (
    BURN_BYTES_LEAST,
    BURN_BYTES_MOST,
    BURN_ROUNDS_MOST,
    Outcome,
)
from hostlerd.storage.worker.refused import Refused

DAEMON_USER = "hostler-storage"
MAX_REQUEST_BYTES = 1 << 16
MAX_CONNECTIONS = 32
MOST_RUNS = 8
MOST_STREAMS = 8
IDLE_S = 30.0
SEND_TIMEOUT_S = 30.0
_RUN = text(re.compile(r"[0-9a-f]{32}"))


def _path(value: Any, path: str, faults: list[Fault]) -> None:
    if not isinstance(value, str) or path_fault(value):
        faults.append((path, "must be an absolute path, without . and .."))


def _path_or_none(value: Any, path: str, faults: list[Fault]) -> None:
    if value != "":
        _path(value, path, faults)


class Server:
    """The program."""

    def __init__(self, roots: Path) -> None:
        self._folder = roots
        self._streams = threading.BoundedSemaphore(MOST_STREAMS)
        self._runs: Runs[Outcome, Flag] = Runs(Outcome, Flag, _busy)
        self._turns = Turns()
        copy = {"source": _path, "target": _path, "manifest": flag}
        much = whole(BURN_BYTES_LEAST, BURN_BYTES_MOST)
        burn = {"folder": _path, "size_bytes": much, "rounds": whole(1, BURN_ROUNDS_MOST)}
        verify = {"manifest": _path, "root": _path_or_none}
        self._table: Mapping[str, tuple[Mapping[str, Check], Callable[..., dict[str, Any]]]] = {
            "Look": ({"run": _RUN}, self._look),
            "Stop": ({"run": _RUN}, self._stop),
            "Settle": ({}, dict),
            "See": (copy, self._see),
            "BeginCopy": (copy, self._copy),
            "BeginVerify": (verify, self._verify),
            "BeginBurnIn": (burn, self._burn),
        }

    @property
    def operations(self) -> Mapping[str, frozenset[str]]:
        """What can be asked, and the fields that each has."""
        return {name: frozenset(checks) for name, (checks, _) in self._table.items()}

    def serve(self, listen: Path | None, idle_s: float) -> None:
        """Serve until nobody has asked for a while and nothing goes on."""
        listener = door.listening_socket("storage-copier", listen)
        allowed = door.ROOT | door.uid_of(DAEMON_USER)
        while True:
            door.serve(listener, self._answer, allowed, MAX_CONNECTIONS, idle_s)
            if not self._runs.is_busy():
                return

    def _answer(self, peer: socket.socket) -> None:
        peer.settimeout(IDLE_S)
        # A line begins with a brace, a frame with the length of what is short.
        if peer.recv(1, socket.MSG_PEEK) == b"\0":
            self._stream(peer)
            return

        def answer(asked: Any) -> dict[str, Any]:
            return self._carry_out(asked, peer)

        answer_lines(peer, answer, MAX_REQUEST_BYTES, IDLE_S, SEND_TIMEOUT_S)

    def _stream(self, peer: socket.socket) -> None:
        if not self._streams.acquire(blocking=False):
            busy = Refused("COPY_BUSY", f"{MOST_STREAMS} streams go on already")
            streams.Frames(peer).tell(b"R", busy.answer())
            return
        try:
            streams.serve(peer, self._folder, _path)
        finally:
            self._streams.release()

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

    def _see(self, source: str, target: str, manifest: bool) -> dict[str, Any]:
        return work.see(declared(self._folder), source, target, manifest)

    def _copy(self, source: str, target: str, manifest: bool) -> dict[str, Any]:
        roots = declared(self._folder)
        # What is wrong is told at once.
        work.see(roots, source, target, manifest)
        return self._begin(
            f"copy to {target}", lambda run: work.copy(run, roots, source, target, manifest)
        )

    def _verify(self, manifest: str, root: str) -> dict[str, Any]:
        roots = declared(self._folder)
        return self._begin(
            f"look at {root or manifest}", lambda run: work.verify(run, roots, manifest, root)
        )

    def _burn(self, folder: str, size_bytes: int, rounds: int) -> dict[str, Any]:
        roots = declared(self._folder)
        return self._begin(
            f"burn-in of {folder}", lambda run: work.burn(run, roots, folder, size_bytes, rounds)
        )

    def _begin(self, name: str, do: Callable[[work.CopyRun], Outcome]) -> dict[str, Any]:
        if len(self._runs.busy()) >= MOST_RUNS:
            raise Refused("COPY_BUSY", f"{MOST_RUNS} copies go on already")
        return {"run": self._runs.begin(name, do, lambda outcome: None)}

    def _look(self, run: str) -> dict[str, Any]:
        return self._get(run).seen()

    def _stop(self, run: str) -> dict[str, Any]:
        self._get(run).child.stop()
        return {}

    def _get(self, run_id: str) -> work.CopyRun:
        found = self._runs.find(run_id)
        if found is None:
            raise Refused("RUN_NOT_FOUND", "no such run is known: its program has ended since")
        return found


def _busy(name: str, activity: str) -> Refused:
    return Refused("COPY_BUSY", f"{name} goes on already: {activity}")
