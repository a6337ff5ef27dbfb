"""How far a copy is."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from hostler.core.copying.look import walk
from hostler.core.copying.place import Place

#: Is told of how many bytes are done, of how many; what it raises ends the work.
Tell = Callable[[int, int], None]


class Counter:
    """Counts bytes and tells of them. It is called with how many more there are."""

    def __init__(self, tell: Tell, total: int) -> None:
        self._tell = tell
        self._total = total
        self._done = 0

    def __call__(self, size_bytes: int) -> None:
        """Count."""
        self._done += size_bytes
        self._tell(min(self._done, self._total), self._total)


def measure(source: Place) -> int:
    """How many bytes the regular files of a tree have, each file once. Raises OSError."""
    found: dict[tuple[int, int], int] = {}
    for _, folder, name in walk(source.folder, source.name):
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISREG(status.st_mode):
            found[status.st_dev, status.st_ino] = status.st_size
    return sum(found.values())
