"""Put a filesystem to work: files are written, found, read from the disk, and their hashes checked.

Round after round some are removed, renamed or written anew, so that what is read was written at
several times. All of it lies in a private folder, which is gone at the end.
"""

from __future__ import annotations

import hashlib
import os
import random
import stat
from dataclasses import dataclass

from hostler.core.copying import contents
from hostler.core.copying.look import open_file, walk
from hostler.core.copying.place import Place, naming
from hostler.core.copying.progress import Counter, Tell
from hostler.core.copying.refused import CopyRefused
from hostler.core.copying.staging import COPY, staging

MOST_FILES = 200_000
#: Of what is free this stays so.
SPARED = 0.1

_FOLDERS = 64
_SMALL, _LARGE, _LARGE_PART = 512, 4 << 20, 256
_PIECE_BYTES = 4 << 20
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Burnt:
    """What was done: how many files were written, and how many bytes were written and read."""

    rounds: int
    files: int
    written_bytes: int
    read_bytes: int


def burn_in(place: Place, size_bytes: int, rounds: int, seed: int, tell: Tell) -> Burnt:
    """Keep about so many bytes in files in an open folder, for so many rounds.

    `place` is what the private folder is named after, and is not made. Raises CopyRefused: DAMAGED,
    with the file's name, where anything is not what was written; and what `tell` raises.
    """
    with naming(place.shown):
        free = os.fstatvfs(place.folder)
        if size_bytes > free.f_bavail * free.f_frsize * (1 - SPARED):
            raise CopyRefused("TARGET_FULL", "has too little room for that", place.shown)
        with staging(place.folder, place.name) as private:
            os.mkdir(COPY, 0o700, dir_fd=private.folder)
            # Each byte is written at most once in a round, and read once.
            count = Counter(tell, 2 * size_bytes * rounds)
            work = _Work(private.folder, place.shown, size_bytes, random.Random(seed), count)  # noqa: S311
            for _ in range(rounds):
                work.change()
                work.check()
    return Burnt(rounds, work.files, work.written_bytes, work.read_bytes)


class _Work:
    """The files that there are by now, and what their digests are to be."""

    def __init__(
        self, root: int, shown: str, size_bytes: int, chance: random.Random, count: Counter
    ) -> None:
        self.files = self.written_bytes = self.read_bytes = 0
        self._root = root
        self._shown = shown
        self._size_bytes = size_bytes
        self._large = max(_LARGE, size_bytes // _LARGE_PART)
        self._chance = chance
        self._count = count
        self._there: dict[str, tuple[int, str]] = {}
        self._serial = 0
        for number in range(_FOLDERS):
            os.mkdir(f"{COPY}/{number}", 0o700, dir_fd=root)

    def change(self) -> None:
        """Remove some files, rename some, and write new ones in their place."""
        for name in sorted(self._there):
            what = self._chance.random()
            if what < 0.3:
                os.unlink(f"{COPY}/{name}", dir_fd=self._root)
                del self._there[name]
            elif what < 0.5:
                new = self._name()
                old_path, new_path = (f"{COPY}/{one}" for one in (name, new))
                os.rename(old_path, new_path, src_dir_fd=self._root, dst_dir_fd=self._root)
                self._there[new] = self._there.pop(name)
        left = self._size_bytes - sum(size for size, _ in self._there.values())
        while left > 0 and len(self._there) < MOST_FILES:
            # Many small ones, and some that are large.
            spread = (self._large / _SMALL) ** self._chance.random() ** 2
            size = min(left, int(_SMALL * spread))
            self._write(size)
            left -= size
        for number in range(_FOLDERS):
            self._sync(f"{COPY}/{number}")

    def check(self) -> None:
        """Find all files, and read them from the disk. Raises CopyRefused."""
        seen = set()
        for path, folder, name in walk(self._root, COPY):
            mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                continue
            seen.add(path)
            wanted = self._there.get(path)
            if wanted is None or self._digest(folder, name) != wanted[1]:
                raise self._damaged(path, "is not what was written")
        for path in sorted(self._there):
            if path not in seen:
                raise self._damaged(path, "was written, and is not found")

    def _write(self, size: int) -> None:
        name, digest = self._name(), hashlib.sha256()
        file = os.open(f"{COPY}/{name}", _NEW, 0o600, dir_fd=self._root)
        try:
            write = contents.write_all(file)
            for at in range(0, size, _PIECE_BYTES):
                data = self._chance.randbytes(min(_PIECE_BYTES, size - at))
                digest.update(data)
                write(memoryview(data), at)
                self._count(len(data))
            os.fsync(file)
        finally:
            os.close(file)
        self._there[name] = size, digest.hexdigest()
        self.files += 1
        self.written_bytes += size

    def _digest(self, folder: int, name: str) -> str:
        file = open_file(name, folder)
        try:
            contents.evict(file)
            found = hashlib.sha256()
            while piece := os.read(file, contents.BLOCK_BYTES):
                found.update(piece)
                self.read_bytes += len(piece)
                self._count(len(piece))
        finally:
            os.close(file)
        return found.hexdigest()

    def _name(self) -> str:
        self._serial += 1
        return f"{self._chance.randrange(_FOLDERS)}/{self._serial}"

    def _sync(self, path: str) -> None:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY, dir_fd=self._root)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _damaged(self, path: str, why: str) -> CopyRefused:
        return CopyRefused("DAMAGED", why, f"{self._shown}/{path}")
