"""The tree that parts of a stream become, in a private folder: one open folder for each level."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import fields

from hostler.core.copying.look import MAX_DEPTH, Attributes, give, look, names, open_folder
from hostler.core.copying.manifest import Entry
from hostler.core.copying.refused import CopyRefused
from hostler.core.copying.staging import COPY, Staging, remove

_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_NOATIME
_OLD_FILE = os.O_RDWR | os.O_NOFOLLOW | os.O_NOATIME | os.O_NONBLOCK
_NAME_BYTES_MOST = 255
_NODES = (stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK)


def malformed(why: str, path: str) -> CopyRefused:
    """What came is not what a tree is sent as."""
    return CopyRefused("MALFORMED", f"the stream makes no sense: {why}", path)


class Written:
    """What was made so far. The last folder and those above it are open."""

    def __init__(self, place: Staging, shown: str) -> None:
        self._place = place
        self._shown = shown
        self._folders: list[tuple[Entry, int, set[str]]] = []
        self._made = False

    def make(self, entry: Entry) -> int:
        """Make what an entry is; answer its open file if it is a regular one, else -1.

        Raises CopyRefused, OSError.
        """
        folder, name = self._where(entry)
        mode = entry.attributes.mode
        if entry.link_to is not None:
            self._make_room(folder, name)
            old = f"{COPY}/{entry.link_to}" if entry.link_to else COPY
            root = self._place.folder
            os.link(old, name, src_dir_fd=root, dst_dir_fd=folder, follow_symlinks=False)
        elif stat.S_ISREG(mode):
            return self._file(folder, name)
        elif stat.S_ISDIR(mode):
            self._folder(folder, name, entry)
        elif stat.S_ISLNK(mode):
            self._make_room(folder, name)
            os.symlink(entry.attributes.link, name, dir_fd=folder)
            self.give(entry)
            self.require_kept(entry)
            give(folder, name, entry.attributes)  # Nothing reads one without being noted.
        elif stat.S_IFMT(mode) in _NODES:
            self._make_room(folder, name)
            os.mknod(name, stat.S_IFMT(mode) | 0o600, entry.attributes.device, dir_fd=folder)
            self.give(entry)
            self.require_kept(entry)
        else:
            raise malformed("it is of no kind that there is", self._named(entry.path))
        return -1

    def give(self, entry: Entry) -> None:
        """Give the entry that was made last its attributes. Raises OSError."""
        folder, name = self._at(entry.path)
        give(folder, name, entry.attributes)

    def require_kept(self, entry: Entry) -> None:
        """Raise CopyRefused where the entry that was made last is not as it was told."""
        self._require_kept(*self._at(entry.path), entry)

    def finish(self) -> None:
        """Be done with all folders. Raises CopyRefused, OSError."""
        while self._folders:
            self._leave()

    def sync(self) -> None:
        """Bring the names in open folders to the disk. Raises OSError."""
        for _, folder, _ in self._folders:
            os.fsync(folder)

    def close(self) -> None:
        """Close what is open."""
        while self._folders:
            os.close(self._folders.pop()[1])

    def _where(self, entry: Entry) -> tuple[int, str]:
        """The open folder and the name for a new entry; folders that are done with are left."""
        path, shown = entry.path, self._named(entry.path)
        if not self._made:
            if path:
                raise malformed("it does not begin with what is copied", shown)
            self._made = True
            return self._place.folder, COPY
        parent, _, name = path.rpartition("/")
        if name in ("", ".", "..") or "\0" in name or len(os.fsencode(name)) > _NAME_BYTES_MOST:
            raise malformed("a name that no file can have", shown)
        while self._folders and self._folders[-1][0].path != parent:
            self._leave()
        if not self._folders:
            raise malformed("it is in no folder that came before it", shown)
        if len(self._folders) > MAX_DEPTH:
            raise CopyRefused("TOO_DEEP", f"more than {MAX_DEPTH} folders", shown)
        self._folders[-1][2].add(name)
        return self._folders[-1][1], name

    def _at(self, path: str) -> tuple[int, str]:
        if not path:
            return self._place.folder, COPY
        return self._folders[-1][1], path.rpartition("/")[2]

    def _file(self, folder: int, name: str) -> int:
        if self._is_there(folder, name, stat.S_IFREG):
            os.chmod(name, 0o600, dir_fd=folder)
            return os.open(name, _OLD_FILE, dir_fd=folder)
        self._make_room(folder, name)
        return os.open(name, _NEW_FILE, 0o600, dir_fd=folder)

    def _folder(self, folder: int, name: str, entry: Entry) -> None:
        if self._is_there(folder, name, stat.S_IFDIR):
            os.chmod(name, 0o700, dir_fd=folder)
        else:
            self._make_room(folder, name)
            os.mkdir(name, 0o700, dir_fd=folder)
        self._folders.append((entry, open_folder(name, folder), set()))

    def _leave(self) -> None:
        """Be done with the last folder."""
        entry, opened, wanted = self._folders.pop()
        try:
            for one in set(names(opened)) - wanted if self._place.resumed else ():
                remove(opened, one)
            folder, name = self._at(entry.path)
            give(folder, name, entry.attributes)
            self._require_kept(folder, name, entry)
            os.fsync(opened)
        finally:
            os.close(opened)

    def _require_kept(self, folder: int, name: str, entry: Entry) -> None:
        there = look(folder, name).attributes
        lost = [
            one.name
            for one in fields(Attributes)
            if getattr(entry.attributes, one.name) != getattr(there, one.name)
        ]
        if lost:
            message = f"the target does not keep {', '.join(lost)}"
            raise CopyRefused("NOT_KEPT", message, self._named(entry.path))

    def _is_there(self, folder: int, name: str, kind: int) -> bool:
        if self._place.resumed:
            with suppress(FileNotFoundError):
                mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
                return stat.S_IFMT(mode) == kind
        return False

    def _make_room(self, folder: int, name: str) -> None:
        if self._place.resumed:
            with suppress(FileNotFoundError):
                remove(folder, name)

    def _named(self, path: str) -> str:
        return f"{self._shown}/{path}" if path else self._shown
