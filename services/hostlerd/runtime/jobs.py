"""Jobs on disk: what was asked for, whether it goes on, and what came of it.

`queue/ID/` holds a job until it has ended, `ended/ID/` afterwards; one rename each takes it on and
puts it away, so that a job is there whole or not at all. In its folder:

- `record.json` and `request.bin`: what was asked for. The request goes when the job has ended, for
  it may hold secrets.
- `runner`: locked by the process that does the job, as long as that lives; not empty from the
  moment on that the job was begun. Begun and not locked means dead.
- `cancel`: somebody wants it stopped.
- `applied.pb`, `recovered.json`: what is known should its process die before it can say so itself.
- `following`: all is done, and the process only watches what goes on by itself.
- `end.json` and `change.pb`: how it ended.

Progress is in the runtime folder: nobody needs it after a boot.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import shutil
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from hostler.core import files
from hostlerd.runtime.errors import DomainError
from hostlerd.runtime.job import (
    NEW_COUNT,
    End,
    Job,
    JobNotFound,
    Progress,
    Record,
    State,
    TooManyJobs,
)
from hostlerd.runtime.log import get_log

log = get_log("runtime.jobs")

_MOST_QUEUED = 32
_MOST_KEPT = 1000
_KEPT_S = 7 * 24 * 3600
_MOST_BYTES = 16 << 20
_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
# What reading a damaged record raises, or one of a version that has other fields.
_UNREADABLE = (OSError, ValueError, KeyError, TypeError)


class JobStore:
    """The jobs of one daemon. All of it blocks; many processes may use it at once."""

    def __init__(self, state: Path, run: Path) -> None:
        self._jobs = state / "jobs"
        self._queue = self._jobs / "queue"
        self._ended = self._jobs / "ended"
        self._progress = run / "jobs"

    def put(self, record: Record, request: bytes) -> None:
        """Take a job on: it is on disk, whole, when this returns. Raises TooManyJobs, OSError."""
        for folder in (self._queue, self._ended):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with files.locked(self._jobs):
            if self.place(record.id) is not None:
                return
            if len(self.queued()) >= _MOST_QUEUED:
                raise TooManyJobs(f"{_MOST_QUEUED} jobs are waiting", most=_MOST_QUEUED)
            self._prune()
            fresh = self._jobs / f".{record.id}.{secrets.token_hex(4)}"
            fresh.mkdir(mode=0o700)
            files.replace(fresh / "request.bin", request, mode=0o600)
            _write(fresh / "record.json", asdict(record))
            fresh.rename(self._queue / record.id)
            files.sync_folder(self._queue)

    def place(self, job_id: str) -> Path | None:
        """Answer the folder of a job, None if there is none."""
        if not _ID.fullmatch(job_id):
            return None
        # In the order in which it moves: what is not in the first any more is in the second.
        for folder in (self._queue, self._ended):
            if (folder / job_id).is_dir():
                return folder / job_id
        return None

    def queued(self) -> list[str]:
        """Answer the ids of the jobs that have not ended, oldest first."""
        found = []
        for place in _folders(self._queue):
            try:
                found.append((self._record(place).created, place.name))
            except _UNREADABLE as e:
                log.error("job unreadable", path=place, problem=repr(e))
        return [job_id for _, job_id in sorted(found)]

    def all(self) -> list[Job]:
        """Answer all jobs, newest first."""
        ids = {place.name for top in (self._queue, self._ended) for place in _folders(top)}
        found = []
        for job_id in ids:
            try:
                found.append(self.find(job_id))
            except (DomainError, *_UNREADABLE) as e:
                log.warning("job left out", job=job_id, problem=repr(e))
        return sorted(found, key=lambda j: (-j.record.created, j.record.id))

    def find(self, job_id: str) -> Job:
        """Answer a job as it is now. Raises JobNotFound, OSError."""
        place = self.place(job_id)
        if place is None:
            raise JobNotFound("there is no such job", job=f"jobs/{job_id[:64]}")
        try:
            return self._look(place)
        except FileNotFoundError:
            # It ended meanwhile, and moved.
            return self._look(self._ended / job_id)

    def request(self, job_id: str) -> bytes:
        """Answer the request of a job that has not ended. Raises OSError."""
        return files.read_bounded(self._queue / job_id / "request.bin", _MOST_BYTES)

    def change(self, job_id: str) -> bytes:
        """Answer the change that a job ended with, as protobuf; empty if there is none."""
        place = self.place(job_id)
        try:
            return files.read_bounded(place / "change.pb", _MOST_BYTES) if place else b""
        except FileNotFoundError:
            return b""

    @contextmanager
    def held(self, job_id: str) -> Iterator[bool]:
        """Hold a job, as only one process can; yields whether it was begun before.

        Waits for another that holds it. Raises FileNotFoundError if it has ended meanwhile.
        """
        fd = os.open(self._queue / job_id / "runner", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLKW, _flock(fcntl.F_WRLCK))
            if not (self._queue / job_id).is_dir():
                raise FileNotFoundError(2, "the job has ended", str(self._queue / job_id))
            yield os.fstat(fd).st_size > 0
        finally:
            os.close(fd)

    def begin(self, job_id: str) -> None:
        """Note on disk that a job is begun; whoever holds it may, once."""
        # Written in place: a rename would take the lock's file away.
        with (self._queue / job_id / "runner").open("wb") as stream:
            stream.write(f"{os.getpid()}\n".encode())
            stream.flush()
            os.fsync(stream.fileno())

    def ask_cancel(self, job_id: str, identity: str) -> bool:
        """Note that somebody wants a job stopped; answers whether that is news."""
        place = self._queue / job_id / "cancel"
        try:
            files.write_new(place, identity.encode(), mode=0o600)
        except FileExistsError:
            return False
        return True

    def is_cancelled(self, job_id: str) -> bool:
        """Tell whether somebody wants a job stopped."""
        return (self._queue / job_id / "cancel").exists()

    def report(self, job_id: str, progress: Progress) -> None:
        """Show how far a job is. Raises OSError."""
        self._progress.mkdir(mode=0o700, exist_ok=True)
        place = self._progress / f"{job_id}.json"
        aside = place.with_suffix(".new")
        aside.write_text(json.dumps(asdict(progress)))
        aside.rename(place)

    def progress(self, job_id: str) -> Progress | None:
        """Answer how far a job is, or was when it was last seen; None if a boot came between."""
        try:
            return Progress(**_read(self._progress / f"{job_id}.json"))
        except (OSError, ValueError, TypeError):
            return None

    def note_applied(self, job_id: str, change: bytes) -> None:
        """Note that all steps of a job are done, before their journal says so."""
        files.replace(self._queue / job_id / "applied.pb", change, mode=0o600)

    def applied(self, job_id: str) -> bytes | None:
        """Answer what `note_applied` noted."""
        try:
            return files.read_bounded(self._queue / job_id / "applied.pb", _MOST_BYTES)
        except FileNotFoundError:
            return None

    def note_following(self, job_id: str, words: str) -> None:
        """Note that a job only watches what goes on by itself, in words."""
        files.replace(self._queue / job_id / "following", words.encode(), mode=0o600)

    def following(self, job_id: str) -> str:
        """Answer what `note_following` noted; empty if nothing."""
        try:
            return files.read_bounded(self._queue / job_id / "following", _MOST_BYTES).decode()
        except FileNotFoundError:
            return ""

    def recovered(self, job_id: str) -> tuple[str, str] | None:
        """Answer outcome and words of recovery for a dead job's change; None if it found none."""
        try:
            found = _read(self._queue / job_id / "recovered.json")
        except FileNotFoundError:
            return None
        return str(found["outcome"]), str(found["words"])

    def end(self, job_id: str, end: End, change: bytes) -> None:
        """Put a job away for good. Doing it again after a kill in the middle ends it."""
        place = self._queue / job_id
        files.replace(place / "change.pb", change, mode=0o600)
        _write(place / "end.json", {**asdict(end), "state": end.state.name})
        self.put_away(job_id)

    def put_away(self, job_id: str) -> None:
        """Move a job that has its end on disk out of the queue."""
        place = self._queue / job_id
        for name in ("request.bin", "applied.pb", "following"):
            (place / name).unlink(missing_ok=True)
        place.rename(self._ended / job_id)
        files.sync_folder(self._ended)
        files.sync_folder(self._queue)
        (self._progress / f"{job_id}.json").unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what killed processes left, and from the queue what is no job that can be done.

        A queue that is never empty would start the job's unit again and again.
        """
        if not self._queue.is_dir():
            return
        with files.locked(self._jobs):
            for place in self._jobs.glob(".*"):
                shutil.rmtree(place, ignore_errors=True)
            for place in self._queue.iterdir():
                try:
                    self._record(place)
                except _UNREADABLE as e:
                    log.error("no job: taken off the queue", path=place, problem=repr(e))
                    aside = self._jobs / "unreadable"
                    aside.mkdir(mode=0o700, exist_ok=True)
                    place.rename(aside / f"{place.name}.{secrets.token_hex(4)}")

    def _look(self, place: Path) -> Job:
        record = self._record(place)
        progress = self.progress(record.id)
        end = _end(place)
        if end is None and _is_dead(place):
            # Looked at last: one that ended between the two looks has its end on disk by now.
            end = _end(place) or _end(self._ended / record.id)
            if end is None:
                seen = progress or Progress(seq=NEW_COUNT)
                return Job(record, State.INTERRUPTED, _after(seen))
        if end is not None:
            return Job(record, end.state, _ended(end), end)
        running = progress is not None or _is_begun(place)
        state = State.RUNNING if running else State.QUEUED
        return Job(record, state, progress or Progress(seq=2 if running else 1))

    def _record(self, place: Path) -> Record:
        data = _read(place / "record.json")
        return Record(**{**data, "resources": tuple(data["resources"])})

    def _prune(self) -> None:
        """Forget ended jobs that are old, and the oldest of too many."""
        found = sorted(_folders(self._ended), key=lambda place: -place.stat().st_mtime)
        oldest = time.time() - _KEPT_S
        for number, place in enumerate(found, len(self.queued())):
            if number >= _MOST_KEPT - 1 or place.stat().st_mtime < oldest:
                shutil.rmtree(place)


def recovered(state: Path, job: str, outcome: str, words: str) -> None:
    """Tell a job what recovery did with its change, before the change's journal is closed.

    `job` is its name; one that is not there, or has ended, is none of our business. `outcome` is
    one of the API by name. On disk when this returns. Raises OSError.
    """
    job_id = job.removeprefix("jobs/")
    place = state / "jobs" / "queue" / job_id
    if _ID.fullmatch(job_id) and place.is_dir():
        _write(place / "recovered.json", {"outcome": outcome, "words": words[:2000]})


def _after(progress: Progress) -> Progress:
    return replace(progress, seq=progress.seq + 1, rate=0.0, remaining_s=None, leaves="")


def _ended(end: End) -> Progress:
    return Progress(end.seq, end.done, end.total, leaves=end.leaves, unit=end.unit)


def _end(place: Path) -> End | None:
    try:
        data = _read(place / "end.json")
    except FileNotFoundError:
        return None
    return End(**{**data, "state": State[data["state"]]})


def _is_begun(place: Path) -> bool:
    try:
        return (place / "runner").stat().st_size > 0
    except FileNotFoundError:
        return False


def _is_dead(place: Path) -> bool:
    """Tell whether a job was begun by a process that is gone. Source: fcntl(2), F_OFD_GETLK."""
    try:
        fd = os.open(place / "runner", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        if os.fstat(fd).st_size == 0:
            return False
        # Only asked for, never taken: a reader must not keep a runner out.
        answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _flock(fcntl.F_WRLCK))
        return bool(struct.unpack("hhqqi0q", answer)[0] == fcntl.F_UNLCK)
    finally:
        os.close(fd)


def _flock(kind: int) -> bytes:
    """Lay out a struct flock of the whole file."""
    return struct.pack("hhqqi0q", kind, os.SEEK_SET, 0, 0, 0)


def _folders(top: Path) -> list[Path]:
    try:
        return [place for place in top.iterdir() if _ID.fullmatch(place.name)]
    except FileNotFoundError:
        return []


def _read(path: Path) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(files.read_bounded(path, _MOST_BYTES))
    return found


def _write(path: Path, data: Mapping[str, Any]) -> None:
    files.replace(path, json.dumps(data, separators=(",", ":")).encode(), mode=0o600)
