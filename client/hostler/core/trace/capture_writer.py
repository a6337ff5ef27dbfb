"""Writes events into capture files, one after the other if there is a limit to each."""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Self

from hostler.core.trace.blocks import MAX_EVENTS, decode, encode, exit_ns, read_head, split
from hostler.core.trace.capture import (
    CaptureHeader,
    FrameKind,
    end_bytes,
    frame_bytes,
    header_bytes,
)
from hostler.core.trace.events import Events

# Captures may hold what processes read, wrote and were started with.
_MODE = 0o600
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Sync(Enum):
    """When what was written is brought to disk."""

    NEVER = "never"  # as the kernel sees fit
    FILE = "file"  # once a file is complete
    BLOCK = "block"  # after each block: a crash of the machine costs no more than one


@dataclass(frozen=True, slots=True)
class Rotation:
    """When to go on with the next file, and how many to keep; None is without limit.

    A file may exceed `size_bytes` by its last block. `seconds` is the time between the first and
    the last exit of a file. Of what was written only the last `keep` files stay.
    """

    size_bytes: int | None = None
    seconds: float | None = None
    events: int | None = None
    keep: int | None = None

    def __post_init__(self) -> None:
        for name in ("size_bytes", "seconds", "events", "keep"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} is {value}")


@dataclass(frozen=True, slots=True)
class _Block:
    """A block; its times are of the first and the last exit."""

    data: bytes
    events: int
    lost: int
    first_ns: int
    last_ns: int


@dataclass(slots=True)
class _File:
    name: str
    fd: int
    inode: int
    size_bytes: int = 0
    blocks: int = 0
    events: int = 0
    lost: int = 0
    first_ns: int = 0


class CaptureWriter:
    """Writes a capture. Without a rotation it is the file at `path`; with one, numbered files.

    The files of `a.htrace` are `a-000001.htrace` and so on. A file that is there already, also as
    a symlink, is never written to: FileExistsError. Raises OSError, such as for a full disk; what
    had been written by then stays good, and `close` may still succeed.
    """

    def __init__(
        self,
        path: Path,
        header: CaptureHeader,
        *,
        rotation: Rotation | None = None,
        sync: Sync = Sync.FILE,
    ) -> None:
        self._path = path
        self._header = header_bytes(header)
        self._rotation = rotation or Rotation()
        self._is_numbered = rotation is not None
        self._sync = sync
        self._made = 0
        self._kept: deque[tuple[str, int]] = deque()
        self._folder = os.open(path.parent, _FOLDER)
        try:
            self._file = self._next_file()
        except OSError:
            os.close(self._folder)
            raise

    def write(self, events: Events) -> None:
        """Write a batch, however large."""
        for part in split(events, min(MAX_EVENTS, self._rotation.events or MAX_EVENTS)):
            data = encode(part)
            if len(part):
                ends = exit_ns(part)
                self._put(_Block(data, len(part), part.lost, int(ends.min()), int(ends.max())))
            else:
                self._put(_Block(data, 0, part.lost, 0, 0))

    def write_encoded(self, block: bytes) -> None:
        """Write a block as it is, unless it is longer than a file may be. Raises CaptureInvalid.

        A file may exceed the seconds of a rotation by its first block.
        """
        head = read_head(block)
        if self._rotation.events is not None and head.events > self._rotation.events:
            self.write(decode(block))
        else:
            self._put(_Block(block, head.events, head.lost, head.last_ns, head.last_ns))

    def close(self) -> None:
        """Complete the last file."""
        try:
            self._complete()
        finally:
            os.close(self._folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _put(self, block: _Block) -> None:
        if self._is_full(block):
            self._complete()
            self._file = self._next_file()
        file = self._file
        self._append(frame_bytes(FrameKind.BLOCK, block.data))
        if block.events and not file.events:
            file.first_ns = block.first_ns
        file.blocks += 1
        file.events += block.events
        file.lost += block.lost
        if self._sync is Sync.BLOCK:
            os.fdatasync(file.fd)

    def _is_full(self, block: _Block) -> bool:
        file, limit = self._file, self._rotation
        if not file.blocks:
            return False
        if limit.size_bytes is not None and file.size_bytes >= limit.size_bytes:
            return True
        if limit.events is not None and file.events + block.events > limit.events:
            return True
        if limit.seconds is None or not file.events or not block.events:
            return False
        return block.last_ns - file.first_ns > limit.seconds * 1e9

    def _append(self, data: bytes) -> None:
        file, left = self._file, memoryview(data)
        try:
            while left:
                left = left[os.write(file.fd, left) :]
        except OSError:
            # What follows would be taken for damage if the half of this stayed.
            os.ftruncate(file.fd, file.size_bytes)
            os.lseek(file.fd, file.size_bytes, os.SEEK_SET)
            raise
        file.size_bytes += len(data)

    def _next_file(self) -> _File:
        self._made += 1
        name = self._path.name
        if self._is_numbered:
            name = f"{self._path.stem}-{self._made:06}{self._path.suffix}"
        fd = os.open(name, _NEW, _MODE, dir_fd=self._folder)
        self._file = _File(name, fd, os.fstat(fd).st_ino)
        try:
            self._append(self._header)
            if self._sync is not Sync.NEVER:
                os.fsync(self._folder)
        except OSError:
            os.close(fd)
            os.unlink(name, dir_fd=self._folder)
            raise
        self._kept.append((name, self._file.inode))
        self._remove_old()
        return self._file

    def _remove_old(self) -> None:
        while self._rotation.keep is not None and len(self._kept) > self._rotation.keep:
            name, inode = self._kept.popleft()
            try:
                # Whoever has moved the file away may have put another one there.
                if os.lstat(name, dir_fd=self._folder).st_ino == inode:
                    os.unlink(name, dir_fd=self._folder)
            except FileNotFoundError:
                continue

    def _complete(self) -> None:
        file = self._file
        try:
            end = end_bytes(file.blocks, file.events, file.lost)
            self._append(frame_bytes(FrameKind.END, end))
            if self._sync is not Sync.NEVER:
                os.fsync(file.fd)
        finally:
            os.close(file.fd)
