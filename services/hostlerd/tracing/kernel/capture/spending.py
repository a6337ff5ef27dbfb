"""What a trace has cost so far, against its budget."""

from __future__ import annotations

import time

from hostlerd.tracing.model.capture import Budget

# What a call is slowed by on the traced side; measured with `dd bs=1`, where it is 0.3 us.
_CALL_S = 0.3e-6
# CPU is judged over a second or more: in less, one large batch would be over any share.
_WINDOW_S = 1.0


class Spending:
    """Counts, and says when one limit is met."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._events = 0
        self._bytes = 0
        self._began = self._window = time.monotonic()
        self._cpu_s = time.process_time()
        self._seen = 0

    def events_left(self) -> int:
        """How many events may still be handed on."""
        return self._budget.events - self._events

    def spend(self, events: int, data_bytes: int, seen: int) -> str:
        """Count what is handed on, and calls `seen` since the start; the limit met or nothing."""
        self._events += events
        self._bytes += data_bytes
        if self._events >= self._budget.events:
            return "events"
        if self._bytes >= self._budget.bytes:
            return "bytes"
        if time.monotonic() - self._began >= self._budget.seconds:
            return "seconds"
        return "cpu" if self._cpu_share(seen) > self._budget.cpu_share else ""

    def _cpu_share(self, seen: int) -> float:
        now = time.monotonic()
        passed_s = now - self._window
        if passed_s < _WINDOW_S:
            return 0.0
        cpu_s = time.process_time()
        share = (cpu_s - self._cpu_s + (seen - self._seen) * _CALL_S) / passed_s
        self._window, self._cpu_s, self._seen = now, cpu_s, seen
        return share
