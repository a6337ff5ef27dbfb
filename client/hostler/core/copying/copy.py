"""Copy a file or a tree so that it is whole, equal and on the disk, or not there at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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
from hostler.core.copying.refused import CopyRefused, of_error, source_changed
from hostler.core.copying.staging import COPY, Staging, staging

_MANIFEST = "manifest"
_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_NOATIME


@dataclass(frozen=True, slots=True)
class Copied:
    """What was copied. `size_bytes` is of all regular files, `stored_bytes` what they take."""

    entries: int
    files: int
    size_bytes: int
    stored_bytes: int


def copy(source: Path, target: Path, *, with_manifest: bool = False) -> Copied:
    """Copy a file, or a folder with all in it, to a free place. A symlink is copied as such.

    Each file is written, brought to the disk, forgotten by the cache, read again and compared.
    The target appears as a whole at the end, with TARGET.manifest if wanted. Raises CopyRefused;
    then there is neither.
    """
    paths = [Path(os.path.abspath(path)) for path in (source, target)]  # noqa: PTH100 - no symlinks
    for path in paths:
        if not path.name:
            raise CopyRefused("FAILED", "has no name of its own", str(path))
    wanted = [paths[1].name, *([f"{paths[1].name}.manifest"] if with_manifest else [])]
    with ExitStack() as stack:
        folder, parent = (stack.enter_context(_parent(path)) for path in paths)
        with _naming(str(target)):
            _require_free(parent, wanted, paths[1].parent)
            _require_outside(folder, paths[0].name, paths[1])
            place = stack.enter_context(staging(parent, paths[1].name))
            copier = _Copier(str(paths[0]), place.folder, hashing=with_manifest)
            stack.callback(copier.reader.close)
            copier.copy(folder, paths[0].name, place.folder, COPY, "")
            copier.require_unchanged(folder, paths[0].name)
            _publish(place, copier.entries, wanted)
    return copier.copied()


class _Copier:
    """Copies into a private folder that is open, and keeps what it has seen on the way."""

    def __init__(self, source: str, root: int, *, hashing: bool) -> None:
        self.reader = contents.Reader(hashing=hashing)
        self.entries: list[manifest.Entry] = []
        self._source = source
        self._root = root
        self._device = 0
        self._versions: dict[str, tuple[int, ...]] = {}
        self._first: dict[tuple[int, int], manifest.Entry] = {}
        self._stored_bytes = 0

    def copy(
        self, folder: int, name: str, into: int, as_name: str, path: str, depth: int = 0
    ) -> None:
        """Copy one file, and what is in it. `path` is where it is below the source."""
        with _naming(self._named(path)):
            seen = look(folder, name)
            self._versions[path] = seen.version
            first = self._first.get(seen.inode)
            if first is not None:
                old = f"{COPY}/{first.path}"
                os.link(old, as_name, src_dir_fd=self._root, dst_dir_fd=into, follow_symlinks=False)
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
        return Copied(len(self.entries), len(files), size_bytes, self._stored_bytes)

    def _new(
        self, folder: int, name: str, into: int, as_name: str, path: str, depth: int, seen: Seen
    ) -> manifest.Entry:
        mode, digest = seen.attributes.mode, ""
        if stat.S_ISREG(mode):
            digest = self._file(folder, name, into, as_name, path, seen)
        elif stat.S_ISDIR(mode):
            self._folder(folder, name, into, as_name, path, depth, seen)
        else:
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
        os.mkdir(as_name, 0o700, dir_fd=into)
        with _opened(open_folder(name, folder)) as old, _opened(open_folder(as_name, into)) as new:
            if version_of(os.fstat(old)) != seen.version:
                raise source_changed(self._named(path))
            for one in names(old):
                self.copy(old, one, new, one, f"{path}/{one}" if path else one, depth + 1)
            give(into, as_name, seen.attributes)
            os.fsync(new)

    def _file(self, folder: int, name: str, into: int, as_name: str, path: str, seen: Seen) -> str:
        size_bytes = seen.attributes.size_bytes
        with _opened(open_file(name, folder)) as source:
            if version_of(os.fstat(source)) != seen.version:
                raise source_changed(self._named(path))
            with _opened(os.open(as_name, _NEW_FILE, 0o600, dir_fd=into)) as target:
                os.ftruncate(target, size_bytes)
                write = contents.write_all(target)
                try:
                    written = self.reader.digests(source, size_bytes, write)
                except EOFError:
                    raise source_changed(self._named(path)) from None
                give(into, as_name, seen.attributes)
                os.fsync(target)
                self._require_written(source, target, size_bytes, path)
                self._stored_bytes += os.fstat(target).st_blocks * 512
        return contents.of_blocks(written)

    def _require_written(self, source: int, target: int, size_bytes: int, path: str) -> None:
        contents.evict(target)
        try:
            equal = self.reader.are_equal(source, target, size_bytes)
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


@contextmanager
def _parent(path: Path) -> Iterator[int]:
    with _naming(str(path.parent)):
        # Symlinks on the way to it are the caller's own.
        opened = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    with _opened(opened):
        yield opened


@contextmanager
def _naming(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise of_error(error, path) from error


def _require_free(parent: int, wanted: list[str], shown: Path) -> None:
    for name in wanted:
        try:
            os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            continue
        raise CopyRefused("TARGET_EXISTS", "is there already", str(shown / name))


def _require_outside(folder: int, name: str, target: Path) -> None:
    source = os.stat(name, dir_fd=folder, follow_symlinks=False)
    for above in target.parent.resolve().joinpath("_").parents:
        if os.path.samestat(source, above.stat()):
            raise CopyRefused("INSIDE_SOURCE", "is inside of what is to be copied", str(target))


def _publish(place: Staging, entries: list[manifest.Entry], wanted: list[str]) -> None:
    target, *rest = wanted
    if rest:
        text = manifest.as_bytes(manifest.Manifest(target, tuple(entries)))
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
