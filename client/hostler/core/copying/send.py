"""Send a tree as parts. Nothing of it may change meanwhile."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import replace

from hostler.core.copying import contents
from hostler.core.copying.look import MAX_DEPTH, Seen, look, open_file, version_of, walk
from hostler.core.copying.manifest import Entry
from hostler.core.copying.parts import PIECE_BYTES, Begin, Data, End, Have, Part, Tail, digest_of
from hostler.core.copying.place import Place, naming
from hostler.core.copying.progress import measure
from hostler.core.copying.refused import CopyRefused, source_changed

#: Takes each part before the next is read; its data are good until it comes back.
Emit = Callable[[Part], None]


def send(source: Place, have: Have, emit: Emit) -> None:
    """Emit all parts of a tree but for the data that the other side has.

    What is not sent is read all the same, since its digest is. Raises CopyRefused, and what `emit`
    raises.
    """
    with naming(source.shown):
        emit(Begin(measure(source)))
        sender = _Sender(source, have, emit)
        try:
            for path, folder, name in walk(source.folder, source.name):
                with naming(sender.named(path)):
                    sender.send(path, folder, name)
            sender.require_unchanged()
        except FileNotFoundError:
            raise source_changed(source.shown) from None
        finally:
            sender.reader.close()
        emit(End(len(sender.entries), digest_of(sender.entries)))


class _Sender:
    """Sends entry after entry, and keeps what it has seen."""

    def __init__(self, source: Place, have: Have, emit: Emit) -> None:
        self.reader = contents.Reader(hashing=True)
        self.entries: list[Entry] = []
        self._source = source
        self._have = have
        self._emit = emit
        self._device = 0
        self._versions: dict[str, tuple[int, ...]] = {}
        self._first: dict[tuple[int, int], Entry] = {}

    def send(self, path: str, folder: int, name: str) -> None:
        """Send one entry."""
        seen = look(folder, name)
        self._versions[path] = seen.version
        self._device = self._device or seen.inode[0]
        if path.count("/") >= MAX_DEPTH:
            raise CopyRefused("TOO_DEEP", f"more than {MAX_DEPTH} folders", self.named(path))
        if seen.inode[0] != self._device:
            raise CopyRefused("OTHER_FILESYSTEM", "is another filesystem", self.named(path))
        first = self._first.get(seen.inode)
        if first is not None:
            entry = Entry(path, seen.attributes, first.path)
            self._emit(entry)
            self.entries.append(replace(entry, digest=first.digest))
            return
        entry = Entry(path, seen.attributes)
        self._emit(entry)
        if stat.S_ISREG(seen.attributes.mode):
            digest = self._contents(path, folder, name, seen)
            self._emit(Tail(digest))
            entry = replace(entry, digest=digest)
        self.entries.append(entry)
        if seen.links > 1 and not stat.S_ISDIR(seen.attributes.mode):
            self._first[seen.inode] = entry

    def named(self, path: str) -> str:
        """An entry's path as people know it."""
        return f"{self._source.shown}/{path}" if path else self._source.shown

    def require_unchanged(self) -> None:
        """Refuse where anything is not as it was seen. Raises CopyRefused, FileNotFoundError."""
        now = {
            path: version_of(os.stat(name, dir_fd=folder, follow_symlinks=False))
            for path, folder, name in walk(self._source.folder, self._source.name)
        }
        for path in {**self._versions, **now}:
            if self._versions.get(path) != now.get(path):
                raise source_changed(self.named(path))

    def _contents(self, path: str, folder: int, name: str, seen: Seen) -> str:
        index = len(self.entries)
        after = 0 if index > self._have.entries else self._have.offset

        def write(piece: memoryview, offset: int) -> None:
            if index < self._have.entries:
                return
            skipped = min(max(0, after - offset), len(piece))
            for at in range(skipped, len(piece), PIECE_BYTES):
                self._emit(Data(offset + at, piece[at : at + PIECE_BYTES]))

        opened = open_file(name, folder)
        try:
            if version_of(os.fstat(opened)) != seen.version:
                raise source_changed(self.named(path))
            return contents.of_blocks(
                self.reader.digests(opened, seen.attributes.size_bytes, write)
            )
        except EOFError:
            raise source_changed(self.named(path)) from None
        finally:
            os.close(opened)
