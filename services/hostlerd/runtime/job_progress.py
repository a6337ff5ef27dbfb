"""How far a job is: noted at every step, shown four times a second; here it is told to stop."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, replace

from hostler.api.common.v1 import change_pb2
from hostlerd.runtime.errors import Code, DomainError
from hostlerd.runtime.job import Progress
from hostlerd.runtime.jobs import JobStore

TICK_S = 0.25
_RATE_OVER_S = 10.0
_MOST_LEAVES = 1000
_AND_MORE = "; and more"


class JobCancelled(DomainError):
    """Somebody wanted the job stopped; what it had done is taken back."""

    code, reason = Code.CANCELLED, "JOB_CANCELLED"


class JobStopped(DomainError):
    """The job's process was told to end; what the job had done is taken back."""

    code, reason = Code.ABORTED, "JOB_STOPPED"


@dataclass(frozen=True, slots=True)
class _Sample:
    moment: float
    done: int


class JobProgress:
    """Is told of steps in a worker thread, and shows them from the loop by `tick`."""

    def __init__(self, store: JobStore, job_id: str) -> None:
        self._store = store
        self._job_id = job_id
        self._lock = threading.Lock()
        self._now = Progress(seq=1, activity="planning")
        self._shown: Progress | None = None
        self._samples: deque[_Sample] = deque()
        self._stop: DomainError | None = None

    @property
    def now(self) -> Progress:
        """Where it is; its seq is that of the state that was shown last."""
        return self._now

    def step(self, done: int, total: int, activity: str) -> None:
        """Note how many steps are done and which comes next. Raises what `stop` was given."""
        with self._lock:
            if self._stop is not None:
                self._now = replace(self._now, done=done, total=total, activity="taking back")
                stays = self._now.leaves
                words = f"this stays: {stays}" if stays else "everything was taken back"
                self._stop.message = f"{self._stop.message}; {words}"
                raise self._stop
            self._now = replace(self._now, done=done, total=total, activity=activity)

    def stays(self, words: str) -> None:
        """Note that a step was done that cancelling does not take back."""
        with self._lock:
            leaves = f"{self._now.leaves}; {words}" if self._now.leaves else words
            if len(leaves) > _MOST_LEAVES:
                leaves = f"{leaves[:_MOST_LEAVES].removesuffix(_AND_MORE)}{_AND_MORE}"
            self._now = replace(self._now, leaves=leaves)

    def applied(self, change: change_pb2.Change) -> None:
        """Note on disk that all steps are done, before the change's journal says so."""
        with self._lock:
            total = self._now.total
            self._now = replace(self._now, done=total, activity="")
        self._store.note_applied(self._job_id, change.SerializeToString())

    def follow(self, unit: str, words: str, leaves: str) -> None:
        """Note on disk that the steps are done, and count something else from now on."""
        self._store.note_following(self._job_id, words)
        if leaves:
            self.stays(leaves)
        with self._lock:
            self._samples.clear()
            self._now = replace(self._now, done=0, total=0, unit=unit, activity=words)

    def stop(self, why: DomainError) -> None:
        """Have the change stopped at its next step, and taken back."""
        with self._lock:
            self._stop = self._stop or why

    def tick(self) -> None:
        """Show what is new, and look whether somebody wants the job stopped. Raises OSError."""
        if self._stop is None and self._store.is_cancelled(self._job_id):
            self.stop(JobCancelled("the job was cancelled"))
        with self._lock:
            shown = self._measured(time.monotonic())
            if self._shown is not None and replace(shown, seq=self._shown.seq) == self._shown:
                return
            self._now = self._shown = replace(shown, seq=shown.seq + 1)
        self._store.report(self._job_id, self._shown)

    def _measured(self, now: float) -> Progress:
        """Answer where it is, with the rate of the last ten seconds."""
        if not self._now.total:
            # Planning takes its time, too; the rate is that of the steps.
            return self._now
        self._samples.append(_Sample(now, self._now.done))
        while len(self._samples) > 2 and self._samples[1].moment < now - _RATE_OVER_S:
            self._samples.popleft()
        first = self._samples[0]
        if self._stop is not None or now == first.moment or self._now.done == first.done:
            return replace(self._now, rate=0.0, remaining_s=None)
        rate = (self._now.done - first.done) / (now - first.moment)
        left = max(0, self._now.total - self._now.done)
        return replace(self._now, rate=rate, remaining_s=left / rate)
