"""Files that are there whole or not at all, and the lock that orders their writers.

A writer that is killed leaves the old file, the new file, or a hidden `.NAME.….tmp` that
`sweep()` removes; never half a file under its own name.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK_TIMEOUT_S = 30.0
_POLL_S = 0.01


def write_new(path: Path, data: bytes, *, mode: int) -> None:
    """Make a file that is not there yet, whole and on disk. Raises FileExistsError, OSError.

    Source: link(2), which never replaces what has the name already, as rename(2) would.
    """
    temporary = _write_aside(path, data, mode)
    try:
        os.link(temporary, path)
    finally:
        temporary.unlink()
    sync_folder(path.parent)


def replace(path: Path, data: bytes, *, mode: int, owner: tuple[int, int] | None = None) -> None:
    """Put `data` in the place of the file at `path`, in one step and on disk. Raises OSError.

    `owner` is its uid and gid; without, they are those of this process.
    """
    temporary = _write_aside(path, data, mode, owner)
    try:
        temporary.rename(path)
    except OSError:
        temporary.unlink()
        raise
    sync_folder(path.parent)


def move(source: Path, target: Path) -> None:
    """Move a file within a filesystem without replacing another. Raises FileExistsError, OSError.

    A crash in the middle leaves it under both names; moving it again then ends the move.
    """
    try:
        os.link(source, target)
    except FileExistsError:
        if not source.samefile(target):
            raise
    sync_folder(target.parent)
    source.unlink()
    sync_folder(source.parent)


def append_line(path: Path, line: bytes, *, mode: int) -> None:
    """Add one line to a file and bring it to disk. The caller holds the lock. Raises OSError.

    A last line without its end is what a killed writer left of a line that nobody was told of: it
    is cut off first.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        os.fchmod(fd, mode)
        end = _end_of_last_line(fd)
        os.ftruncate(fd, end)
        _write_all(fd, line + b"\n", end)
        os.fsync(fd)
    finally:
        os.close(fd)
    sync_folder(path.parent)


def read_bounded(path: Path, limit_bytes: int) -> bytes:
    """Read a file of at most `limit_bytes`. Raises ValueError if it is larger, OSError."""
    with path.open("rb") as stream:
        data = stream.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise ValueError(f"{path} is larger than {limit_bytes} bytes")
    return data


@contextmanager
def locked(folder: Path, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[None]:
    """Hold the folder's lock: one holder among all threads and processes, freed by a kill.

    Raises TimeoutError if another holds it for longer than `timeout_s`. Not reentrant.
    Source: flock(2) on the directory itself, so that no lock file lies about.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _flock(fd, folder, timeout_s)
        yield
    finally:
        os.close(fd)


def sweep(folder: Path) -> int:
    """Remove what killed writers left in a folder; answers how many. The caller holds the lock."""
    left = [path for path in folder.glob(".*.tmp") if path.is_file() and not path.is_symlink()]
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)


def sync_folder(folder: Path) -> None:
    """Bring a folder's entries to disk: a new name is not durable before. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write_aside(path: Path, data: bytes, mode: int, owner: tuple[int, int] | None = None) -> Path:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(temporary, flags, 0o600)
    try:
        _write_all(fd, data, 0)
        if owner is not None and owner != (os.geteuid(), os.getegid()):
            os.fchown(fd, *owner)
        # Not open()'s mode: the umask would take bits away; and chown(2) does.
        os.fchmod(fd, mode)
        os.fsync(fd)
    except OSError:
        temporary.unlink()
        raise
    finally:
        os.close(fd)
    return temporary


def _write_all(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def _end_of_last_line(fd: int) -> int:
    end = os.fstat(fd).st_size
    while end:
        start = max(0, end - 4096)
        at = os.pread(fd, end - start, start).rfind(b"\n")
        if at >= 0:
            return start + at + 1
        end = start
    return 0


def _flock(fd: int, folder: Path, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise TimeoutError(
                    f"{folder} is locked by another process for {timeout_s:g} s"
                ) from None
            time.sleep(_POLL_S)
        else:
            return
