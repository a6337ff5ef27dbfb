"""What processes have written, from the journal."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from systemd import journal

from hostlerd.netns.model.process import unit_name
from hostlerd.runtime.errors import InvalidRequest, Violation

MAX_TAIL = 10_000
# What is kept for a caller who is slower than the process; beyond it, lines are dropped.
MAX_KEPT_LINES = 5_000
MAX_KEPT_BYTES = 4 << 20
MAX_LINE_BYTES = 32 << 10
BATCH_LINES = 500
BATCH_BYTES = 256 << 10


@dataclass(frozen=True, slots=True)
class Line:
    """A line that a process has written; `cursor` is where in the journal it is."""

    time: datetime
    pid: int
    message: str
    cursor: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Lines, oldest first, and how many before them were left out."""

    lines: tuple[Line, ...]
    dropped: int = 0


class Log:
    """The lines of one process, as a place in the journal that moves on. One thread at a time."""

    def __init__(self, reader: Any, first: Mapping[str, Any] | None = None) -> None:
        self._reader = reader
        self._first = first
        self._reader.get_events()

    def fileno(self) -> int:
        """Can be read when there may be new lines; then `read` must be called."""
        return int(self._reader.fileno())

    def close(self) -> None:
        """Leave the journal."""
        self._reader.close()

    def read(self, bounded: bool) -> list[Batch]:
        """Read on to the journal's end. With `bounded`, all but the last lines are dropped."""
        self._reader.process()
        kept: deque[Line] = deque()
        size = dropped = 0
        for entry in self._entries():
            line = _line(entry)
            kept.append(line)
            size += len(line.message)
            while bounded and (len(kept) > MAX_KEPT_LINES or size > MAX_KEPT_BYTES):
                size -= len(kept.popleft().message)
                dropped += 1
            if not bounded and (len(kept) >= MAX_KEPT_LINES or size >= MAX_KEPT_BYTES):
                break
        return list(_batches(kept, dropped))

    def _entries(self) -> Iterator[Mapping[str, Any]]:
        first, self._first = self._first, None
        if first:
            yield first
        yield from self._reader


def open_log(namespace: str, name: str, tail: int, after_cursor: str) -> Log:
    """Open the log of a process, at its last `tail` lines or after a cursor.

    Raises InvalidRequest for a cursor that is none. Source: sd-journal(3).
    """
    reader = journal.Reader()
    try:
        reader.add_match(_SYSTEMD_UNIT=unit_name(namespace, name))
        if after_cursor:
            _seek(reader, after_cursor)
            return Log(reader)
        reader.seek_tail()
        # Ends at the oldest of them, or at the very first line: the next step forward leaves it.
        first = reader.get_previous(tail)
        if not first:
            reader.seek_head()
        return Log(reader, first)
    except BaseException:
        reader.close()
        raise


def _seek(reader: Any, cursor: str) -> None:
    try:
        reader.seek_cursor(cursor)
    except (OSError, ValueError) as e:
        words = "is no place in this host's journal"
        raise InvalidRequest.of([Violation("after_cursor", words)]) from e
    entry = reader.get_next()
    if entry and not reader.test_cursor(cursor):
        # The line itself has gone: then what follows it is new.
        reader.get_previous(1)


def _line(entry: Mapping[str, Any]) -> Line:
    message = entry.get("MESSAGE", "")
    if isinstance(message, bytes):
        message = message.decode(errors="replace")
    pid = entry.get("_PID", 0)
    return Line(
        time=entry["__REALTIME_TIMESTAMP"],
        pid=pid if isinstance(pid, int) else 0,
        message=str(message)[:MAX_LINE_BYTES],
        cursor=entry["__CURSOR"],
    )


def _batches(lines: deque[Line], dropped: int) -> Iterator[Batch]:
    batch: list[Line] = []
    size = 0
    for line in lines:
        if batch and (len(batch) >= BATCH_LINES or size + len(line.message) > BATCH_BYTES):
            yield Batch(tuple(batch), dropped)
            batch, size, dropped = [], 0, 0
        batch.append(line)
        size += len(line.message)
    if batch or dropped:
        yield Batch(tuple(batch), dropped)
