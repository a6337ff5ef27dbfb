"""A copy grows in a private folder beside its target, and gets its name when it is whole.

The folder is locked as long as somebody works in it. One that nobody has locked was left behind by
a process that was killed: whoever copies to that place next removes it.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from hostler.core.copying.look import forget_acls, names, open_folder
from hostler.core.copying.refused import CopyRefused

COPY = "copy"
"""The copy's name in the folder."""

_NAME = re.compile(r"\.hostler-copy-[0-9a-f]{32}")
_RENAME_NOREPLACE = 1  # Source: linux/fs.h
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Staging:
    """The private folder, open, and the open folder that it and the target are in."""

    folder: int
    parent: int

    def publish(self, name: str, target: str) -> None:
        """Move what is whole to its place, which must be free. Raises CopyRefused, OSError."""
        status = os.stat(name, dir_fd=self.folder, follow_symlinks=False)
        # A folder that moves is written to: its ".." changes. Only root needs no permission.
        locked = stat.S_ISDIR(status.st_mode) and not status.st_mode & stat.S_IWUSR
        if locked and os.geteuid() != 0:
            os.chmod(name, stat.S_IMODE(status.st_mode) | stat.S_IWUSR, dir_fd=self.folder)
        _rename_new(self.folder, name, self.parent, target)
        if locked and os.geteuid() != 0:
            os.chmod(target, stat.S_IMODE(status.st_mode), dir_fd=self.parent)
        os.fsync(self.folder)
        os.fsync(self.parent)

    def take_back(self, target: str, name: str) -> None:
        """Undo `publish`."""
        _rename_new(self.parent, target, self.folder, name)


@contextmanager
def staging(parent: int, target: str) -> Iterator[Staging]:
    """Have a private folder for a target; whatever is still in it at the end is removed.

    Removes what killed processes left in `parent` first. Raises CopyRefused where another process
    copies to the same target.
    """
    for name in names(parent):
        if _NAME.fullmatch(name):
            _remove_left(parent, name)
    digest = hashlib.sha256(os.fsencode(target)).hexdigest()
    name = f".hostler-copy-{digest[:32]}"
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        raise CopyRefused("BUSY", "another process copies to it", target) from None
    folder = _locked(parent, name)
    if folder is None:
        raise CopyRefused("BUSY", "another process copies to it", target)
    try:
        forget_acls(parent, name)
        yield Staging(folder, parent)
    finally:
        remove(parent, name)
        os.fsync(parent)
        os.close(folder)


def remove(parent: int, name: str) -> None:
    """Remove a file or a tree of ours, also where a copied mode forbids it."""
    if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
        os.chmod(name, 0o700, dir_fd=parent)
        folder = open_folder(name, parent)
        try:
            for one in names(folder):
                remove(folder, one)
        finally:
            os.close(folder)
        os.rmdir(name, dir_fd=parent)
    else:
        os.unlink(name, dir_fd=parent)


def _remove_left(parent: int, name: str) -> None:
    try:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if status.st_uid != os.geteuid() or not stat.S_ISDIR(status.st_mode):
            return
        folder = _locked(parent, name)
    except FileNotFoundError:  # Its owner has finished meanwhile.
        return
    if folder is not None:
        try:
            remove(parent, name)
        finally:
            os.close(folder)


def _locked(parent: int, name: str) -> int | None:
    """Open and lock a folder; None where somebody else has it, or has removed it meanwhile."""
    try:
        folder = open_folder(name, parent)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(folder), os.stat(name, dir_fd=parent, follow_symlinks=False)):
            return folder
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(folder)
    return None


def _rename_new(old_folder: int, old: str, new_folder: int, new: str) -> None:
    """Rename, replacing nothing. Source: renameat2(2)."""
    failed = _LIBC.renameat2(
        old_folder, os.fsencode(old), new_folder, os.fsencode(new), _RENAME_NOREPLACE
    )
    if not failed:
        return
    number = ctypes.get_errno()
    if number == errno.EEXIST:
        raise CopyRefused("TARGET_EXISTS", "is there already", new)
    raise OSError(number, os.strerror(number), new)
