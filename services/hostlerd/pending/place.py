"""Where the files of a pending group are, and how they are read and written.

`/var/lib/hostler/pending` is root's; in it `group.json`, which a decision renames to `kept.json` or
`reverting.json`: a rename takes no room on a full disk and is never half done. `ended.json` is the
history, `<domain>/part.json` a domain's own. What counts in this boot alone is in
`/run/hostler/pending`, which no full disk reaches: the watcher's `armed.json`, and each domain's
`applied.json`, `undone.json`, `answer.json` and `failed.json`.
"""

from __future__ import annotations

import os
import secrets
import stat
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from .documents import MAX_BYTES, D, Document, Malformed, Marks, Part, decode, encode

STATE = Path("/var/lib/hostler/pending")
RUN = Path("/run/hostler/pending")
DOORS = Path("/run/hostler")
# Noted at boot, by tmpfiles.d(5): a container has an id of its own, which a unit that has its own
# /proc does not see.
_NOTED_BOOT_ID = Path("/run/hostler/boot-id")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Place:
    """The folders: what outlives a boot, what does not, and where the doors' sockets are."""

    state: Path = STATE
    run: Path = RUN
    doors: Path = DOORS

    @property
    def group(self) -> Path:
        """The group that waits for its doors."""
        return self.state / "group.json"

    @property
    def kept(self) -> Path:
        """The same file, once it was decided that the group stays."""
        return self.state / "kept.json"

    @property
    def reverting(self) -> Path:
        """The same file, once it was decided that the group is taken back."""
        return self.state / "reverting.json"

    @property
    def ended(self) -> tuple[Path, Path]:
        """The history, and where it goes while the disk is full."""
        return self.state / "ended.json", self.run / "ended.json"

    @property
    def armed(self) -> Path:
        """What the watcher says."""
        return self.run / "armed.json"

    @property
    def asked(self) -> Path:
        """Made by root to have whatever is pending taken back at once."""
        return self.run / "revert"

    def part(self, domain: str) -> Path:
        """What a domain has in the group."""
        return self.state / domain / "part.json"

    def applied(self, domain: str) -> Path:
        """Which of a domain's changes are complete."""
        return self.run / domain / "applied.json"

    def undone(self, domain: str) -> Path:
        """Which of a domain's changes have been taken back already, or were given up."""
        return self.run / domain / "undone.json"

    def answer(self, domain: str) -> Path:
        """What was said at a domain's door."""
        return self.run / domain / "answer.json"

    def failed(self, domain: str) -> Path:
        """What a domain could not take back."""
        return self.run / domain / "failed.json"


def read(kind: type[D], path: Path) -> D | None:
    """Read a document; None if there is none. Raises Malformed, also for what is not a file.

    Nothing that its owner can put there makes the reader wait, or read elsewhere or without end.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        fd = os.open(path, flags)
    except FileNotFoundError:
        return None
    except OSError as e:
        raise Malformed(f"cannot be read: {e.strerror}") from e
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise Malformed("not a file")
        return decode(kind, os.read(fd, MAX_BYTES + 1))
    except OSError as e:
        raise Malformed(f"cannot be read: {e.strerror}") from e
    finally:
        os.close(fd)


def without(part: Part, undone: Marks | None) -> Part:
    """Answer the part without the changes that have been taken back."""
    if undone is None or undone.group != part.group:
        return part
    return replace(part, entries=tuple(e for e in part.entries if e.change not in undone.changes))


def read_or_none(kind: type[D], path: Path) -> D | None:
    """Read a document, taking one that is malformed for none."""
    try:
        return read(kind, path)
    except Malformed:
        return None


def write(path: Path, document: Document, *, durable: bool) -> None:
    """Put a document in the place of the file, whole, readable to the folder's group.

    Raises OSError; then the old one is there still.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(temporary, flags, 0o600)
    try:
        _write_all(fd, encode(document))
        # Not open()'s mode: the umask would take the group's bit away.
        os.fchmod(fd, 0o640)
        if durable:
            os.fsync(fd)
        temporary.rename(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise
    finally:
        os.close(fd)
    if durable:
        sync(path.parent)


def rename(source: Path, target: Path) -> None:
    """Give a file another name in its folder, on disk. Raises OSError."""
    source.rename(target)
    sync(target.parent)


def remove(path: Path) -> None:
    """Remove a file, on disk; one that is not there is fine. Raises OSError."""
    path.unlink(missing_ok=True)
    sync(path.parent)


def sweep(folder: Path) -> None:
    """Remove what killed writers left in a folder of one's own."""
    with suppress(OSError):
        for path in folder.glob(".*.tmp"):
            path.unlink(missing_ok=True)


def sync(folder: Path) -> None:
    """Bring a folder's entries to disk. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def boot_id() -> str:
    """The id of this boot, a UUID. Source: random(4), and %b of systemd.unit(5)."""
    try:
        return str(uuid.UUID(_NOTED_BOOT_ID.read_text().strip()))
    except (FileNotFoundError, ValueError):
        return _BOOT_ID.read_text().strip()


def boottime_ns() -> int:
    """CLOCK_BOOTTIME: time since the boot, sleep included."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def is_door(path: Path) -> bool:
    """Whether a socket stands at a path."""
    try:
        return stat.S_ISSOCK(path.lstat().st_mode)
    except OSError:
        return False


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
