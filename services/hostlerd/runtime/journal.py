"""The journal of a change: its steps on disk before the first is begun, and a mark at every step.

One file for one change, JSON lines. The first is the header; each that follows is a mark: "begun"
before a step, "done" after it, in one line where one step follows another, "undo" and "undone" on
the way back, "end" last. A line counts once it is whole: a step is begun only when its mark is on
disk. The room for all marks is laid aside with the header, so that a full disk is noticed before
anything is changed.

    CHANGE.journal   is being carried out, or has ended and its caller has not been answered yet
    CHANGE.pending   waits to be confirmed, and its caller has not been answered yet
    CHANGE.kept      waits to be confirmed
    CHANGE.failed    could be neither undone nor finished; for people to look at

Who writes a file holds flock(2) on it, so that nobody takes a change that goes on for one that was
cut off. Changes of which nothing survives a boot are in a folder that does not either.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from hostler.core import files
from hostlerd.pending.place import boot_id
from hostlerd.runtime.errors import Code, DomainError

VERSION = 1
_MOST_BYTES = 64 << 20
_MARK_BYTES = 40
_POLL_S = 0.02

OPEN, PENDING, KEPT, FAILED = ".journal", ".pending", ".kept", ".failed"

APPLIED, WAITING, UNDONE = "APPLIED", "PENDING_CONFIRM", "UNDONE"
"""How a journal ends: all steps stand; they stand unless they are taken back; none stands."""


class JournalUnavailable(DomainError):
    """The journal cannot be written, so the change does not start."""

    code, reason = Code.UNAVAILABLE, "JOURNAL_UNAVAILABLE"


class JournalInvalid(Exception):
    """A journal cannot be read; the message says why."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a journal says of its change. `steps` are as the edge's registry encodes them.

    `edge` names the kernel that carries them out. `boot_id` is of the boot that it began in, and
    `intent_seq` the number of its intent in the audit log.
    """

    change_id: str
    edge: str
    plan_hash: str
    steps: Sequence[Mapping[str, Any]]
    identity: str = ""
    method: str = ""
    resources: Sequence[str] = ()
    request_id: str = ""
    body_sha256: str = ""
    intent_seq: int = 0
    group: str = ""
    job: str = ""
    boot_id: str = ""
    version: int = VERSION


class Journal:
    """An open journal. All its methods block for the disk; they raise OSError."""

    def __init__(self, path: Path, fd: int, end: int) -> None:
        self.path = path
        self.ended = ""
        self._fd = fd
        self._at = end

    @classmethod
    def create(cls, path: Path, header: Header) -> Journal:
        """Write the header and lay room aside for the marks. Raises JournalUnavailable."""
        line = json.dumps(asdict_shallow(header), separators=(",", ":")).encode() + b"\n"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            fd = os.open(path, flags, 0o600)
        except OSError as e:
            raise JournalUnavailable(f"no journal can be made: {e.strerror}") from e
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            room = _MARK_BYTES * (2 * len(header.steps) + 4)
            os.posix_fallocate(fd, 0, len(line) + room)
            _write_all(fd, line, 0)
            os.fsync(fd)
            files.sync_folder(path.parent)
        except OSError as e:
            os.close(fd)
            path.unlink(missing_ok=True)
            raise JournalUnavailable(f"the journal cannot be written: {e.strerror}") from e
        return cls(path, fd, len(line))

    @classmethod
    def reopen(cls, path: Path, wait_s: float = 0) -> tuple[Journal, Found] | None:
        """Open a journal that nobody writes to; None if somebody does, or it has gone.

        `wait_s` is how long whoever writes to it may take. Raises JournalInvalid, OSError.
        """
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        try:
            if not _flock(fd, wait_s):
                os.close(fd)
                return None
            found, end = _read(path, fd)
        except BaseException:
            os.close(fd)
            raise
        journal = cls(path, fd, end)
        journal.ended = found.ended
        return journal, found

    def begun(self, step: int) -> None:
        """Note that a step is about to begin; the one before it is done then."""
        done = f'"done":{step - 1},' if step else ""
        self._mark(f'{{{done}"begun":{step}}}\n')

    def undoing(self, step: int) -> None:
        """Note that a step is about to be undone, as all after it were."""
        self._mark(f'{{"undo":{step}}}\n')

    def end(self, word: str) -> None:
        """Note how it ended: APPLIED, WAITING or UNDONE."""
        self._mark(f'{{"end":"{word}"}}\n')
        self.ended = word
        if word == WAITING:
            self._rename(PENDING)

    def close(self) -> None:
        """Its caller has been answered: forget it, or keep it while it waits. Never raises."""
        if self._fd < 0:
            return
        try:
            if self.ended == WAITING:
                self._rename(KEPT)
            else:
                self.path.unlink(missing_ok=True)
        except OSError:
            # A start finds it ended, and closes it then.
            pass
        finally:
            self.abandon()

    def fail(self) -> None:
        """Put it aside for people. Raises OSError."""
        self._rename(FAILED)
        self.abandon()

    def abandon(self) -> None:
        """Let go of it as it is: the next who looks takes it for cut off."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _mark(self, line: str) -> None:
        data = line.encode()
        _write_all(self._fd, data, self._at)
        os.fdatasync(self._fd)
        self._at += len(data)

    def _rename(self, suffix: str) -> None:
        target = self.path.with_suffix(suffix)
        try:
            self.path.rename(target)
        except FileNotFoundError:
            # Whoever took a pending change back has removed it meanwhile.
            return
        self.path = target
        files.sync_folder(target.parent)


@dataclass(frozen=True, slots=True)
class Found:
    """A journal as read: how many steps were begun, and which one the way back had come to.

    `undo` is the step that was to be undone next, None if nothing was being undone.
    """

    path: Path
    header: Header
    begun: int = 0
    undo: int | None = None
    ended: str = ""


@dataclass(slots=True)
class Journals:
    """The journals of a domain: `lasting` is the folder on disk, `passing` goes with a boot."""

    lasting: Path
    passing: Path
    boot_id: str = field(default_factory=boot_id)
    _open: dict[str, Journal] = field(default_factory=dict)

    def create(self, header: Header, *, lasts: bool) -> Journal:
        """Begin the journal of a change. Raises JournalUnavailable."""
        folder = self.lasting if lasts else self.passing
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as e:
            raise JournalUnavailable(f"{folder}: {e.strerror}") from e
        journal = Journal.create(folder / f"{header.change_id}{OPEN}", header)
        self._open[header.change_id] = journal
        return journal

    def lasts(self, change_id: str) -> bool:
        """Whether what the change did, if it has a journal here, is there after a boot."""
        journal = self._open.get(change_id)
        return journal is not None and journal.path.parent == self.lasting

    def answered(self, change_id: str) -> None:
        """Close the journal of a change whose outcome is on record; unknown ones are no error."""
        journal = self._open.pop(change_id, None)
        if journal is not None:
            journal.close()

    def cut_off(self) -> list[Path]:
        """List what may be cut off, oldest first: two folders with a handful of files at most."""
        return self._listed(OPEN, PENDING)

    def failed(self) -> list[Path]:
        """List what could be neither undone nor finished."""
        return self._listed(FAILED)

    def fate(self, change_id: str) -> str:
        """Answer what became of a change that was to be confirmed.

        "finished": it stands and waits; "unfinished": it is being carried out, or was cut off;
        "failed": it could be neither undone nor finished; "unknown": undone, or forgotten.
        """
        if self.waiting(change_id) is not None:
            return "finished"
        for word, paths in (("unfinished", self._listed(OPEN)), ("failed", self.failed())):
            if any(path.stem == change_id for path in paths):
                return word
        return "unknown"

    def waiting(self, change_id: str) -> Path | None:
        """Find the journal of a change that waits to be confirmed."""
        if not change_id.isalnum():
            return None
        paths = [self.lasting / f"{change_id}{suffix}" for suffix in (PENDING, KEPT)]
        return next((path for path in paths if path.exists()), None)

    def waiting_ids(self) -> list[str]:
        """List the changes that wait to be confirmed, oldest first."""
        return [path.stem for path in self._listed(PENDING, KEPT)]

    def release(self, change_id: str) -> None:
        """Forget a change that was confirmed; one that is not there is no error. Raises OSError."""
        path = self.waiting(change_id)
        if path is not None:
            path.unlink(missing_ok=True)
            files.sync_folder(path.parent)

    def _listed(self, *suffixes: str) -> list[Path]:
        return sorted(
            (
                path
                for folder in (self.lasting, self.passing)
                for path in _entries(folder, suffixes)
            ),
            key=lambda path: path.name,
        )


def asdict_shallow(header: Header) -> dict[str, Any]:
    """Answer the header's fields; the steps are JSON already and are not copied."""
    return {f.name: getattr(header, f.name) for f in fields(Header)}


def _entries(folder: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    try:
        names = os.listdir(folder)  # noqa: PTH208 - names are all that is needed
    except FileNotFoundError:
        return
    for name in names:
        if name.endswith(suffixes):
            yield folder / name


def _read(path: Path, fd: int) -> tuple[Found, int]:
    """Read header and marks; answers where the next mark goes. A torn last line does not count."""
    if os.fstat(fd).st_size > _MOST_BYTES:
        raise JournalInvalid(f"{path} is larger than any journal")
    with os.fdopen(os.dup(fd), "rb") as stream:
        stream.seek(0)
        data = stream.read(_MOST_BYTES).split(b"\0", 1)[0]
    end = data.rfind(b"\n") + 1
    lines = data[:end].splitlines()
    if not lines:
        raise NothingBegun(str(path))
    try:
        header = Header(**json.loads(lines[0]))
        if header.version != VERSION:
            raise ValueError(f"version {header.version}")
        marks: dict[str, Any] = {}
        for line in lines[1:]:
            marks |= json.loads(line)
        undo = marks.get("undo")
        found = Found(
            path,
            header,
            begun=int(marks.get("begun", -1)) + 1,
            undo=None if undo is None else int(undo),
            ended=str(marks.get("end", "")),
        )
    except (ValueError, TypeError) as e:
        raise JournalInvalid(f"{path}: {e}") from e
    if found.begun > len(header.steps):
        raise JournalInvalid(f"{path}: more steps begun than there are")
    return found, end


class NothingBegun(JournalInvalid):
    """The header is torn: whoever wrote it was cut off before anything was begun."""


def _flock(fd: int, wait_s: float) -> bool:
    end = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(_POLL_S)
        else:
            return True


def _write_all(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written
