"""The thread that stores what is collected, from many hosts, thousands of records at a time."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hostler.packet_retention import Retention
from hostler.packet_row import row_of
from hostler.packet_store import (
    Gap,
    OtherCollector,
    PacketStore,
    PacketStoreError,
    Portion,
    Position,
)
from hostler.packet_wanted import Wanted

MOST_WAITING = 100_000
"""How many records may wait; then hosts are read no further, and their daemons keep them."""
_BATCH = 5_000
_LINGER_S = 0.25
_LONGEST_PAUSE_S = 10.0


@dataclass(frozen=True, slots=True)
class Batch:
    """A FollowPacketLogResponse of a host."""

    host: str
    answer: Any

    @property
    def weight(self) -> int:
        """How much room it takes: one without records must not wait without end either."""
        return 1 + len(self.answer.records)


@dataclass
class Totals:
    """What a collector has done so far."""

    stored: int = 0
    unwanted: int = 0
    lost: int = 0
    lost_at_socket: int = 0
    expired: int = 0
    writes: int = 0
    seconds: float = field(default=0.0)


class PacketWriter(threading.Thread):
    """Stores batches in the order in which they are offered, until it is told to end.

    `failure` says why it has ended before that. What a database does not take is offered to it
    again until it does, or until the writer is told to end; `say` is told so.
    """

    def __init__(
        self, store: PacketStore, retention: Retention, say: Callable[[str], None]
    ) -> None:
        super().__init__(name="packet-writer", daemon=True)
        self.totals = Totals()
        self.failure: Exception | None = None
        self._store = store
        self._retention = retention
        self._say = say
        self._wanted = Wanted(store, say)
        self._waiting: deque[Batch] = deque()
        self._records = 0
        self._changed = threading.Condition()
        self._ending = False
        self._positions: dict[tuple[str, str], Position] = {}

    @property
    def has_room(self) -> bool:
        """Whether another batch may be offered."""
        return self._records < MOST_WAITING

    def offer(self, batch: Batch) -> None:
        """Have a batch stored."""
        with self._changed:
            self._waiting.append(batch)
            self._records += batch.weight
            self._changed.notify()

    def end(self, timeout_s: float) -> bool:
        """Have it store what waits and end; answer whether it has."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        self.join(timeout_s)
        return not self.is_alive()

    def run(self) -> None:
        """Store until the end."""
        try:
            self._work()
        except Exception as error:  # noqa: BLE001 - told by the collector, which ends with it
            self.failure = error

    def _work(self) -> None:
        while True:
            batches = self._take()
            if batches is None:
                return
            self._patiently(self._wanted.refresh)
            if batches:
                self._write(batches)
            self.totals.expired += self._patiently(self._expire) or 0

    def _expire(self) -> int:
        return self._retention.step(self._store)

    def _take(self) -> list[Batch] | None:
        """What is to be written next, after a pause in which more may come; None at the end."""
        with self._changed:
            if not self._waiting and not self._ending:
                self._changed.wait(1.0)
            if self._waiting and self._records < _BATCH and not self._ending:
                self._changed.wait_for(
                    lambda: self._records >= _BATCH or self._ending, timeout=_LINGER_S
                )
            if not self._waiting and self._ending:
                return None
            taken: list[Batch] = []
            records = 0
            while self._waiting and records < _BATCH:
                taken.append(self._waiting.popleft())
                records += taken[-1].weight
            return taken

    def _write(self, batches: Sequence[Batch]) -> None:
        start = time.perf_counter()
        portions = self._patiently(lambda: self._portions(batches))
        if portions is None:
            return
        tried = False

        def once() -> None:
            nonlocal tried
            if tried and self._is_stored(portions):
                # The answer to COMMIT was lost, not the transaction.
                return
            tried = True
            self._store.write(portions)

        self._patiently(once)
        for portion in portions:
            after = portion.after
            self._positions[portion.host, after.reader] = after
            self.totals.stored += len(portion.rows)
            self.totals.unwanted += portion.unwanted
            self.totals.lost += sum(gap.lost for gap in portion.gaps)
            self.totals.lost_at_socket += sum(gap.lost_at_socket for gap in portion.gaps)
        self.totals.writes += 1
        self.totals.seconds += time.perf_counter() - start
        with self._changed:
            self._records -= sum(batch.weight for batch in batches)

    def _is_stored(self, portions: Sequence[Portion]) -> bool:
        """Whether portions have been stored; all are, or none."""
        first = portions[0]
        return self._store.position(first.host, first.before.reader) == first.after

    def _portions(self, batches: Sequence[Batch]) -> list[Portion]:
        of: dict[tuple[str, str], list[Any]] = {}
        for batch in batches:
            of.setdefault((batch.host, batch.answer.reader), []).append(batch.answer)
        return [self._portion(host, reader, answers) for (host, reader), answers in of.items()]

    def _portion(self, host: str, reader: str, answers: Sequence[Any]) -> Portion:
        """Answers of one reader as rows; what the store has already is left out."""
        before = self._positions.get((host, reader)) or self._store.position(host, reader)
        rows, gaps, unwanted, last = [], [], 0, before.last_seq
        holds = self._wanted.holds
        for answer in answers:
            if answer.lost or answer.lost_at_socket:
                # Negative ones take back what was told too much: only sums are right. A host's
                # clock may be wrong: losses are told by the collector's.
                gaps.append(
                    Gap(last, max(last, answer.seq), answer.lost, answer.lost_at_socket,
                        time.time_ns())
                )  # fmt: skip
            for record in answer.records:
                if record.seq <= last:
                    continue
                last = record.seq
                if holds is None or holds(record):
                    rows.append(row_of(before.id, record))
                else:
                    unwanted += 1
            last = max(last, answer.seq)
        return Portion(host, before, last, rows, gaps, unwanted)

    def _patiently(self, work: Callable[[], Any]) -> Any:
        """Do what may fail with the database away, until it does not; None at the end.

        Raises OtherCollector, which waiting would not mend.
        """
        pause_s = 0.1
        while True:
            try:
                return work()
            except OtherCollector:
                raise
            except PacketStoreError as error:
                if self._ending:
                    raise
                self._say(f"{error}; trying again")
            with self._changed:
                self._changed.wait_for(lambda: self._ending, timeout=pause_s)
            pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)
