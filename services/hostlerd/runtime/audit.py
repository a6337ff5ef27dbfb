"""The audit log: one JSON line a record, each with the hash of the one before.

A writer thread of its own keeps the order and the chain; what must be on disk before the caller
goes on waits for fsync, and records that wait together share one.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hostlerd.runtime.log import get_log

log = get_log("runtime.audit")

_NO_HASH = "0" * 64
_TAIL_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Anchor:
    """The place of a record: its sequence number and its hash, the chain's head at that moment."""

    seq: int
    head: str


@dataclass(frozen=True, slots=True)
class _Entry:
    fields: dict[str, Any]
    durable: bool
    done: asyncio.Future[Anchor]
    loop: asyncio.AbstractEventLoop


class AuditLog:
    """Appends to one file. Everything but `append` and `close` runs in the writer thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._end = Anchor(0, _NO_HASH)
        self._size = -1
        self._queue: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    def append(self, *, durable: bool, **fields: Any) -> asyncio.Future[Anchor]:
        """Write a record. The future ends when it is written; if durable, when it is on disk.

        Fails with OSError if the disk does not take it.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Anchor] = loop.create_future()
        # A reader that is not waited for must not end in a warning of the loop.
        done.add_done_callback(lambda f: f.cancelled() or f.exception())
        self._queue.put(_Entry(fields, durable, done, loop))
        return done

    def close(self) -> None:
        """Write what is waiting and end the thread."""
        self._queue.put(None)
        self._thread.join(10)

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            batch, last = [first], False
            while not self._queue.empty() and len(batch) < 256:
                entry = self._queue.get()
                if entry is None:
                    last = True
                    break
                batch.append(entry)
            self._write(batch)
            if last:
                break
        os.close(self._file)

    def _write(self, batch: list[_Entry]) -> None:
        try:
            anchors = self._write_locked(batch)
        except OSError as e:
            log.error("audit log not written", path=self.path, error=e.strerror)
            self._size = -1
            for entry in batch:
                _resolve(entry, e)
            return
        for entry, anchor in zip(batch, anchors, strict=True):
            _resolve(entry, anchor)

    def _write_locked(self, batch: list[_Entry]) -> list[Anchor]:
        """Write a batch under the file's lock, which daemon, revert and restore share."""
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            anchors, lines = [], []
            if os.fstat(self._file).st_size != self._size:
                lines += self._catch_up()
            for entry in batch:
                lines.append(self._line(entry.fields))
                anchors.append(self._end)
            data = b"".join(lines)
            written = os.write(self._file, data)
            if written != len(data):
                # The rest of the line is lost; the next batch closes the torn tail.
                self._size = -1
                raise OSError(28, "only a part was written")
            if any(entry.durable for entry in batch):
                os.fdatasync(self._file)
            self._size = os.fstat(self._file).st_size
            return anchors
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _catch_up(self) -> list[bytes]:
        """Find the end of the chain; close a tail that a crash has torn."""
        size = os.fstat(self._file).st_size
        tail = os.pread(self._file, _TAIL_BYTES, max(0, size - _TAIL_BYTES))
        self._end = Anchor(0, _NO_HASH)
        whole, _, torn = tail.rpartition(b"\n")
        for line in (torn, *reversed(whole.split(b"\n"))):
            record = _parse(line)
            if record is not None:
                self._end = Anchor(record["seq"], record["hash"])
                break
        if not torn:
            return []
        log.warning("audit log had a torn tail", path=self.path, torn_bytes=len(torn))
        return [b"\n", self._line({"kind": "recovery", "torn_bytes": len(torn)})]

    def _line(self, fields: dict[str, Any]) -> bytes:
        record = {
            "seq": self._end.seq + 1,
            "time": datetime.now(UTC).isoformat(),
            **fields,
            "previous": self._end.head,
        }
        digest = hash_of(record)
        self._end = Anchor(record["seq"], digest)
        return json.dumps({**record, "hash": digest}, separators=(",", ":")).encode() + b"\n"


def hash_of(record: dict[str, Any]) -> str:
    """SHA-256 of a record without its own hash, in hex."""
    plain = {key: value for key, value in record.items() if key != "hash"}
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def records(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a log, oldest first; what a crash has torn is left out."""
    try:
        with path.open("rb") as lines:
            for line in lines:
                record = _parse(line)
                if record is not None:
                    yield record
    except FileNotFoundError:
        return


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    if not isinstance(record, dict) or not isinstance(record.get("seq"), int):
        return None
    return record if isinstance(record.get("hash"), str) else None


def _resolve(entry: _Entry, result: Anchor | OSError) -> None:
    def settle() -> None:
        if entry.done.done():
            return
        if isinstance(result, OSError):
            entry.done.set_exception(result)
        else:
            entry.done.set_result(result)

    try:
        entry.loop.call_soon_threadsafe(settle)
    except RuntimeError:
        log.warning("audit record written after its caller had gone")
