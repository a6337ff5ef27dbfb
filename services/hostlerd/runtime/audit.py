"""The audit log: one JSON line a record, each with the hash of the one before.

A writer thread of its own keeps the order and the chain; what must be on disk before the caller
goes on waits for fsync, and records that wait together share one. Nobody waits for ever: a disk
that does not answer is a degraded log, not a frozen host.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from hostler.core.audit import Anchor, hash_of
from hostlerd.runtime import audit_journal, audit_keep
from hostlerd.runtime.audit_chain import Chain, Wanted, Written
from hostlerd.runtime.audit_files import records
from hostlerd.runtime.audit_quota import Quota
from hostlerd.runtime.config import AuditBounds, Configuration, Paths
from hostlerd.runtime.log import get_log

__all__ = ["Anchor", "AuditLog", "LogState", "hash_of", "records"]

log = get_log("runtime.audit")

# How long a caller waits for the disk before the log counts as degraded.
_PATIENCE_S = 5.0
# What may wait for a disk that does not answer; beyond it only the journal is told.
_MOST_WAITING = 10_000
_MOST_TOGETHER = 256
_LOOK_S = 1.0


@dataclass(frozen=True, slots=True)
class LogState:
    """Where the log stands. `journal_from_seq` is the first record that is in the journal alone."""

    end: Anchor
    journal_from_seq: int
    problem: str


@dataclass(frozen=True, slots=True)
class _Entry:
    wanted: Wanted
    settle: Callable[[Written], None]
    identity: str = ""


class AuditLog:
    """Appends to one log. What touches the disk runs in the writer thread alone."""

    def __init__(
        self,
        path: Path,
        bounds: AuditBounds | None = None,
        spare: Path | None = None,
        *,
        tend: bool = False,
    ) -> None:
        self.path = path
        self.bounds = bounds or AuditBounds()
        self._quota = Quota(self.bounds.reads_per_minute, self.bounds.reads_burst)
        self._chain = Chain(path, self.bounds, spare)
        self._tend = tend and self.bounds.compress
        self._tender: threading.Thread | None = None
        self._began: float | None = None
        self._looked = self._complained = -_PATIENCE_S
        self._queue: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    @classmethod
    def of(cls, paths: Paths, configuration: Configuration, *, tend: bool = False) -> Self:
        """Open the log of a domain's process. `tend`: compress closed files beside the work."""
        return cls(paths.logs / "audit.jsonl", configuration.audit, paths.run, tend=tend)

    @property
    def problem(self) -> str:
        """What keeps the log from being written as it should; empty if all is well."""
        began = self._began
        if began is not None and (since := time.monotonic() - began) > _PATIENCE_S:
            return f"the disk of the audit log has not answered for {since:.0f} s"
        if self._chain.problem and time.monotonic() - self._looked > _LOOK_S:
            # Nobody may have anything to write, and it would be seen only then.
            self._looked = time.monotonic()
            self._queue.put(_LOOK)
        return self._chain.problem

    @property
    def state(self) -> LogState:
        """Where the log stands, as far as this process knows."""
        return LogState(self._chain.end, self._chain.journal_from_seq, self.problem)

    def append(
        self, *, durable: bool, essential: bool = True, **fields: Any
    ) -> asyncio.Future[Anchor]:
        """Write a record. The future ends when it is written; if durable, when it is on disk.

        What the disk does not take goes to the journal, if it is essential. Fails with OSError if
        it is not, if the journal takes nothing either, or after 5 s without an answer.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Anchor] = loop.create_future()
        # A reader that is not waited for must not end in a warning of the loop.
        done.add_done_callback(lambda f: f.cancelled() or f.exception())

        def settle(result: Written) -> None:
            try:
                loop.call_soon_threadsafe(_settle, done, result)
            except RuntimeError:
                log.warning("audit record written after its caller had gone")

        wanted = Wanted(fields, durable, essential)
        if self._hangs():
            self._give_up(wanted, done)
        elif durable:
            timer = loop.call_later(_PATIENCE_S, self._give_up, wanted, done)
            done.add_done_callback(lambda _: timer.cancel())
        if not done.done() or (essential and self._queue.qsize() < _MOST_WAITING):
            self._queue.put(_Entry(wanted, settle))
        return done

    def write(self, **fields: Any) -> Anchor:
        """Write a record and wait for the disk: for processes without a loop. Raises OSError."""
        done: Future[Anchor] = Future()
        wanted = Wanted(fields, durable=True)
        self._queue.put(_Entry(wanted, lambda result: _settle(done, result)))
        try:
            return done.result(_PATIENCE_S)
        except TimeoutError as e:
            _tell_journal(wanted)
            raise _no_answer() from e

    def note(self, **fields: Any) -> None:
        """Write a record of a read or a refusal, if its identity has not written too many.

        Those beyond its quota, and all while the log is degraded, are counted: a summary tells
        who, what and how often.
        """
        identity = str(fields.get("identity", ""))
        waiting = self._queue.qsize() >= _MOST_WAITING
        bucket = f"{identity} {fields.get('status') == 'OK'}"
        if self._chain.problem or waiting or self._hangs() or not self._quota.take(bucket):
            pending = self._quota.wait_s is not None
            self._quota.count(fields)
            if not pending and not waiting:
                # The writer learns that there is something to sum up by and by.
                self._queue.put(_LOOK)
            return

        def settle(result: Written) -> None:
            if isinstance(result, OSError):
                self._quota.count(fields)

        self._queue.put(_Entry(Wanted(fields, durable=False, essential=False), settle))

    def close(self) -> None:
        """Write what is waiting and end the thread, unless the disk does not answer."""
        self._queue.put(None)
        self._thread.join(2 * _PATIENCE_S)
        if self._tender is not None:
            self._tender.join(2 * _PATIENCE_S)

    def _hangs(self) -> bool:
        began = self._began
        return began is not None and time.monotonic() - began > _PATIENCE_S

    def _give_up(self, wanted: Wanted, done: asyncio.Future[Anchor]) -> None:
        """Have a caller go on without the disk; the record is still written when it answers."""
        if done.done():
            return
        now = time.monotonic()
        if now - self._complained > _PATIENCE_S:
            self._complained = now
            log.error("audit log does not answer", path=self.path)
        if wanted.essential:
            _tell_journal(wanted)
        done.set_exception(_no_answer())

    def _run(self) -> None:
        last = False
        while not last:
            batch: list[_Entry] = []
            try:
                entry = self._queue.get(timeout=self._quota.wait_s)
                while entry is not None:
                    batch.append(entry)
                    if len(batch) == _MOST_TOGETHER or self._queue.empty():
                        break
                    entry = self._queue.get()
                last = entry is None
            except queue.Empty:
                pass
            batch += [self._summary(fields) for fields in self._quota.due(at_once=last)]
            if batch:
                self._write(batch)
        self._chain.close()

    def _summary(self, fields: dict[str, Any]) -> _Entry:
        def settle(result: Written) -> None:
            if isinstance(result, OSError):
                self._quota.count(fields, fields["count"])

        return _Entry(Wanted(fields, durable=False), settle)

    def _write(self, batch: Sequence[_Entry]) -> None:
        entries = [entry for entry in batch if entry is not _LOOK]
        self._began = time.monotonic()
        results = self._chain.write([entry.wanted for entry in entries])
        self._began = None
        for entry, result in zip(entries, results, strict=True):
            entry.settle(result)
        if self._tend and self._chain.closed_some:
            self._chain.closed_some = False
            self._compress()

    def _compress(self) -> None:
        """Compress closed files in a thread of its own, unless one is at it already."""
        if self._tender is None or not self._tender.is_alive():
            self._tender = threading.Thread(target=self._tend_files, name="audit-gz", daemon=True)
            self._tender.start()

    def _tend_files(self) -> None:
        try:
            audit_keep.compress(self.path)
        except OSError as e:
            log.warning("closed audit files not compressed", error=e.strerror)


_LOOK = _Entry(Wanted({}, durable=False), lambda _: None)


def _settle(done: asyncio.Future[Anchor] | Future[Anchor], result: Written) -> None:
    if done.done():
        return
    if isinstance(result, OSError):
        done.set_exception(result)
    else:
        done.set_result(result)


def _no_answer() -> OSError:
    return OSError(errno.ETIMEDOUT, f"the disk has not answered within {_PATIENCE_S:.0f} s")


def _tell_journal(wanted: Wanted) -> None:
    """Send a record to the journal that has no place in the chain yet."""
    text = json.dumps(dict(wanted.fields))
    try:
        audit_journal.send(
            audit_journal.UNCHAINED,
            "an audit record waits for the disk of the log",
            {"HOSTLER_AUDIT_LINE": text, "HOSTLER_AUDIT_PID": os.getpid()},
        )
    except OSError as e:
        log.error("the journal takes no audit records either", error=e.strerror)
