"""Runs: what was begun and goes on in a thread, one at a time for each backup."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from hostlerd.privileged import refused
from hostlerd.storage.backup.restic import Child, Stopped
from hostlerd.storage.model.backup import Outcome
from hostlerd.storage.worker.refused import Refused

_KEPT = 256
_MESSAGE_MOST = 8000


@dataclass(slots=True)
class Run:
    """One run. What it tells of itself is read while it goes on."""

    name: str
    child: Child = field(default_factory=Child)
    done: int = 0
    total: int = 0
    activity: str = ""
    outcome: Outcome | None = None
    metadata: dict[str, str] = field(default_factory=dict)

    def tell(self, activity: str, done: int = 0, total: int = 0) -> None:
        """Say how far it is. Raises Stopped if it is not to go on."""
        self.activity, self.done, self.total = activity, done, total
        if self.child.stopped:
            raise Stopped

    def seen(self) -> dict[str, Any]:
        """What is told to who looks."""
        ended = self.outcome
        if ended is None:
            where = {"done": self.done, "total": self.total, "activity": self.activity}
            return {"state": "running", **where}
        if not ended.reason:
            return {"state": "done", "outcome": asdict(ended)}
        return {
            "state": "failed",
            "reason": ended.reason,
            "message": ended.message,
            "metadata": self.metadata,
            "violations": [],
        }


Work = Callable[[Run], Outcome]
"""Does the work of a run. Raises Refused, OSError, Stopped."""


class Runs:
    """The runs of one program."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: OrderedDict[str, Run] = OrderedDict()
        self._threads: list[threading.Thread] = []

    def begin(self, name: str, work: Work, note: Callable[[Outcome], None]) -> str:
        """Begin a run of a backup; answer its id. Raises Refused if one goes on."""
        with self._lock:
            for one in self._runs.values():
                if one.name == name and one.outcome is None:
                    words = f"backup {name} is being worked on: {one.activity}"
                    raise Refused("BACKUP_BUSY", words, backup=name)
            run_id, run = secrets.token_hex(16), Run(name, activity="beginning")
            self._runs[run_id] = run
            while len(self._runs) > _KEPT:
                oldest = next(key for key, one in self._runs.items() if one.outcome is not None)
                del self._runs[oldest]
            thread = threading.Thread(target=_carry_out, args=(run, work, note))
            thread.start()
            self._threads = [*(t for t in self._threads if t.is_alive()), thread]
        return run_id

    def get(self, run_id: str) -> Run:
        """The run of this id. Raises Refused."""
        with self._lock:
            if run_id not in self._runs:
                raise Refused("RUN_NOT_FOUND", "no such run is known: its program has ended since")
            return self._runs[run_id]

    def is_busy(self) -> bool:
        """Whether any goes on."""
        return any(thread.is_alive() for thread in self._threads)

    def busy(self) -> set[str]:
        """The backups of which one goes on."""
        with self._lock:
            return {one.name for one in self._runs.values() if one.outcome is None}


def _carry_out(run: Run, work: Work, note: Callable[[Outcome], None]) -> None:
    began, clock = int(time.time()), time.monotonic()
    # What is neither of those is a fault of ours; whoever looks is told of it all the same.
    outcome = Outcome(reason="PROGRAM_FAILED", message="the program failed; its journal says why")
    try:
        outcome = work(run)
    except Stopped:
        outcome = Outcome(reason="STOPPED", message="it was told to stop")
    except refused.Refused as e:
        run.metadata = getattr(e, "metadata", {})
        outcome = Outcome(reason=e.reason, message=e.message[:_MESSAGE_MOST])
    except OSError as e:
        outcome = Outcome(reason="SYSTEM", message=f"{e.filename or 'kernel'}: {e.strerror}")
    finally:
        seconds = round(time.monotonic() - clock, 3)
        outcome = replace(outcome, unix_s=began, seconds=seconds)
        try:
            note(outcome)
        finally:
            run.outcome = outcome
