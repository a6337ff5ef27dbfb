"""Files that change together: all new or all old, whatever is cut off when.

Each new file is written beside the old one, the old one gets a second name, and only then the names
change hands; a record on disk says how far that went. The old key is never copied: it keeps its
inode, and so its owner and mode.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from hostlerd.privileged.refused import Refused
from hostlerd.ssl.installer import folder
from hostlerd.ssl.installer.contents import Prepared

#: The phases of a record. Up to RELOADING it is undone by the next start, WAITING is left as it is.
STAGING, SWAPPING, RELOADING, WAITING, UNDOING, COMMITTED = (
    *("staging", "swapping", "reloading"),
    *("waiting", "undoing", "committed"),
)


@dataclass(slots=True)
class Transaction:
    """A run: what it puts in place, and how far it has come.

    `files` are (home, path, whether one was there); `units` are the servers that have been asked
    to reload, `left` those that wait for their window, until `due_unix_s`. `before` is what the
    targets served before, by number. `stubborn` is the server that did not reload.
    """

    place: Path
    number: str
    deployments: list[Mapping[str, Any]]
    wanted: list[Mapping[str, Any]]
    files: list[tuple[str, str, bool]]
    phase: str = STAGING
    before: list[str] = field(default_factory=list)
    units: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    due_unix_s: int = 0
    install_unix_s: int = 0
    stubborn: str = ""

    @classmethod
    def begin(cls, place: Path, prepared: Sequence[Prepared], before: list[str]) -> Transaction:
        """Note what will be done. Raises Refused for a file that is none, OSError."""
        files = []
        for one in prepared:
            for target in one.targets.values():
                with folder.opened(target.home, target.path) as fd:
                    kind = folder.kind_of(fd, target.path.name)
                if kind == "other":
                    raise Refused("NOT_A_FILE", f"{target.path} is a link, or no file")
                files.append((str(target.home), str(target.path), kind == "file"))
        wanted: list[Mapping[str, Any]] = [
            {"leaf": p.wanted.leaf, "issuers": list(p.wanted.issuers)} for p in prepared
        ]
        made = cls(place, secrets.token_hex(8), [p.deployment for p in prepared], wanted, files)
        made.before = before
        made.note(STAGING)
        return made

    @classmethod
    def all(cls, place: Path) -> list[Transaction]:
        """Answer all that are recorded. Raises OSError; a record that is torn is none."""
        found = []
        paths = {path.name: path for path in _waiting(place).glob("*.json")}
        # One that is in both folders was cut off on its way from one to the other: it is undone.
        paths |= {path.name: path for path in place.glob("*.json")}
        for _, path in sorted(paths.items()):
            told = json.loads(path.read_bytes())
            told["files"] = [(h, p, bool(had)) for h, p, had in told["files"]]
            found.append(cls(place, path.stem, **told))
        return found

    @property
    def names(self) -> list[str]:
        """The deployments in it."""
        return [one["name"] for one in self.deployments]

    def note(self, phase: str) -> None:
        """Put the record on disk. It holds no key. Raises OSError.

        What waits for a window lies apart: a record in the journal means that there is work to do.
        """
        self.phase = phase
        here, there = self.place, _waiting(self.place)
        if phase == WAITING:
            here, there = there, here
        here.mkdir(mode=0o700, exist_ok=True)
        told = {
            name: getattr(self, name) for name in self.__slots__ if name not in ("place", "number")
        }
        with _folder(here) as fd:
            draft, name = f".{self.number}.new", f"{self.number}.json"
            folder.write_new(fd, draft, json.dumps(told).encode(), 0o600)
            os.rename(draft, name, src_dir_fd=fd, dst_dir_fd=fd)
            os.fsync(fd)
        (there / name).unlink(missing_ok=True)

    def swap(self, prepared: Sequence[Prepared]) -> None:
        """Put the new files in the place of the old ones. Raises OSError, Refused."""
        for one in prepared:
            for name, target in one.targets.items():
                with folder.opened(target.home, target.path) as fd:
                    new = _new(target.path.name)
                    data = one.data[name]
                    folder.write_new(fd, new, data, target.mode, target.uid, target.gid)
        self.note(SWAPPING)
        for home, path, had in self.files:
            with _at(home, path) as (fd, name):
                if had:
                    folder.remove(fd, _old(name))
                    os.link(name, _old(name), src_dir_fd=fd, dst_dir_fd=fd, follow_symlinks=False)
                os.rename(_new(name), name, src_dir_fd=fd, dst_dir_fd=fd)
                os.fsync(fd)

    def put_back(self) -> None:
        """Bring the old files back, those that are back already left alone. Raises OSError."""
        self.note(UNDOING)
        for home, path, had in self.files:
            with _at(home, path) as (fd, name):
                was_swapped = folder.kind_of(fd, _new(name)) == ""
                if had and folder.kind_of(fd, _old(name)):
                    os.rename(_old(name), name, src_dir_fd=fd, dst_dir_fd=fd)
                    # A rename between two names of one file does nothing: rename(2).
                    folder.remove(fd, _old(name))
                elif not had and was_swapped:
                    folder.remove(fd, name)
                folder.remove(fd, _new(name))
                os.fsync(fd)

    def commit(self) -> None:
        """Let go of the old files. Raises OSError."""
        self.note(COMMITTED)
        for home, path, _ in self.files:
            with _at(home, path) as (fd, name):
                folder.remove(fd, _old(name))
                folder.remove(fd, _new(name))
        self.forget()

    def forget(self) -> None:
        """Remove the record."""
        for place in (_waiting(self.place), self.place):
            (place / f"{self.number}.json").unlink(missing_ok=True)
        with _folder(self.place) as fd:
            os.fsync(fd)


def _waiting(place: Path) -> Path:
    return place.with_name("waiting")


def _new(name: str) -> str:
    return f".{name}.hostler-new"


def _old(name: str) -> str:
    return f".{name}.hostler-old"


@contextmanager
def _folder(place: Path) -> Iterator[int]:
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _at(home: str, path: str) -> Iterator[tuple[int, str]]:
    whole = PurePosixPath(path)
    with folder.opened(PurePosixPath(home), whole) as fd:
        yield fd, whole.name
