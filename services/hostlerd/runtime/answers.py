"""The answers of changes by retry key, on disk: what a request id has done is not done again.

One file for one answer, named by the hash of (identity, method, request id), in folders of an hour
or of 400, of which the newest 25 are kept: looking one up tries 25 names, forgetting old ones
removes a folder, and a start reads nothing. What goes with a boot is answered from a folder that
goes with it: after the boot the same request is a new one, since what it had done is not there any
more.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message

from hostler.core import files
from hostlerd.runtime import redact

KEPT_S = 24 * 3600
FOLDERS, IN_FOLDER = 25, 400
_FOLDER_S = 3600
_MOST_BYTES = 8 << 20
# What is longer is answered without its resource and plan; the outcome stays.
_WHOLE_BYTES = 256 << 10
_DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class Key:
    """What makes two requests the same one; `body` is the SHA-256 of the request, in hex."""

    identity: str
    method: str
    request_id: str
    body: str

    @property
    def name(self) -> str:
        """The file's name. Another body has the same: that is how a reused id is noticed."""
        text = "\0".join((self.identity, self.method, self.request_id))
        return hashlib.sha256(text.encode()).hexdigest()


def answer_of(method: str) -> Any:
    """Make an empty message of the type that a method answers. Raises KeyError for no method."""
    name = method.removeprefix("/").replace("/", ".")
    output = descriptor_pool.Default().FindMethodByName(name).output_type
    return message_factory.GetMessageClass(output)()


class Reused(Exception):
    """The request id belongs to another request."""


class Answers:
    """The answers of a domain, in requests/ of `lasting` and of `passing`. All methods block."""

    def __init__(self, lasting: Path, passing: Path) -> None:
        self._shelves = (_Shelf(lasting / "requests", durable=True), _Shelf(passing / "requests"))

    def find(self, key: Key, answer: Message) -> bool:
        """Fill `answer` with what was answered before; False if nothing was. Raises Reused."""
        for shelf in self._shelves:
            data = shelf.read(key.name)
            if data is None:
                continue
            if data[:_DIGEST_BYTES] != bytes.fromhex(key.body):
                raise Reused
            answer.ParseFromString(data[_DIGEST_BYTES:])
            return True
        return False

    def store(self, key: Key, answer: Message, *, lasts: bool) -> None:
        """Keep an answer, its secrets left out. Raises OSError."""
        kept = type(answer)()
        kept.CopyFrom(answer)
        redact.clear(kept)
        if kept.ByteSize() > _WHOLE_BYTES:
            _shorten(kept)
        shelf = self._shelves[0 if lasts else 1]
        shelf.write(key.name, bytes.fromhex(key.body) + kept.SerializeToString())


class _Shelf:
    """Folders of answers, each named by the second in which it was begun."""

    def __init__(self, root: Path, *, durable: bool = False) -> None:
        self._root = root
        self._durable = durable
        self._lock = threading.Lock()
        # The folder that is being filled, and how many more it takes.
        self._filling: Path | None = None
        self._room = 0

    def read(self, name: str) -> bytes | None:
        for folder in reversed(self._folders()):
            path = folder / name
            try:
                if path.stat().st_mtime < time.time() - KEPT_S:
                    continue
                data = files.read_bounded(path, _MOST_BYTES)
            except (FileNotFoundError, NotADirectoryError):
                continue
            if len(data) >= _DIGEST_BYTES:
                return data
        return None

    def write(self, name: str, data: bytes) -> None:
        with self._lock:
            folder = self._folder()
            self._room -= 1
        if self._durable:
            files.replace(folder / name, data, mode=0o600)
            return
        aside = folder / f".{name}.{secrets.token_hex(4)}.tmp"
        fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as stream:
            stream.write(data)
        aside.rename(folder / name)

    def _folder(self) -> Path:
        """Answer the folder to write to: the newest, or a new one if that is old or full."""
        now = int(time.time())
        if self._filling is None:
            self._root.mkdir(mode=0o700, exist_ok=True)
            for newest in self._folders()[-1:]:
                # A daemon that went and came goes on where the one before it was.
                self._filling = newest
                self._room = IN_FOLDER - len(os.listdir(newest))  # noqa: PTH208 - their number
        filling = self._filling
        if filling is None or self._room <= 0 or now - int(filling.name) >= _FOLDER_S:
            filling = self._filling = self._begin(now)
        return filling

    def _begin(self, now: int) -> Path:
        folders = self._folders()
        # In their order whatever the clock does.
        number = max([now, *(int(f.name) + 1 for f in folders[-1:])])
        fresh = self._root / f"{number:012d}"
        fresh.mkdir(mode=0o700)
        if self._durable:
            files.sync_folder(self._root)
        self._room = IN_FOLDER
        for old in folders[: -(FOLDERS - 1)]:
            shutil.rmtree(old, ignore_errors=True)
        return fresh

    def _folders(self) -> list[Path]:
        try:
            names = os.listdir(self._root)  # noqa: PTH208 - names are all that is needed
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [self._root / name for name in sorted(names) if name.isdigit()]


def _shorten(answer: Any) -> None:
    """Leave the outcome alone of an answer that is long: resource and plan can be asked for."""
    change = answer.change if "change" in answer.DESCRIPTOR.fields_by_name else None
    answer_change = type(change)() if change is not None else None
    if answer_change is not None:
        answer_change.CopyFrom(change)
        del answer_change.plan.steps[:]
    answer.Clear()
    if answer_change is not None:
        answer.change.CopyFrom(answer_change)
