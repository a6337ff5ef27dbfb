"""Places of files: an open folder and a name in it, so that nobody swaps a symlink on the way."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hostler.core.copying.refused import CopyRefused, of_error

_LIBC = ctypes.CDLL(None, use_errno=True)
# Source: asm-generic/unistd.h, linux/openat2.h.
_OPENAT2 = 437
_NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x02, 0x04, 0x08
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_TRIES = 8


@dataclass(frozen=True, slots=True)
class Place:
    """A file that is there, or is to be. `shown` is its path as people are told of it."""

    folder: int
    name: str
    shown: str


@contextmanager
def place_of(path: Path) -> Iterator[Place]:
    """A place by its path; symlinks on the way to it are the caller's own. Raises CopyRefused."""
    path = Path(os.path.abspath(path))  # noqa: PTH100 - no symlinks
    if not path.name:
        raise CopyRefused("FAILED", "has no name of its own", str(path))
    with naming(str(path.parent)):
        folder = os.open(path.parent, _FOLDER)
    try:
        yield Place(folder, path.name, str(path))
    finally:
        os.close(folder)


@contextmanager
def place_beneath(root: int, shown_root: str, path: str) -> Iterator[Place]:
    """A place below an open folder, by its path from there. No symlink is followed on the way.

    Raises CopyRefused: OUTSIDE for what leads out of the folder, or through a symlink.
    """
    parts = path.split("/")
    shown = f"{shown_root.rstrip('/')}/{path}"
    if not all(parts) or {".", ".."} & set(parts):
        raise CopyRefused("OUTSIDE", f"is no path below {shown_root}", shown)
    folder = _open_beneath(root, "/".join(parts[:-1]) or ".", shown)
    try:
        yield Place(folder, parts[-1], shown)
    finally:
        os.close(folder)


@contextmanager
def naming(path: str) -> Iterator[None]:
    """What the system refuses meanwhile is a refusal that names this path."""
    try:
        yield
    except OSError as error:
        raise of_error(error, path) from error


def _open_beneath(root: int, path: str, shown: str) -> int:
    """Open a folder below another one. Source: openat2(2)."""
    how = struct.pack("QQQ", _FOLDER, 0, _NO_MAGICLINKS | _NO_SYMLINKS | _BENEATH)
    number = errno.EAGAIN
    # Somebody renames above it meanwhile.
    for _ in range(_TRIES):
        opened = _LIBC.syscall(
            *(ctypes.c_long(_OPENAT2), ctypes.c_int(root), os.fsencode(path)),
            *(how, ctypes.c_size_t(len(how))),
        )
        if opened >= 0:
            return int(opened)
        number = ctypes.get_errno()
        if number != errno.EAGAIN:
            break
    if number in (errno.ELOOP, errno.EXDEV):
        raise CopyRefused("OUTSIDE", "a symlink is on the way to it", shown)
    raise of_error(OSError(number, os.strerror(number)), shown)
