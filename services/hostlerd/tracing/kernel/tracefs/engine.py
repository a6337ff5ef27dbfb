"""Traces of whole hosts by tracefs: calls by number, arguments and result, and who made them."""

from __future__ import annotations

import errno
import os
import time
from collections import deque
from pathlib import Path
from typing import Self

import numpy as np

from hostler.core.trace.events import Column, Events
from hostlerd.tracing.kernel import proc
from hostlerd.tracing.kernel.capture.engine import DONE, descendants
from hostlerd.tracing.kernel.capture.kin import Accounts
from hostlerd.tracing.kernel.capture.spending import Spending
from hostlerd.tracing.kernel.strace.batch import Rows
from hostlerd.tracing.kernel.strace.processes import Process
from hostlerd.tracing.kernel.tracefs import batch
from hostlerd.tracing.kernel.tracefs.filters import filters
from hostlerd.tracing.kernel.tracefs.pairing import Pairing
from hostlerd.tracing.kernel.tracefs.recording import Recording
from hostlerd.tracing.kernel.tracefs.records import Change, What, in_time
from hostlerd.tracing.kernel.tracefs.ring import Taken
from hostlerd.tracing.kernel.tracefs.tasks import Tasks, Timeline
from hostlerd.tracing.model.capture import Capture

_CGROUPS = "/sys/fs/cgroup"
_PAUSE_S = 0.02
# A batch costs about as much as some thousand events: a few come together before one is made.
_GATHER_S = 0.1
_MANY = 4096


class TracefsEngine:
    """One trace, with the same methods as the engine that has a tracer in the kernel."""

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._recording: Recording
        self._is_open = False
        self._pairing = Pairing()
        self._later: list[Change] = []
        self._number = self._lost = self._missing = self._many = 0
        # What was lost by when: it is judged once all that was made until then is here.
        self._losses: deque[tuple[int, int]] = deque()
        self.ended = ""
        self.has_ended = False

    def start(self) -> None:
        """Begin to record. Raises OSError where tracefs cannot be used."""
        wanted = self._capture.filter
        now_ns = time.time_ns()
        self._group = _group_of(wanted.cgroup)
        self._epoch_ns = now_ns - time.monotonic_ns()
        boot_ns = now_ns - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self._tasks = Tasks(boot_ns, self._epoch_ns)
        self._accounts = Accounts()
        self._excluded = {os.getpid(), *self._capture.excluded}
        self._recording = recording = Recording(self._capture.budget.memory_bytes)
        self._is_open = True
        try:
            recording.leave_out(_threads(self._excluded))
            # Once more for who was started in between.
            for _ in range(2 if wanted.pids else 0):
                recording.follow(_threads({*wanted.pids, *descendants(wanted.pids)}))
            recording.begin(*filters(wanted))
        except OSError:
            self.close()
            raise
        self._tasks.look()
        self._spending = Spending(self._capture.budget)

    def probe(self) -> None:
        """Set up all that a trace takes, and remove it. Raises OSError as start does."""
        Recording(self._capture.budget.memory_bytes).remove()

    def read(self, timeout_s: float) -> Events:
        """Answer the next calls, waiting up to `timeout_s` for them; empty if none came.

        After the end it goes on until there are some, or no more.
        """
        give_up = time.monotonic() + timeout_s
        if self._many < _MANY:
            time.sleep(min(timeout_s, _GATHER_S))
        while True:
            taken = self._recording.rings.take(is_over=self.has_ended)
            events = self._events(taken)
            if len(events) or events.lost or (self.has_ended and taken.is_all):
                return events
            if not self.has_ended:
                if time.monotonic() >= give_up:
                    return events
                time.sleep(_PAUSE_S)

    def end(self, reason: str) -> None:
        """Detach from the kernel; what it told before can still be read."""
        if not self.has_ended and self._is_open:
            self.has_ended, self.ended = True, reason
            self._recording.stop()

    def stop(self) -> None:
        """End because it is wanted."""
        self.end("")

    def close(self) -> None:
        """Stop, and remove all from tracefs."""
        self.stop()
        if self._is_open:
            self._is_open = False
            self._recording.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _events(self, taken: Taken) -> Events:
        parts, changes = self._recording.reader.take(taken.words, taken.cpus)
        changes += self._later
        self._later = [each for each in changes if each.time_ns > taken.settled_ns]
        changes = [each for each in changes if each.time_ns <= taken.settled_ns]
        calls = self._pairing.take(parts, taken.settled_ns)
        is_32 = self._tasks.is_32(np.unique(calls["tid"]).tolist())
        paired = self._pairing.pair(calls, is_32)
        self._missing += paired.missing
        columns = batch.columns_of(paired, is_32, self._epoch_ns)
        rows = self._assign(columns, changes)
        keeps = self._keeps(rows)[columns["process"]]
        columns = {name: column[keeps] for name, column in columns.items()}
        self._many = len(calls)
        lost = self._newly_lost(taken)
        first, self._number = self._number + 1, self._number + len(columns["number"]) + lost
        columns["number"] = np.arange(first, first + len(columns["number"]), dtype="<u8")
        self._judge(len(columns["number"]))
        return batch.events_of(columns, rows, self._accounts, lost)

    def _assign(self, columns: dict[str, Column], changes: list[Change]) -> Rows[Process]:
        """Set whose calls they are; answers the processes."""
        rows, timeline = Rows(Process(0)), Timeline()
        tids = np.unique(columns["tid"]).tolist()
        begun = set(filter(self._tasks.knows, tids))
        for tid in begun:
            timeline.put(tid, 0, rows.of(self._tasks.of(tid)))
        ends_ns = batch.ends_of(columns, self._epoch_ns)
        gone: set[int] = set()
        for change in in_time([*changes, *batch.changes_of(columns, ends_ns)]):
            for tid in self._tasks.apply(change):
                # Who has just been made was nothing before.
                time_ns = change.time_ns if tid in begun else 0
                begun.add(tid)
                timeline.put(tid, time_ns, rows.of(self._tasks.of(tid)))
            gone.discard(change.other)
            if change.what is What.GONE:
                gone.add(change.tid)
        for tid in set(tids) - begun:
            timeline.put(tid, 0, rows.of(self._tasks.of(tid)))
        columns["process"] = timeline.rows(columns["tid"].astype("<i4"), ends_ns)
        self._tasks.add_kin(rows)
        for tid in gone:
            self._tasks.forget(tid)
            self._pairing.forget(tid)
        return rows

    def _keeps(self, rows: Rows[Process]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Which processes are traced, as far as the kernel has not decided it."""
        wanted = self._group
        return np.array(
            [
                process.pid not in self._excluded
                and (not wanted or (process.cgroup + b"/").startswith(wanted + b"/"))
                for process in rows.values
            ],
            bool,
        )

    def _newly_lost(self, taken: Taken) -> int:
        """Calls of which neither end was kept: of the others, one end is here and one missing."""
        self._made, lost = self._recording.counts()
        if lost and (not self._losses or self._losses[-1][1] != lost):
            self._losses.append((time.monotonic_ns(), lost))
        lost = 0
        while self._losses and self._losses[0][0] <= taken.settled_ns:
            lost = self._losses[0][1]
            if len(self._losses) == 1:
                break
            self._losses.popleft()
        # Whoever has not returned may have, with nobody to tell.
        is_over = self.has_ended and taken.is_all
        open_ends = -1 if is_over else self._pairing.waiting()
        whole = max(self._lost, (lost - self._missing - open_ends) // 2)
        new, self._lost = whole - self._lost, whole
        return new

    def _judge(self, events: int) -> None:
        reason = self._spending.spend(events, 0, self._made // 2)
        if not reason and not events and self._capture.filter.pids and self._are_all_gone():
            reason = DONE
        if reason:
            self.end(reason)

    def _are_all_gone(self) -> bool:
        return not any(map(_is_there, self._recording.followed()))


def _group_of(folder: str) -> bytes:
    """A control group as /proc calls it; empty for none. Raises OSError if there is none there."""
    if not folder:
        return b""
    Path(folder).stat()
    # Where the older hierarchies are there too, the unified one is not at the top.
    is_top = Path(_CGROUPS, "cgroup.procs").exists()
    mount = f"{_CGROUPS}/" if is_top else f"{_CGROUPS}/unified/"
    if not folder.startswith(mount):
        raise OSError(errno.EINVAL, "not in the unified hierarchy", folder)
    return b"/" + folder.removeprefix(mount).rstrip("/").encode()


def _threads(pids: set[int]) -> list[int]:
    return sorted({tid for pid in pids for tid in proc.numbers(f"/proc/{pid}/task")})


def _is_there(tid: int) -> bool:
    return bool(proc.text(f"/proc/{tid}/stat"))
