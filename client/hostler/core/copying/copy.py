"""Copy a file or a tree so that it is whole, equal and on the disk, or not there at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path

from hostler.core.copying import contents, manifest
from hostler.core.copying.look import (
    MAX_DEPTH,
    Attributes,
    Seen,
    give,
    look,
    names,
    open_file,
    open_folder,
    version_of,
    walk,
)
from hostler.core.copying.place import Place, naming, place_of
from hostler.core.copying.progress import Counter, Tell, measure
from hostler.core.copying.refused import CopyRefused, source_changed
from hostler.core.copying.staging import COPY, Staging, remove, staging

_MANIFEST = "manifest"
_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_NOATIME
_OLD_FILE = os.O_RDWR | os.O_NOFOLLOW | os.O_NOATIME | os.O_NONBLOCK


@dataclass(frozen=True, slots=True)
class Copied:
    """What was copied. `size_bytes` is of all regular files, `stored_bytes` what they take.

    `resumed_bytes` were there already, left by a copy that was cut off, and found equal;
    `begun_anew` says that what was left there was of another copy, and is gone; `digest` is that
    over all of what came as a stream.
    """

    entries: int
    files: int
    size_bytes: int
    stored_bytes: int
    resumed_bytes: int = 0
    begun_anew: bool = False
    digest: str = ""


def copy(source: Path, target: Path, *, with_manifest: bool = False) -> Copied:
    """Copy a file, or a folder with all in it, to a free place. A symlink is copied as such.

    Each file is written, brought to the disk, forgotten by the cache, read again and compared.
    The target appears as a whole at the end, with TARGET.manifest if wanted. Raises CopyRefused;
    then there is neither.
    """
    with ExitStack() as stack:
        places = [stack.enter_context(place_of(path)) for path in (source, target)]
        return copy_at(places[0], places[1], with_manifest=with_manifest)


def copy_at(
    source: Place,
    target: Place,
    *,
    with_manifest: bool = False,
    mark: bytes = b"",
    tell: Tell | None = None,
) -> Copied:
    """Do what `copy` does, from one place to another.

    With a `mark` one that was killed is gone on with by the next that has the same: what is there
    and equal is not written again. `tell` counts each byte twice, as it is copied and compared.
    """
    wanted = [target.name, *([f"{target.name}.manifest"] if with_manifest else [])]
    with ExitStack() as stack:
        stack.enter_context(naming(target.shown))
        require_free(target, wanted)
        _require_outside(source, target)
        place = stack.enter_context(staging(target.folder, target.name, mark))
        copier = _Copier(source.shown, place, hashing=with_manifest, count=_counting(source, tell))
        stack.callback(copier.reader.close)
        copier.copy(source.folder, source.name, place.folder, COPY, "")
        copier.require_unchanged(source.folder, source.name)
        publish(place, copier.entries, wanted)
    return copier.copied()


def _counting(source: Place, tell: Tell | None) -> contents.Count | None:
    if tell is None:
        return None
    with suppress(FileNotFoundError, NotADirectoryError):
        return Counter(tell, 2 * measure(source))
    raise source_changed(source.shown)


class _Copier:
    """Copies into a private folder that is open, and keeps what it has seen on the way."""

    def __init__(
        self, source: str, place: Staging, *, hashing: bool, count: contents.Count | None = None
    ) -> None:
        self.reader = contents.Reader(hashing=hashing, count=count)
        self.entries: list[manifest.Entry] = []
        self._source = source
        self._place = place
        self._resumed_bytes = 0
        # What is looked at before it is gone on with is not counted, but may be ended.
        self._proof = contents.Reader(hashing=False, count=count and (lambda _: count(0)))
        self._device = 0
        self._versions: dict[str, tuple[int, ...]] = {}
        self._first: dict[tuple[int, int], manifest.Entry] = {}
        self._stored_bytes = 0

    def copy(
        self, folder: int, name: str, into: int, as_name: str, path: str, depth: int = 0
    ) -> None:
        """Copy one file, and what is in it. `path` is where it is below the source."""
        with naming(self._named(path)):
            seen = look(folder, name)
            self._versions[path] = seen.version
            first = self._first.get(seen.inode)
            if first is not None:
                old, root = f"{COPY}/{first.path}", self._place.folder
                self._make_room(into, as_name)
                os.link(old, as_name, src_dir_fd=root, dst_dir_fd=into, follow_symlinks=False)
                self.entries.append(manifest.Entry(path, seen.attributes, first.path, first.digest))
                return
            entry = self._new(folder, name, into, as_name, path, depth, seen)
            self._require_equal(seen.attributes, look(into, as_name).attributes, path)
            if stat.S_ISLNK(seen.attributes.mode):  # Nothing reads one without being noted.
                give(into, as_name, seen.attributes)
        self.entries.append(entry)
        if seen.links > 1 and not stat.S_ISDIR(seen.attributes.mode):
            self._first[seen.inode] = entry

    def require_unchanged(self, folder: int, name: str) -> None:
        """Refuse where anything of the source is not as it was seen."""
        now: dict[str, tuple[int, ...]] = {}
        try:
            for path, at, one in walk(folder, name):
                now[path] = version_of(os.stat(one, dir_fd=at, follow_symlinks=False))
        except (FileNotFoundError, NotADirectoryError):
            raise source_changed(self._source) from None
        for path in {**self._versions, **now}:
            if self._versions.get(path) != now.get(path):
                raise source_changed(self._named(path))

    def copied(self) -> Copied:
        """Sum it up."""
        regular = [one for one in self.entries if stat.S_ISREG(one.attributes.mode)]
        files = [one for one in regular if one.link_to is None]
        size_bytes = sum(one.attributes.size_bytes for one in files)
        left = self._resumed_bytes, self._place.removed
        return Copied(len(self.entries), len(files), size_bytes, self._stored_bytes, *left)

    def _new(
        self, folder: int, name: str, into: int, as_name: str, path: str, depth: int, seen: Seen
    ) -> manifest.Entry:
        mode, digest = seen.attributes.mode, ""
        if stat.S_ISREG(mode):
            digest = self._file(folder, name, into, as_name, path, seen)
        elif stat.S_ISDIR(mode):
            self._folder(folder, name, into, as_name, path, depth, seen)
        else:
            self._make_room(into, as_name)
            if stat.S_ISLNK(mode):
                os.symlink(seen.attributes.link, as_name, dir_fd=into)
            else:
                device = seen.attributes.device
                os.mknod(as_name, stat.S_IFMT(mode) | 0o600, device, dir_fd=into)
            give(into, as_name, seen.attributes)
        return manifest.Entry(path, seen.attributes, digest=digest)

    def _folder(
        self, folder: int, name: str, into: int, as_name: str, path: str, depth: int, seen: Seen
    ) -> None:
        self._device = self._device or seen.inode[0]
        if seen.inode[0] != self._device:
            raise CopyRefused("OTHER_FILESYSTEM", "is another filesystem", self._named(path))
        if depth == MAX_DEPTH:
            raise CopyRefused("TOO_DEEP", f"more than {MAX_DEPTH} folders", self._named(path))
        self._make_folder(into, as_name)
        with _opened(open_folder(name, folder)) as old, _opened(open_folder(as_name, into)) as new:
            if version_of(os.fstat(old)) != seen.version:
                raise source_changed(self._named(path))
            wanted = names(old)
            for one in set(names(new)).difference(wanted) if self._place.resumed else ():
                remove(new, one)
            for one in wanted:
                self.copy(old, one, new, one, f"{path}/{one}" if path else one, depth + 1)
            give(into, as_name, seen.attributes)
            os.fsync(new)

    def _file(self, folder: int, name: str, into: int, as_name: str, path: str, seen: Seen) -> str:
        size_bytes = seen.attributes.size_bytes
        with _opened(open_file(name, folder)) as source:
            if version_of(os.fstat(source)) != seen.version:
                raise source_changed(self._named(path))
            with _opened(self._open_target(into, as_name)) as target:
                os.ftruncate(target, size_bytes)
                try:
                    write = contents.write_all(target, self._proven(source, target, size_bytes))
                    written = self.reader.digests(source, size_bytes, write)
                except EOFError:
                    raise source_changed(self._named(path)) from None
                give(into, as_name, seen.attributes)
                os.fsync(target)
                self._require_written(source, target, size_bytes, path)
                self._stored_bytes += os.fstat(target).st_blocks * 512
        return contents.of_blocks(written)

    def _proven(self, source: int, target: int, size_bytes: int) -> int:
        """How much of a file was there already and is equal; the rest of it is a hole then."""
        if not self._place.resumed:
            return 0
        os.fsync(target)
        contents.evict(target)
        until = self._proof.equal_until(source, target, size_bytes)
        os.ftruncate(target, until)
        os.ftruncate(target, size_bytes)
        self._resumed_bytes += until
        return until

    def _open_target(self, into: int, name: str) -> int:
        if self._is_there(into, name, stat.S_IFREG):
            os.chmod(name, 0o600, dir_fd=into)
            return os.open(name, _OLD_FILE, dir_fd=into)
        self._make_room(into, name)
        return os.open(name, _NEW_FILE, 0o600, dir_fd=into)

    def _make_folder(self, into: int, name: str) -> None:
        if self._is_there(into, name, stat.S_IFDIR):
            os.chmod(name, 0o700, dir_fd=into)
        else:
            self._make_room(into, name)
            os.mkdir(name, 0o700, dir_fd=into)

    def _is_there(self, into: int, name: str, kind: int) -> bool:
        """Whether what a copy that was cut off has left is of this kind."""
        if self._place.resumed:
            with suppress(FileNotFoundError):
                return (
                    stat.S_IFMT(os.stat(name, dir_fd=into, follow_symlinks=False).st_mode) == kind
                )
        return False

    def _make_room(self, into: int, name: str) -> None:
        if self._place.resumed:
            with suppress(FileNotFoundError):
                remove(into, name)

    def _require_written(self, source: int, target: int, size_bytes: int, path: str) -> None:
        contents.evict(target)
        try:
            equal = self.reader.equal_until(source, target, size_bytes) == size_bytes
        except EOFError:
            equal = False
        if version_of(os.fstat(source)) != self._versions[path]:
            raise source_changed(self._named(path))
        if not equal:
            message = "the disk answers something else than was written"
            raise CopyRefused("NOT_EQUAL", message, self._named(path))

    def _require_equal(self, wanted: Attributes, there: Attributes, path: str) -> None:
        lost = [
            one.name
            for one in fields(Attributes)
            if getattr(wanted, one.name) != getattr(there, one.name)
        ]
        if lost:
            message = f"the target does not keep {', '.join(lost)}"
            raise CopyRefused("NOT_KEPT", message, self._named(path))

    def _named(self, path: str) -> str:
        return f"{self._source}/{path}" if path else self._source


@contextmanager
def _opened(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def require_free(target: Place, wanted: list[str]) -> None:
    """Raise CopyRefused if anything of these names is in the target's folder."""
    for name in wanted:
        try:
            os.stat(name, dir_fd=target.folder, follow_symlinks=False)
        except FileNotFoundError:
            continue
        shown = str(Path(target.shown).with_name(name))
        raise CopyRefused("TARGET_EXISTS", "is there already", shown)


def _require_outside(source: Place, target: Place) -> None:
    seen = os.stat(source.name, dir_fd=source.folder, follow_symlinks=False)
    for above in Path(f"/proc/self/fd/{target.folder}").readlink().joinpath("_").parents:
        if os.path.samestat(seen, above.stat()):
            raise CopyRefused("INSIDE_SOURCE", "is inside of what is to be copied", target.shown)


def publish(place: Staging, entries: list[manifest.Entry], wanted: list[str]) -> None:
    """Give a copy that is whole its name, and its manifest if wanted. Raises CopyRefused."""
    target, *rest = wanted
    if rest:
        text = manifest.as_bytes(manifest.Manifest(target, tuple(entries)))
        with suppress(FileNotFoundError):
            remove(place.folder, _MANIFEST)
        with _opened(os.open(_MANIFEST, _NEW_FILE, 0o600, dir_fd=place.folder)) as file:
            contents.write_all(file)(memoryview(text), 0)
            os.fsync(file)
    place.publish(COPY, target)
    for name in rest:
        try:
            place.publish(_MANIFEST, name)
        except BaseException:
            place.take_back(target, COPY)
            raise
