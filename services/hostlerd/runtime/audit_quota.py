"""How many records of reads and refusals an identity may fill the log with; the rest is counted."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

_INTERVAL_S = 30.0
# Identities and counts beyond these share one.
_MOST = 1000
_OTHERS = "(others)"
_NAMED_BY = ("identity", "method", "status", "reason")
_Key = tuple[str, ...]


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float


@dataclass(slots=True)
class _Count:
    count: int
    first: str
    last: str


class Quota:
    """A bucket of tokens for each identity. Used by any thread."""

    def __init__(self, per_minute: float, burst: int, interval_s: float = _INTERVAL_S) -> None:
        self._per_s = per_minute / 60
        self._burst = burst
        self._interval_s = interval_s
        self._lock = threading.Lock()
        self._buckets: dict[str, _Bucket] = {}
        self._counts: dict[_Key, _Count] = {}
        self._due_at = 0.0

    def take(self, identity: str) -> bool:
        """Whether a record of its own is left for the identity; takes it."""
        now = time.monotonic()
        with self._lock:
            bucket = self._bucket(identity, now)
            filled = bucket.tokens + (now - bucket.filled_at) * self._per_s
            bucket.tokens, bucket.filled_at = min(float(self._burst), filled), now
            if bucket.tokens < 1:
                return False
            bucket.tokens -= 1
            return True

    def _bucket(self, identity: str, now: float) -> _Bucket:
        bucket = self._buckets.get(identity)
        if bucket is None and len(self._buckets) >= _MOST:
            whole_s = self._burst / self._per_s
            self._buckets = {i: b for i, b in self._buckets.items() if now - b.filled_at < whole_s}
            if len(self._buckets) >= _MOST:
                identity = _OTHERS
        return bucket or self._buckets.setdefault(identity, _Bucket(self._burst, now))

    def count(self, fields: Mapping[str, Any], number: int = 1) -> None:
        """Count a call that gets no record of its own."""
        now = datetime.now(UTC).isoformat()
        key = tuple(str(fields.get(name, "")) for name in _NAMED_BY)
        with self._lock:
            if not self._counts:
                self._due_at = time.monotonic() + self._interval_s
            if key not in self._counts and len(self._counts) >= _MOST:
                key = (_OTHERS, "", "", "")
            counted = self._counts.setdefault(key, _Count(0, now, now))
            counted.count += number
            counted.last = now

    @property
    def wait_s(self) -> float | None:
        """How long until a summary is due; None if nothing was counted."""
        with self._lock:
            return max(0.0, self._due_at - time.monotonic()) if self._counts else None

    def due(self, *, at_once: bool = False) -> list[dict[str, Any]]:
        """Answer the summaries that are due, and begin to count anew."""
        with self._lock:
            if not self._counts or not (at_once or time.monotonic() >= self._due_at):
                return []
            counts, self._counts = self._counts, {}
        return [
            {
                "kind": "summary",
                **dict(zip(_NAMED_BY, key, strict=True)),
                "count": counted.count,
                "first_time": counted.first,
                "last_time": counted.last,
            }
            for key, counted in counts.items()
        ]
