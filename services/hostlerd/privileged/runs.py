"""Runs: what was begun at a door and goes on in a thread, one at a time for each name."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Generic, Protocol, TypeVar

from hostlerd.privileged.refused import Refused

_KEPT = 256
_MESSAGE_MOST = 8000


class Stopped(Exception):
    """The run was told to stop."""


class Child(Protocol):
    """What does the work just now, and whether it is to stop."""

    stopped: bool

    def stop(self) -> None:
        """Have it end by itself."""
        ...


#: How a run ended: a dataclass with reason, empty if it went well, message, unix_s and seconds.
Ended = TypeVar("Ended", bound=Any)
C = TypeVar("C", bound=Child)


@dataclass(slots=True)
class Flag:
    """A child that is looked at by whoever does the work."""

    stopped: bool = False

    def stop(self) -> None:
        """Have it end at its next look."""
        self.stopped = True


@dataclass(slots=True)
class Run(Generic[Ended, C]):
    """One run. What it tells of itself is read while it goes on."""

    name: str
    child: C
    done: int = 0
    total: int = 0
    activity: str = ""
    outcome: Ended | None = None
    metadata: dict[str, str] = field(default_factory=dict)

    def tell(self, activity: str, done: int = 0, total: int = 0) -> None:
        """Say how far it is. Raises Stopped if it is not to go on."""
        self.activity, self.done, self.total = activity, done, total
        if self.child.stopped:
            raise Stopped

    def seen(self) -> dict[str, Any]:
        """What is told to who looks."""
        ended: Any = self.outcome
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


class Runs(Generic[Ended, C]):
    """The runs of one program. `refuse_busy` makes the refusal of one that goes on already."""

    def __init__(
        self,
        outcome: Callable[..., Ended],
        child: Callable[[], C],
        refuse_busy: Callable[[str, str], Refused],
    ) -> None:
        self._outcome = outcome
        self._child = child
        self._refuse_busy = refuse_busy
        self._lock = threading.Lock()
        self._runs: OrderedDict[str, Run[Ended, C]] = OrderedDict()
        self._threads: list[threading.Thread] = []

    def begin(
        self, name: str, work: Callable[[Run[Ended, C]], Ended], note: Callable[[Ended], None]
    ) -> str:
        """Begin a run; answer its id. `work` raises Refused, OSError, Stopped. Raises Refused."""
        with self._lock:
            for one in self._runs.values():
                if one.name == name and one.outcome is None:
                    raise self._refuse_busy(name, one.activity)
            run_id, run = (
                secrets.token_hex(16),
                Run[Ended, C](name, self._child(), activity="beginning"),
            )
            self._runs[run_id] = run
            while len(self._runs) > _KEPT:
                oldest = next(key for key, one in self._runs.items() if one.outcome is not None)
                del self._runs[oldest]
            thread = threading.Thread(target=self._carry_out, args=(run, work, note))
            thread.start()
            self._threads = [*(t for t in self._threads if t.is_alive()), thread]
        return run_id

    def find(self, run_id: str) -> Run[Ended, C] | None:
        """The run of this id; None if none is known: its program has ended since."""
        with self._lock:
            return self._runs.get(run_id)

    def is_busy(self) -> bool:
        """Whether any goes on."""
        return any(thread.is_alive() for thread in self._threads)

    def busy(self) -> set[str]:
        """The names of which one goes on."""
        with self._lock:
            return {one.name for one in self._runs.values() if one.outcome is None}

    def _carry_out(
        self,
        run: Run[Ended, C],
        work: Callable[[Run[Ended, C]], Ended],
        note: Callable[[Ended], None],
    ) -> None:
        began, clock = int(time.time()), time.monotonic()
        # What is neither of those is a fault of ours; whoever looks is told of it all the same.
        words = "the program failed; its journal says why"
        outcome = self._outcome(reason="PROGRAM_FAILED", message=words)
        try:
            outcome = work(run)
        except Stopped:
            outcome = self._outcome(reason="STOPPED", message="it was told to stop")
        except Refused as e:
            run.metadata = getattr(e, "metadata", {})
            outcome = self._outcome(reason=e.reason, message=e.message[:_MESSAGE_MOST])
        except OSError as e:
            words = f"{e.filename or 'kernel'}: {e.strerror}"
            outcome = self._outcome(reason="SYSTEM", message=words)
        finally:
            seconds = round(time.monotonic() - clock, 3)
            outcome = replace(outcome, unix_s=began, seconds=seconds)
            try:
                note(outcome)
            finally:
                run.outcome = outcome
