"""The end of the audit log, where its writers take turns: one chain, whoever adds to it.

Daemon, job, revert and restore are processes of their own. Each takes the log's lock, finds the
end where the last one left it, and adds to it. What the disk does not take goes to the journal.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hostler.core.audit import START, Anchor, chained, parse
from hostlerd.runtime import audit_keep
from hostlerd.runtime.audit_files import LogFile, closed_name, first_record, last_record
from hostlerd.runtime.audit_overflow import Overflow
from hostlerd.runtime.audit_space import Space
from hostlerd.runtime.config import AuditBounds
from hostlerd.runtime.log import get_log

log = get_log("runtime.audit")

# Longer than any line that is written.
_TAIL_BYTES = 1 << 20
_MODE = 0o640


@dataclass(frozen=True, slots=True)
class Wanted:
    """A record to be written. What is not essential is refused while the log is degraded."""

    fields: Mapping[str, Any]
    durable: bool
    essential: bool = True


Written = Anchor | OSError


class _Draft:
    """Lines that will come after an end."""

    def __init__(self, end: Anchor) -> None:
        self.end = end
        self.lines: list[bytes] = []
        self.anchors: list[Anchor] = []

    def add(self, fields: Mapping[str, Any]) -> Anchor:
        line, self.end = chained(fields, datetime.now(UTC).isoformat(), self.end)
        self.lines.append(line)
        self.anchors.append(self.end)
        return self.end


class Chain:
    """One process's hold of the log. For one thread; every method may wait for the disk."""

    def __init__(self, path: Path, bounds: AuditBounds, spare: Path | None) -> None:
        self._path = path
        self._bounds = bounds
        self._overflow = Overflow(path, spare)
        self._space = Space(bounds.reserve_bytes)
        self._lock = self._file = -1
        # Inode and size of the file as this process has left it.
        self._left = (0, -1)
        self._first_seq = 0
        self._end = START
        self._spilling = ""
        self._told = ""
        self._rotate_bytes = bounds.file_bytes
        self._look_for_surplus = False
        # Whether files were closed since somebody has looked after them.
        self.closed_some = False

    @property
    def problem(self) -> str:
        """What keeps the log from being written as it should; empty if all is well."""
        return self._spilling or self._space.problem

    def write(self, batch: Sequence[Wanted]) -> list[Written]:
        """Add records in order; those that wait for the disk share one wait.

        Answers for each its place, or why it has none.
        """
        try:
            with self._locked():
                try:
                    return self._write(batch)
                except OSError as e:
                    return self._spill(batch, e)
        except OSError as e:
            # Not even the lock: what is sent to the journal now could not be given a place.
            self._spilling = f"the audit log cannot be opened: {e.strerror}"
            return [e for _ in batch]

    def close(self) -> None:
        """Close the files."""
        for file in (self._file, self._lock):
            if file >= 0:
                os.close(file)
        self._file = self._lock = -1

    @property
    def end(self) -> Anchor:
        """The last record that this process knows of."""
        return self._overflow.spilled.end if self._overflow.spilled else self._end

    @property
    def journal_from_seq(self) -> int:
        """The first record that is in the journal alone; 0 if there is none."""
        return self._overflow.spilled.from_seq if self._overflow.spilled else 0

    @contextmanager
    def _locked(self) -> Iterator[None]:
        if self._lock < 0:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC
            self._lock = os.open(self._path.with_suffix(".lock"), flags, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            self._overflow.prepare()
        else:
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _write(self, batch: Sequence[Wanted]) -> list[Written]:
        self._overflow.look()
        torn = self._arrive()
        self._space.look(self._file, self._left[1])
        if self._overflow.spilled is not None and self._space.problem:
            # One gap, not many: what little there is would be full again with the next record.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        healthy = not (self.problem or torn or self._overflow.spilled)
        if self._left[1] >= self._rotate_bytes and healthy:
            self._rotate()
        draft = _Draft(self.end)
        data, surplus = self._own_records(draft, torn)
        degraded = bool(self._space.problem)
        results: list[Written] = [
            OSError(errno.ENOSPC, self._space.problem)
            if degraded and not wanted.essential
            else draft.add(wanted.fields)
            for wanted in batch
        ]
        data += b"".join(draft.lines)
        if data:
            self._put(data)
            self._end = draft.end
            self._after(draft, surplus, durable=any(wanted.durable for wanted in batch))
        return results

    def _own_records(self, draft: _Draft, torn: int) -> tuple[bytes, list[Path]]:
        """Draft what the log has to say of itself; answers the bytes before it, and old files."""
        if torn:
            draft.add({"kind": "recovery", "torn_bytes": torn})
        if self._overflow.spilled is not None:
            draft.add(self._overflow.spilled.record())
        if self._space.problem and not self._told:
            draft.add({"kind": "degraded", "problem": self._space.problem})
            self._told = self._space.problem
        elif (self._told or self._overflow.spilled) and not self._space.problem:
            draft.add({"kind": "recovered", "problem": self._told or "no room for records"})
        surplus = []
        if self._look_for_surplus:
            files = audit_keep.surplus(self._path, self._bounds)
            note = audit_keep.dropped(self._path, files) if files else None
            if note is not None:
                draft.add(note)
                surplus = [file.path for file in files]
        return b"\n" if torn else b"", surplus

    def _put(self, data: bytes) -> None:
        """Append all, or leave the file as it was. Raises OSError."""
        inode, size = self._left
        try:
            written = os.write(self._file, data)
            if written != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            self._left = (inode, -1)
            os.ftruncate(self._file, size)
            raise
        self._left = (inode, size + len(data))

    def _after(self, draft: _Draft, surplus: Sequence[Path], *, durable: bool) -> None:
        """Make sure of what was written, and settle what depends on it."""
        self._spilling = ""
        if durable or self._overflow.spilled is not None:
            try:
                os.fdatasync(self._file)
            except OSError as e:
                self._uncertain(draft, e)
                return
        if self._overflow.spilled is not None:
            self._overflow.clear()
        if not self._space.problem:
            self._told = ""
        self._look_for_surplus = False
        for path in surplus:
            path.unlink(missing_ok=True)

    def _uncertain(self, draft: _Draft, error: OSError) -> None:
        """Send copies to the journal of what is in the file, and perhaps not on the disk."""
        self._spilling = f"the disk of the audit log: {error.strerror}; copies go to the journal"
        log.error("audit log not certain to be on disk", path=self._path, error=error.strerror)
        for line, anchor in zip(draft.lines, draft.anchors, strict=True):
            self._overflow.copy(line, anchor)

    def _spill(self, batch: Sequence[Wanted], error: OSError) -> list[Written]:
        """Send what is essential to the journal, as the next of the chain."""
        if not self._spilling:
            log.error("audit log not written", path=self._path, error=error.strerror)
        self._spilling = f"the disk of the audit log: {error.strerror}; records go to the journal"
        before = self.end
        draft = _Draft(before)
        results: list[Written] = [
            draft.add(wanted.fields) if wanted.essential else error for wanted in batch
        ]
        if not draft.lines:
            return results
        try:
            self._overflow.send(draft.lines, draft.anchors, before.head)
        except OSError as e:
            log.error("the journal takes no audit records either", error=e.strerror)
            return [error for _ in batch]
        return results

    def _arrive(self) -> int:
        """Find the end of the chain if another process has moved it.

        Answers how many bytes of a line a crash has left there; 0 if the log ends well.
        """
        try:
            status = self._path.stat()
        except FileNotFoundError:
            status = None
        if status is not None and (status.st_ino, status.st_size) == self._left:
            return 0
        if status is None or status.st_ino != self._left[0]:
            try:
                self._open()
            except OSError:
                # It may still be readable: what goes to the journal has to know its end.
                self._end = self._end_of_files()
                raise
        status = os.fstat(self._file)
        self._space.opened(status)
        self._left = (status.st_ino, status.st_size)
        return self._find_end(status.st_size)

    def _open(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._file = os.open(self._path, flags, _MODE)
        # The unit's umask would hide it from those who send it on.
        os.fchmod(self._file, _MODE)
        self._first_seq = 0
        self._rotate_bytes = self._bounds.file_bytes
        # What is too old goes when a process first opens the log, too.
        self._look_for_surplus = self.closed_some = True

    def _find_end(self, size: int) -> int:
        tail = os.pread(self._file, _TAIL_BYTES, max(0, size - _TAIL_BYTES))
        whole, _, torn = tail.rpartition(b"\n")
        self._end = START
        for line in (torn, *reversed(whole.split(b"\n"))):
            record = parse(line)
            if record is not None:
                self._end = Anchor(record["seq"], record["hash"])
                break
        else:
            self._end = self._end_of_files()
        if torn:
            log.warning("audit log had a torn tail", path=self._path, torn_bytes=len(torn))
        return len(torn)

    def _end_of_files(self) -> Anchor:
        """Answer the last record of all files: the one that is written has none, or is closed."""
        record = last_record(self._path)
        return Anchor(record["seq"], record["hash"]) if record else START

    def _rotate(self) -> None:
        """Close the file and begin another with the old head; the old one stays if that fails."""
        fresh = self._path.with_name(self._path.name + ".new")
        try:
            name = self._name_for_closed()
            file = os.open(fresh, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC, _MODE)
        except OSError as e:
            self._put_off(e)
            return
        try:
            os.fchmod(file, _MODE)
            draft = _Draft(self._end)
            draft.add({"kind": "rotated", "file": name.name, "last_seq": self._end.seq})
            os.write(file, draft.lines[0])
            os.fsync(file)
            self._swap(fresh, name)
        except OSError as e:
            os.close(file)
            self._put_off(e)
            return
        # What was laid aside for it goes back to the filesystem.
        os.ftruncate(self._file, self._left[1])
        os.close(self._file)
        self._file, self._end = file, draft.end
        status = os.fstat(file)
        self._left = (status.st_ino, status.st_size)
        self._first_seq = draft.end.seq
        self._space.opened(status)
        self._space.look(file, status.st_size)
        self._rotate_bytes = self._bounds.file_bytes
        self._look_for_surplus = self.closed_some = True

    def _name_for_closed(self) -> Path:
        if not self._first_seq:
            first = first_record(LogFile(self._path, 0, current=True))
            self._first_seq = first["seq"] if first else self._end.seq
        return closed_name(self._path, self._first_seq)

    def _swap(self, fresh: Path, name: Path) -> None:
        """Give the file its closed name, and the fresh one its place; there is always one."""
        try:
            os.link(self._path, name)
        except FileExistsError:
            # Left by a crash at this very place, unless somebody else made it.
            if name.stat().st_ino != self._left[0]:
                raise
        fresh.rename(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _put_off(self, error: OSError) -> None:
        self._rotate_bytes = self._left[1] + self._bounds.file_bytes // 16 + 1
        log.warning("audit file not closed", path=self._path, error=error.strerror)
