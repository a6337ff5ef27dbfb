"""A copy grows in a private folder beside its target, and gets its name when it is whole.

The folder is locked as long as somebody works in it. One that nobody has locked was left behind by
a process that was killed: whoever copies to that place next removes it, or goes on in it, if it
has a mark that says that it is of the same copy.

Whoever owns the folder that the target is in may rename what is there, and be anybody: after it was
opened, the private folder is only used as an open one, and what bears its name is touched no more.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from hostler.core.copying.look import forget_acls, names, open_file, open_folder
from hostler.core.copying.refused import CopyRefused

COPY = "copy"
"""The copy's name in the folder."""
KEPT_S = 7 * 86_400
"""How long what can be gone on with is left alone by those who copy to other targets beside it."""

_MARK = "mark"
_MARK_BYTES_MOST = 65_536
_NAME = re.compile(r"\.hostler-copy-[0-9a-f]{32}")
_RENAME_NOREPLACE = 1  # Source: linux/fs.h
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(slots=True)
class Staging:
    """The private folder, open, and the open folder that it and the target are in.

    `resumed` says that a copy of the same mark had been begun in it, `removed` that something else
    was there, which is gone now. What is `kept` stays for the next one when the work ends.
    """

    folder: int
    parent: int
    resumed: bool = False
    removed: bool = False
    kept: bool = False

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
def staging(parent: int, target: str, mark: bytes = b"") -> Iterator[Staging]:
    """Have a private folder for a target; whatever is still in it at the end is removed.

    One that was left behind with the same mark is gone on with. Removes what else killed processes
    left in `parent` first. Raises CopyRefused where another process copies to the same target.
    """
    own = _name_for(target)
    for name in names(parent):
        if _NAME.fullmatch(name) and name != own:
            _sweep(parent, name)
    place = _begin(parent, own, target, mark)
    try:
        yield place
    finally:
        try:
            if not place.kept:
                _remove_private(parent, own, place.folder)
        finally:
            os.close(place.folder)


def left_of(parent: int, target: str, mark: bytes) -> str:
    """What a copy to a target that was cut off has left: "same" of this mark, "other", or ""."""
    name = _name_for(target)
    folder = _take(parent, name)
    if folder is None:
        return ""
    try:
        return "same" if mark and _mark_of(folder) == mark else "other"
    finally:
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


def _name_for(target: str) -> str:
    digest = hashlib.sha256(os.fsencode(target)).hexdigest()
    return f".hostler-copy-{digest[:32]}"


def _begin(parent: int, name: str, target: str, mark: bytes) -> Staging:
    """Take up what was left there, or make it anew. Raises CopyRefused."""
    there = _is_there(parent, name)
    folder = _take(parent, name) if there else None
    if folder is not None:
        if mark and _mark_of(folder) == mark:
            return Staging(folder, parent, resumed=True)
        try:
            _remove_private(parent, name, folder)
        finally:
            os.close(folder)
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        raise CopyRefused("BUSY", "another process copies to it", target) from None
    folder = _locked(parent, name)
    if folder is None:
        raise CopyRefused("BUSY", "another process copies to it", target)
    try:
        # The folder that was just made is empty, and that of nobody else.
        if not _is_private(folder) or names(folder):
            raise CopyRefused("BUSY", "somebody puts another folder in its way", target)
        forget_acls(folder)
        if mark:
            _write_mark(folder, mark)
            os.fsync(parent)
    except BaseException:
        os.close(folder)
        raise
    return Staging(folder, parent, removed=there)


def _is_private(folder: int) -> bool:
    status = os.fstat(folder)
    # A folder in a set-group-id one is set-group-id, too.
    return status.st_uid == os.geteuid() and status.st_mode & 0o777 == 0o700


def _remove_private(parent: int, name: str, folder: int) -> None:
    """Remove what is in a private folder, and that itself if it still has its name."""
    for one in names(folder):
        remove(folder, one)
    with suppress(OSError):
        os.rmdir(name, dir_fd=parent)
    os.fsync(parent)


def _is_there(parent: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _sweep(parent: int, name: str) -> None:
    """Remove what a killed process left, unless somebody may still go on with it."""
    folder = _take(parent, name)
    if folder is not None:
        try:
            age_s = time.time() - os.fstat(folder).st_mtime
            if age_s > KEPT_S or not _mark_of(folder):
                _remove_private(parent, name, folder)
        finally:
            os.close(folder)


def _take(parent: int, name: str) -> int | None:
    """Lock what was left behind; None where it is not ours, or not left behind."""
    try:
        folder = _locked(parent, name)
    except OSError:  # It is no folder, or one that is not ours to open.
        return None
    if folder is not None and not _is_private(folder):
        os.close(folder)
        return None
    return folder


def _mark_of(folder: int) -> bytes:
    """The mark of a folder; none if it is not private: somebody else could have written it."""
    if not _is_private(folder):
        return b""
    try:
        file = open_file(_MARK, folder)
    except OSError:
        return b""
    try:
        return os.read(file, _MARK_BYTES_MOST)
    finally:
        os.close(file)


def _write_mark(folder: int, mark: bytes) -> None:
    file = os.open(_MARK, _NEW_FILE, 0o600, dir_fd=folder)
    try:
        os.write(file, mark)
        os.fsync(file)
    finally:
        os.close(file)
    os.fsync(folder)


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
