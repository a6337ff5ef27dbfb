"""Write a tree down from its parts, so that it is whole, equal and on the disk, or not there.

Whoever sends may be anybody: a part that does not fit is refused with a reason, and nothing stays.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace

from hostler.core.copying import contents
from hostler.core.copying.copy import Copied, publish, require_free
from hostler.core.copying.manifest import Entry
from hostler.core.copying.parts import Begin, Data, End, Have, Part, Tail, digest_of
from hostler.core.copying.place import Place, naming
from hostler.core.copying.progress import Tell
from hostler.core.copying.refused import CopyRefused
from hostler.core.copying.staging import Staging, staging
from hostler.core.copying.written import Written, malformed

MOST_ENTRIES = 1_000_000
MOST_FILE_BYTES = 16 << 40
MOST_HEAD_BYTES = 512 << 20
"""The most bytes of paths, links and attributes that are kept in memory."""

_STATE = "state"
_NEW_STATE = "state.new"
_NOTE_BYTES = 64 << 20
_NOTE_ENTRIES = 1000
_STATE_BYTES_MOST = 4096
# Parts that are smaller than a block of the smallest filesystems are few.
_FREE_PIECES, _LEAST_PIECE_BYTES = 100_000, 512


class CutOff(Exception):
    """The stream ended before its end. What came is kept, and gone on with."""


def receive(
    target: Place,
    mark: bytes,
    begun: Callable[[Have], Iterable[Part]],
    *,
    with_manifest: bool = False,
    tell: Tell | None = None,
) -> Copied:
    """Write what `begun`, told what is there already, answers part by part.

    Each file is read again from the disk and compared with its digest. Raises CopyRefused, CutOff,
    and what `begun` and `tell` raise.
    """
    wanted = [target.name, *([f"{target.name}.manifest"] if with_manifest else [])]
    with naming(target.shown):
        require_free(target, wanted)
        with staging(target.folder, target.name, mark) as place:
            receiver = _Receiver(place, target, tell)
            try:
                receiver.take(begun(receiver.have))
            except CutOff:
                receiver.note()
                place.kept = True
                raise
            finally:
                receiver.close()
            publish(place, receiver.entries, wanted)
    return receiver.copied()


class _Receiver:
    """Takes part after part."""

    def __init__(self, place: Staging, target: Place, tell: Tell | None) -> None:
        self.have = _state_of(place.folder) if place.resumed else Have()
        self.entries: list[Entry] = []
        self._place = place
        self._target = target
        self._tell = tell or (lambda done, total: None)
        self._reader = contents.Reader(hashing=True, count=lambda _: self._tell(*self._far))
        self._written = Written(place, target.shown)
        self._kinds: dict[str, Entry] = {}
        self._end: End | None = None
        self._open: Entry | None = None
        self._file = -1
        self._until = 0
        self._total = 0
        self._done = 0
        self._pieces = 0
        self._head_bytes = 0
        self._since = [0, 0]
        self._stored_bytes = 0

    @property
    def _far(self) -> tuple[int, int]:
        return min(self._done, self._total), self._total

    def take(self, parts: Iterable[Part]) -> None:
        """Take all parts. Raises CopyRefused, CutOff."""
        for part in parts:
            if self._end is not None:
                raise malformed("something follows the end", self._target.shown)
            self._take(part)
            self._tell(*self._far)
        if self._end is None:
            raise CutOff
        self._written.finish()

    def close(self) -> None:
        """Close what is open."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._written.close()
        self._reader.close()

    def copied(self) -> Copied:
        """Sum it up."""
        files = [one for one in self.entries if one.digest and one.link_to is None]
        size_bytes = sum(one.attributes.size_bytes for one in files)
        resumed = sum(one.attributes.size_bytes for one in self._resumed()) + self.have.offset
        left = resumed, self._place.removed, self._end.digest if self._end else ""
        return Copied(len(self.entries), len(files), size_bytes, self._stored_bytes, *left)

    def _resumed(self) -> Iterable[Entry]:
        return (one for one in self.entries[: self.have.entries] if one.digest and not one.link_to)

    def note(self) -> None:
        """Bring what came to the disk, and note how much it is."""
        if self._file >= 0:
            os.fdatasync(self._file)
        self._written.sync()
        now = Have(len(self.entries), self._until if self._file >= 0 else 0)
        if (now.entries, now.offset) < (self.have.entries, self.have.offset):
            return
        _write_state(self._place.folder, now)
        self._since = [0, 0]

    def _take(self, part: Part) -> None:
        if isinstance(part, Data):
            self._take_data(part)
        elif isinstance(part, Tail):
            self._take_tail(part)
        elif self._open is not None:
            raise malformed("a file has no tail", self._named(self._open.path))
        elif isinstance(part, Entry):
            self._take_entry(part)
        elif isinstance(part, Begin):
            if self._total or self.entries:
                raise malformed("it begins twice", self._target.shown)
            self._total = part.size_bytes
        else:
            self._take_end(part)
        if self._since[0] >= _NOTE_BYTES or self._since[1] >= _NOTE_ENTRIES:
            self.note()

    def _take_entry(self, entry: Entry) -> None:
        self._check(entry)
        with naming(self._named(entry.path)):
            self._file = self._written.make(entry)
            if self._file < 0:
                self._add(entry)
                return
            index, size_bytes = len(self.entries), entry.attributes.size_bytes
            self._until = self.have.offset if index == self.have.entries else 0
            if index >= self.have.entries:
                os.ftruncate(self._file, min(self._until, size_bytes))
            os.ftruncate(self._file, size_bytes)
            self._open = entry

    def _check(self, entry: Entry) -> None:
        """Refuse what is too much, named twice, or is a link to what did not come."""
        shown = self._named(entry.path)
        one = entry.attributes
        self._head_bytes += 512 + len(entry.path) + len(one.link)
        self._head_bytes += sum(len(key) + len(value) for key, value in one.xattrs)
        if len(self.entries) >= MOST_ENTRIES or self._head_bytes > MOST_HEAD_BYTES:
            raise CopyRefused("TOO_MUCH", "has more files than are taken", shown)
        if not 0 <= one.size_bytes <= MOST_FILE_BYTES:
            raise CopyRefused("TOO_MUCH", "is larger than files can be", shown)
        if entry.path in self._kinds:
            raise malformed("it comes twice", shown)
        if entry.digest:
            raise malformed("a digest comes too soon", shown)
        if entry.link_to is not None:
            first = self._kinds.get(entry.link_to)
            if first is None or first.link_to is not None or stat.S_ISDIR(first.attributes.mode):
                raise malformed("a hard link to what is not there", shown)
            if replace(one, atime_ns=0) != replace(first.attributes, atime_ns=0):
                raise malformed("a hard link that is another file", shown)

    def _take_data(self, part: Data) -> None:
        if self._open is None:
            raise malformed("data of no file", self._target.shown)
        shown, end = self._named(self._open.path), part.offset + len(part.data)
        self._pieces += 1
        self._done += len(part.data)
        if self._pieces > _FREE_PIECES + self._done // _LEAST_PIECE_BYTES:
            raise CopyRefused("TOO_MUCH", "comes in too many pieces", shown)
        if not part.data or part.offset < self._until or end > self._open.attributes.size_bytes:
            raise malformed("data where none can be", shown)
        with naming(shown):
            contents.write_all(self._file)(memoryview(part.data), part.offset)
        self._until = end
        self._since[0] += len(part.data)

    def _take_tail(self, part: Tail) -> None:
        entry, file = self._open, self._file
        if entry is None:
            raise malformed("a tail of no file", self._target.shown)
        with naming(self._named(entry.path)):
            self._written.give(entry)
            os.fsync(file)
            contents.evict(file)
            digest = contents.of_blocks(self._reader.digests(file, entry.attributes.size_bytes))
            self._stored_bytes += os.fstat(file).st_blocks * 512
            if digest != part.digest:
                raise self._not_equal(entry)
            self._written.require_kept(entry)
        os.close(file)
        self._open, self._file = None, -1
        self._add(replace(entry, digest=digest))

    def _not_equal(self, entry: Entry) -> CopyRefused:
        words = "the disk answers something else than was sent"
        if len(self.entries) <= self.have.entries and self._place.resumed:
            words = "what was left of it is not what the source has now; the next begins anew"
        return CopyRefused("NOT_EQUAL", words, self._named(entry.path))

    def _take_end(self, part: End) -> None:
        if part.entries != len(self.entries) or not self.entries:
            raise malformed("the count of its files is another", self._target.shown)
        if part.digest != digest_of(self.entries):
            raise CopyRefused("NOT_EQUAL", "the digest over all is another", self._target.shown)
        self._end = part

    def _add(self, entry: Entry) -> None:
        if entry.link_to is not None:
            entry = replace(entry, digest=self._kinds[entry.link_to].digest)
        self._kinds[entry.path] = entry
        self.entries.append(entry)
        self._since[1] += 1

    def _named(self, path: str) -> str:
        return f"{self._target.shown}/{path}" if path else self._target.shown


def _state_of(folder: int) -> Have:
    with suppress(OSError, ValueError, TypeError):
        file = os.open(_STATE, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            entries, offset = json.loads(os.read(file, _STATE_BYTES_MOST))
        finally:
            os.close(file)
        if type(entries) is type(offset) is int and 0 <= min(entries, offset):
            return Have(entries, offset)
    return Have()


def _write_state(folder: int, have: Have) -> None:
    with suppress(FileNotFoundError):
        os.unlink(_NEW_STATE, dir_fd=folder)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(_NEW_STATE, flags, 0o600, dir_fd=folder)
    try:
        os.write(file, json.dumps([have.entries, have.offset]).encode())
        os.fsync(file)
    finally:
        os.close(file)
    os.rename(_NEW_STATE, _STATE, src_dir_fd=folder, dst_dir_fd=folder)
    os.fsync(folder)
