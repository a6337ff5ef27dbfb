"""A host with a pending group and no systemd: real watcher, real journals, a folder as the kernel.

Only what systemd does is done by the test: the watcher runs in a thread while there is something to
watch, and a domain's revert process is a call.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from journal_backing import backed, backing_of
from journal_files import Files, Put, State

from hostler.api.common.v1 import change_pb2
from hostlerd.pending import place as files
from hostlerd.pending.asking import is_pending
from hostlerd.pending.place import Place
from hostlerd.pending.watcher import Watcher
from hostlerd.runtime import call as call_context
from hostlerd.runtime import config
from hostlerd.runtime.access import Method
from hostlerd.runtime.audit import AuditLog
from hostlerd.runtime.audit_files import records
from hostlerd.runtime.call import Call, Caller
from hostlerd.runtime.pending import Pending
from hostlerd.runtime.pending_door import Door
from hostlerd.runtime.steps import Plan, Step
from hostlerd.runtime.taking_back import TakingBack

ALICE = "spiffe://t/user/alice"
BOB = "spiffe://t/user/bob"
METHOD = Method("/hostler.api.netns.v1.NamespaceService/CreateNamespace", "CHANGE")

T = TypeVar("T")


class PendingDomain:
    """One domain's processes: its changes, its door and its revert."""

    def __init__(self, host: PendingHost, name: str) -> None:
        self.name, self.host = name, host
        root = host.root / name
        self.backing = backing_of(root)
        self.kernel = Files(root / "system")
        self.changes = backed(self.kernel, root, backing=self.backing)
        place = host.place
        for top in (place.state, place.run):
            (top / name).mkdir(parents=True, exist_ok=True)
        self.pending = Pending(name, self.backing.journals, place, armed_within_s=2.0)
        self.taking_back = TakingBack(self.pending, self.backing.journals, self.backing.recovery)
        self.backing.pending = self.pending
        self.door = Door(self.pending, self.reconcile)
        paths = config.Paths(root, root / "state", root / "run", root / "logs")
        (root / "logs").mkdir(exist_ok=True)
        self.audit = AuditLog.of(paths, config.Configuration())
        self.backing.recovery.record_in(self.audit)
        self.log = root / "logs" / "audit.jsonl"

    def reconcile(self) -> None:
        with self.backing.lock.held_here(wait_s=0):
            self.backing.recovery.look()
            self.pending.reconcile()

    def revert(self) -> bool:
        """What hostler-revert@.service runs."""
        with self.backing.lock.held_here():
            self.backing.recovery.look()
            return self.taking_back.in_turn(self.audit)

    def change(
        self,
        steps: Sequence[Step],
        group: str = "",
        within_s: float = 0.0,
        *,
        by: str = ALICE,
        outside: bool = True,
        answered: bool = True,
        validate_only: bool = False,
    ) -> change_pb2.Change:
        """Make a change as a daemon does for a caller."""
        call = call_of(by, outside=outside)
        options = change_pb2.ChangeOptions(request_id=str(uuid.uuid4()))
        options.validate_only = validate_only
        if group or within_s:
            options.confirm.group = group
        if within_s:
            options.confirm.within.FromMilliseconds(int(within_s * 1000))

        async def work() -> change_pb2.Change:
            call_context.enter(call)
            done = await self.changes.carry_out(options, lambda: Plan(tuple(steps)))
            return done.change

        try:
            return asyncio.run(work())
        finally:
            if answered:
                self.backing.journals.answered(call.change_id)

    def put(self, name: str, group: str, within_s: float = 0.0, **more: Any) -> change_pb2.Change:
        """Make a change that writes one file."""
        return self.change((Put(name, "new"),), group, within_s, **more)

    def confirm(self, group: str, call: Call | None = None) -> Any:
        return self.door.confirm(call or call_of(ALICE), group)

    def state(self) -> State:
        return self.kernel.state()

    def kinds(self) -> list[str]:
        return [record["kind"] for record in records(self.log)]


class PendingHost:
    """All domains of a host, and its watcher, which `with` starts."""

    def __init__(self, root: Path, disk: Path | None = None) -> None:
        self.root = root
        self.place = Place((disk or root) / "pending", root / "run-pending", root / "doors")
        self.place.doors.mkdir()
        self._sockets = []
        self.domains = {name: PendingDomain(self, name) for name in ("netns", "firewall")}
        for name in self.domains:
            door = socket.socket(socket.AF_UNIX)
            door.bind(str(self.place.doors / f"{name}.sock"))
            self._sockets.append(door)
        self.started: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> PendingHost:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)
        for door in self._sockets:
            door.close()
        for domain in self.domains.values():
            domain.audit.close()

    @property
    def netns(self) -> PendingDomain:
        return self.domains["netns"]

    @property
    def firewall(self) -> PendingDomain:
        return self.domains["firewall"]

    def start(self, domain: str) -> None:
        """What systemctl does."""
        self.started.append(domain)
        self.domains[domain].revert()

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            watcher = Watcher(self.place, self.start)
            while not self._stop.is_set() and watcher.look():
                time.sleep(0.02)

    def settled(self, timeout_s: float = 20.0) -> None:
        """Wait until nothing is pending any more."""
        until(lambda: not is_pending(self.place), timeout_s)

    def state(self) -> dict[str, State]:
        return {name: domain.state() for name, domain in self.domains.items()}

    def ended(self) -> list[tuple[str, str]]:
        return [(e.outcome, e.reason) for e in self.netns.pending.history()]


def call_of(by: str, *, outside: bool = True, connected_at: float | None = None) -> Call:
    """A call by a connection that was accepted just now, unless said otherwise."""
    call = Call(METHOD, Caller(by, "192.0.2.1:9", by.startswith("local/")))
    call.outside = outside
    call.connected_at = time.monotonic() if connected_at is None else connected_at
    return call


def new_group() -> str:
    return str(uuid.uuid4())


def until(look: Callable[[], T], timeout_s: float = 20.0) -> T:
    end = time.monotonic() + timeout_s
    while not (seen := look()):
        assert time.monotonic() < end, f"not within {timeout_s} s"
        time.sleep(0.02)
    return seen


def put_raw(path: Path, data: bytes) -> None:
    """Write a file as a hijacked daemon would: with whatever is in it."""
    with suppress(FileNotFoundError):
        path.unlink()
    path.write_bytes(data)


__all__ = ["ALICE", "BOB", "PendingHost", "call_of", "files", "new_group", "put_raw", "until"]
