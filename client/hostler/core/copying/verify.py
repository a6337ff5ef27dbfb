"""Read a copy again, from the disk, and compare it with the manifest that was made of it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import BinaryIO

from hostler.core.copying import contents
from hostler.core.copying.look import Attributes, look, open_file, walk
from hostler.core.copying.manifest import MAX_BYTES, BadManifest, Entry, Manifest, of_bytes
from hostler.core.copying.place import Place
from hostler.core.copying.progress import Counter, Tell

#: Reading changes it.
_NOT_COMPARED = "atime_ns"


@dataclass(frozen=True, slots=True)
class Finding:
    """What is not as it was: MISSING, UNLISTED, UNREADABLE, CONTENTS, ATTRIBUTES or HARD_LINK."""

    path: str
    code: str
    message: str


def load(path: Path) -> Manifest:
    """Read a manifest file. Raises BadManifest, OSError."""
    with path.open("rb") as file:
        return _load(file)


def load_at(place: Place) -> Manifest:
    """Read a manifest file that is no symlink. Raises BadManifest, OSError."""
    with os.fdopen(open_file(place.name, place.folder), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise BadManifest("this is no regular file")
        return _load(file)


def _load(file: BinaryIO) -> Manifest:
    text = file.read(MAX_BYTES + 1)
    if len(text) > MAX_BYTES:
        raise BadManifest("the manifest is larger than any that was written")
    return of_bytes(text)


def verify(manifest: Manifest, root: Path) -> tuple[Finding, ...]:
    """Compare what is at `root` with a manifest; empty where all is as it was. Raises OSError."""
    parent = os.open(root.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return verify_at(manifest, Place(parent, root.name, str(root)))
    finally:
        os.close(parent)


def verify_at(manifest: Manifest, place: Place, tell: Tell | None = None) -> tuple[Finding, ...]:
    """Do what `verify` does for a place, and tell how far it is. Raises OSError."""
    total = sum(one.attributes.size_bytes for one in manifest.entries if one.link_to is None)
    listed = {entry.path: entry for entry in manifest.entries}
    inodes: dict[str, tuple[int, int]] = {}
    found: list[Finding] = []
    reader = contents.Reader(hashing=True, count=tell and Counter(tell, total))
    try:
        for path, folder, name in walk(place.folder, place.name):
            entry = listed.pop(path, None)
            if entry is None:
                found.append(Finding(path, "UNLISTED", "is not in the manifest"))
                continue
            try:
                found += _compared(folder, name, entry, inodes, reader)
            except OSError as error:
                message = error.strerror or str(error)
                found.append(Finding(path, "UNREADABLE", message))
    finally:
        reader.close()
    found += (Finding(path, "MISSING", "is not there") for path in listed)
    return tuple(sorted(found, key=lambda one: (one.path, one.code)))


def _compared(
    folder: int,
    name: str,
    entry: Entry,
    inodes: dict[str, tuple[int, int]],
    reader: contents.Reader,
) -> Iterator[Finding]:
    seen = look(folder, name)
    inodes[entry.path] = seen.inode
    changed = [
        one.name
        for one in fields(Attributes)
        if one.name != _NOT_COMPARED
        and getattr(entry.attributes, one.name) != getattr(seen.attributes, one.name)
    ]
    if changed:
        yield Finding(entry.path, "ATTRIBUTES", f"other than it was: {', '.join(changed)}")
    if entry.link_to is not None and inodes.get(entry.link_to) != seen.inode:
        yield Finding(entry.path, "HARD_LINK", f"no hard link to {entry.link_to}")
    elif entry.link_to is None and entry.digest and stat.S_ISREG(seen.attributes.mode):
        if _digest(folder, name, seen.attributes.size_bytes, reader) != entry.digest:
            yield Finding(entry.path, "CONTENTS", "the contents are not what was copied")


def _digest(folder: int, name: str, size_bytes: int, reader: contents.Reader) -> str:
    descriptor = open_file(name, folder)
    try:
        contents.evict(descriptor)
        return contents.of_blocks(reader.digests(descriptor, size_bytes))
    except EOFError:  # It was cut while it was read.
        return ""
    finally:
        os.close(descriptor)
