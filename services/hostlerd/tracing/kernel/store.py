"""Captures on disk: a folder for each, with what it is about and the files of events.

Whoever writes a capture holds a lock on its folder; one that nobody holds and that does not say how
it ended was cut off, and what it has by then is good.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hostler.core import files
from hostlerd.runtime.edge import Recoverable
from hostlerd.runtime.host import facts
from hostlerd.runtime.log import get_log
from hostlerd.tracing.errors import CaptureExists, CaptureNotFound, StoreFull
from hostlerd.tracing.model.stored import Bounds, RemoveCapture, Stored
from hostlerd.tracing.model.trace import Budget, End, Keep, Payload, Spec, Standing

if TYPE_CHECKING:
    from hostler.core.trace.capture_writer import CaptureWriter

log = get_log("tracing.store")

_ABOUT = "about.json"
_ABOUT_BYTES_MOST = 1 << 20
_EVENTS = "events.htrace"
_GONE = ".gone-"
# Room is looked for again after so much was written.
_LOOK_BYTES = 8 << 20
# Captures leave so much of the disk to others.
_FREE_BYTES = 256 << 20
_FREE_PART = 20


Choose = Callable[[Sequence[Stored], str, Bounds, int], tuple[tuple[str, ...], bool]]
"""Which captures, oldest first, go for those of an owner that come; and whether that is enough."""


class Store(Recoverable):
    """The captures of a host. Any thread may call."""

    def __init__(self, folder: Path, bounds: Bounds, choose: Choose) -> None:
        self.bounds = bounds
        self._choose = choose
        self._folder = folder
        self._lock = threading.Lock()

    @property
    def kinds(self) -> Collection[type]:
        """The one step there is."""
        return (RemoveCapture,)

    @property
    def one_way(self) -> Collection[type]:
        """What is half removed goes altogether."""
        return (RemoveCapture,)

    @contextmanager
    def applying(self) -> Iterator[Callable[[RemoveCapture], None]]:
        """Open a session of one change. Steps raise OSError."""
        yield lambda step: self._remove(step.name)

    def sweep(self) -> None:
        """Remove what is half removed."""
        for left in self._folder.glob(f"{_GONE}*"):
            shutil.rmtree(left, ignore_errors=True)

    def all(self) -> tuple[Stored, ...]:
        """All captures, oldest first."""
        return tuple(self._with_counts(stored) for stored in self._all())

    def get(self, name: str) -> Stored:
        """One of them. Raises CaptureNotFound."""
        path = self._folder / name
        found = _stored(path) if path in self._paths() else None
        if found is None:
            raise CaptureNotFound("there is no such capture", name=name)
        return self._with_counts(found)

    def files(self, name: str) -> list[Path]:
        """The files of a capture, in order."""
        return _files(self._folder / name)

    def begin(self, name: str, spec: Spec, payload: Payload, owner: str) -> Keeping:
        """Begin a capture. Raises CaptureExists, StoreFull, OSError."""
        with self._lock:
            if any(path.name == name for path in self._paths()):
                raise CaptureExists("there is a capture of that name", name=name)
            self._make_room(owner, coming=1)
            path = self._folder / name
            path.mkdir(mode=0o700, parents=True)
            try:
                return Keeping(self, path, spec, payload, owner)
            except BaseException:
                shutil.rmtree(path, ignore_errors=True)
                raise

    def discard(self, name: str) -> None:
        """Forget a capture whose trace has not begun."""
        self._remove(name)

    def make_room(self, owner: str) -> None:
        """Have older captures go where there are too many, or too large ones. Raises StoreFull."""
        with self._lock:
            self._make_room(owner)

    def _all(self) -> tuple[Stored, ...]:
        found = (_stored(path) for path in self._paths())
        return tuple(sorted(filter(None, found), key=lambda s: s.started_unix_s))

    def _with_counts(self, stored: Stored) -> Stored:
        if stored.end not in (None, End.INTERRUPTED):
            return stored
        # Nobody has written them down.
        events, lost = _counts(self._folder / stored.name)
        return replace(stored, events=events, lost=lost)

    def _make_room(self, owner: str, coming: int = 0) -> None:
        names, is_enough = self._choose(self._all(), owner, self.bounds, coming)
        for name in names:
            self._remove(name)
            log.info("a capture has made room for others", name=name)
        if not is_enough:
            raise StoreFull("captures that are still written take all room", owner=owner)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        disk = os.statvfs(self._folder)
        wanted = min(_FREE_BYTES, disk.f_blocks * disk.f_frsize // _FREE_PART)
        free = disk.f_bavail * disk.f_frsize
        if free < wanted:
            raise StoreFull(f"{free} bytes of the disk are free, {wanted} are left to others")

    def _remove(self, name: str) -> None:
        # What is half removed is no capture any more.
        gone = self._folder / f"{_GONE}{name}"
        with suppress(FileNotFoundError):
            (self._folder / name).rename(gone)
        with suppress(FileNotFoundError):
            shutil.rmtree(gone)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _paths(self) -> list[Path]:
        try:
            return [p for p in self._folder.iterdir() if not p.name.startswith(".")]
        except FileNotFoundError:
            return []


class Keeping:
    """A capture that is being written. `put` is for one thread."""

    def __init__(self, store: Store, path: Path, spec: Spec, payload: Payload, owner: str) -> None:
        host = facts()
        self._store, self._path = store, path
        self._about = Stored(path.name, spec, payload, owner, host.boot_id, time.time())
        self._since_look = 0
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._say()
            self._writer = _writer(path, self._about, host.hostname)
        except BaseException:
            os.close(self._fd)
            raise

    def put(self, block: bytes) -> None:
        """Write a block. Raises StoreFull, OSError, CaptureInvalid."""
        self._since_look += len(block)
        if self._since_look > _LOOK_BYTES:
            self._since_look = 0
            self._store.make_room(self._about.owner)
        self._writer.write_encoded(block)

    def close(self, standing: Standing) -> None:
        """Complete it, with how its trace has ended. Raises OSError."""
        try:
            self._writer.close()
            events, lost = _counts(self._path)
            self._about = replace(
                self._about,
                end=standing.end,
                ended_unix_s=standing.ended_unix_s,
                problem=standing.problem,
                events=events,
                lost=lost,
            )
            self._say()
        finally:
            os.close(self._fd)

    def discard(self) -> None:
        """Forget it: its trace has not begun."""
        os.close(self._fd)
        self._store.discard(self._path.name)

    def _say(self) -> None:
        about = asdict(self._about)
        about["end"] = self._about.end and self._about.end.name
        files.replace(self._path / _ABOUT, json.dumps(about).encode(), mode=0o600)


def _writer(path: Path, about: Stored, host: str) -> CaptureWriter:
    # numpy comes with it, and not before somebody traces.
    from hostler.core.trace.capture import CaptureHeader
    from hostler.core.trace.capture_writer import CaptureWriter, Rotation

    keep = about.spec.keep or Keep()
    header = CaptureHeader(
        host=host,
        boot_id=about.boot_id,
        start_ns=round(about.started_unix_s * 1e9),
        filter_text=about.spec.filter,
    )
    rotation = Rotation(
        size_bytes=keep.size_bytes or None,
        seconds=keep.seconds or None,
        events=keep.events or None,
        keep=keep.files or None,
    )
    return CaptureWriter(path / _EVENTS, header, rotation=rotation)


def _stored(path: Path) -> Stored | None:
    """A capture as it stands; None if it is none, or not yet."""
    try:
        about = json.loads(files.read_bounded(path / _ABOUT, _ABOUT_BYTES_MOST))
        stored = _read(path.name, about)
        sizes = [each.stat().st_size for each in _files(path)]
    except (OSError, ValueError, KeyError, TypeError) as e:
        log.debug("no capture", path=path, problem=e)
        return None
    stored = replace(stored, size_bytes=sum(sizes), files=len(sizes))
    if stored.end is not None or _is_written(path):
        return stored
    ended_unix_s = max((each.stat().st_mtime for each in _files(path)), default=0.0)
    return replace(stored, end=End.INTERRUPTED, ended_unix_s=ended_unix_s)


def _read(name: str, about: Mapping[str, Any]) -> Stored:
    rest = dict(about)
    spec = dict(rest.pop("spec"))
    budget, keep = Budget(**spec.pop("budget")), spec.pop("keep")
    spec["pids"] = tuple(spec["pids"])
    end = rest.pop("end")
    return Stored(
        **{**rest, "name": name, "payload": Payload(**rest["payload"])},
        spec=Spec(**spec, budget=budget, keep=keep and Keep(**keep)),
        end=End[end] if end else None,
    )


def _is_written(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _files(path: Path) -> list[Path]:
    return sorted(path.glob("*.htrace"))


def _counts(path: Path) -> tuple[int, int]:
    """How many events its files have, and how many of their times were lost."""
    from hostler.core.trace.capture_reader import CaptureReader
    from hostler.core.trace.schema import CaptureInvalid

    events = lost = 0
    for each in _files(path):
        try:
            with CaptureReader(each, skip_damaged=True) as reader:
                events, lost = events + reader.events, lost + reader.lost
        except (OSError, CaptureInvalid) as e:
            log.warning("a file of a capture is left out", path=each, problem=e)
    return events, lost
