"""What was asked for, on record: until the next boot, or for every boot."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from hostlerd.netns.model.namespace import Namespace
from hostlerd.netns.model.record import from_record, to_record

_MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Record:
    """A record as read: the namespace, or why it cannot be read."""

    namespace: Namespace | None
    create_time: datetime | None
    problem: str = ""


class Records:
    """The records in `state_dir` (persistent namespaces) and `run_dir` (all others)."""

    def __init__(self, state_dir: Path, run_dir: Path) -> None:
        self._lasting = state_dir / "namespaces"
        self._passing = run_dir / "namespaces"
        self._cache: dict[Path, tuple[tuple[int, int, int], Record]] = {}

    def all(self) -> dict[str, Record]:
        """Read all records. Unchanged files are not read twice."""
        newest: dict[str, tuple[int, Path]] = {}
        for path in self._files():
            # Reads go on while a change removes files.
            with suppress(FileNotFoundError):
                mtime_ns = path.stat().st_mtime_ns
                # A kill between writing the one and removing the other leaves two.
                if mtime_ns >= newest.get(path.stem, (0, path))[0]:
                    newest[path.stem] = (mtime_ns, path)
        records = {}
        for name, (_, path) in newest.items():
            with suppress(FileNotFoundError):
                records[name] = self._read(path)
        known = self._cache
        self._cache = {p: known[p] for _, p in newest.values() if p in known}
        return records

    def one(self, name: str) -> Record | None:
        """Read the record of one namespace; None if there is none."""
        found = [f / f"{name}.json" for f in (self._lasting, self._passing)]
        there = [path for path in found if path.exists()]
        return self._read(max(there, key=lambda p: p.stat().st_mtime_ns)) if there else None

    def persistent(self) -> list[str]:
        """Name the namespaces that a boot brings back."""
        return sorted(p.stem for p in self._lasting.glob("*.json"))

    def save(self, namespace: Namespace, create_time: datetime | None) -> None:
        """Write a record, fsynced if it is persistent; `create_time` None means now."""
        made = create_time or datetime.now(UTC)
        entry = {"create_time": made.isoformat(), "namespace": to_record(namespace)}
        text = json.dumps(entry, indent=1, sort_keys=True) + "\n"
        folder, other = self._passing, self._lasting
        if namespace.persistent:
            folder, other = other, folder
        write_atomically(folder / f"{namespace.name}.json", text, durable=namespace.persistent)
        _unlink(other / f"{namespace.name}.json", durable=other == self._lasting)

    def forget(self, name: str) -> None:
        """Remove a record; one that is not there is no error."""
        _unlink(self._passing / f"{name}.json", durable=False)
        _unlink(self._lasting / f"{name}.json", durable=True)

    def sweep(self) -> None:
        """Remove what killed writers have left. Only while nobody writes."""
        for folder in (self._lasting, self._passing):
            sweep(folder)

    def _files(self) -> Iterator[Path]:
        for folder in (self._lasting, self._passing):
            yield from sorted(folder.glob("*.json"))

    def _read(self, path: Path) -> Record:
        seen = path.stat()
        key = (seen.st_ino, seen.st_mtime_ns, seen.st_size)
        cached = self._cache.get(path)
        if cached and cached[0] == key:
            return cached[1]
        record = _parse(path, seen.st_size)
        self._cache[path] = (key, record)
        return record


def _parse(path: Path, size_bytes: int) -> Record:
    try:
        if size_bytes > _MOST_BYTES:
            raise ValueError("it is too large")
        entry = json.loads(path.read_bytes())
        namespace = from_record(entry["namespace"])
        if namespace.name != path.stem:
            raise ValueError(f"it is of {namespace.name}")
        return Record(namespace, datetime.fromisoformat(entry["create_time"]))
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        return Record(None, None, f"its record {path} cannot be read: {e}")


def write_atomically(path: Path, text: str, *, durable: bool) -> None:
    """Write a file so that a kill leaves the old one or the new one; with `durable`, a power cut.

    The file gets mode 0600.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(text)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    temporary.rename(path)
    if durable:
        _sync_folder(path.parent)


def sweep(folder: Path) -> None:
    """Remove what `write_atomically` has left in a folder where it was killed."""
    for left in folder.glob("*.new"):
        left.unlink(missing_ok=True)


def _unlink(path: Path, *, durable: bool) -> None:
    try:
        path.unlink()
    except FileNotFoundError:
        return
    if durable:
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
