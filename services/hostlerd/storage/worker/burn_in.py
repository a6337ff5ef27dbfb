"""Writing all of a disk and reading it back, before it is trusted with anything.

It goes on when whoever asked for it has gone, and ends with the worker. The disk is claimed all the
while: nobody can mount it. Afterwards its ends are zeros, and it is empty to everybody.
Source: open(2), O_DIRECT.
"""

from __future__ import annotations

import errno
import mmap
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from hostlerd.privileged.grammar import text
from hostlerd.storage.model.btrfs import Work
from hostlerd.storage.worker import identity, use
from hostlerd.storage.worker.grammar import WORDS, target
from hostlerd.storage.worker.operation import Operation, Request
from hostlerd.storage.worker.refused import Refused
from hostlerd.storage.worker.tools import Tools

KIND = "burn-in"
_BLOCK_BYTES = 1 << 20
_SHIFT_BYTES = 4099
_CEASE_S = 60.0
_MOST = 64
"""So many at once, at most."""


class _Cancelled(Exception):
    pass


@dataclass
class _Burn:
    """One disk that is written and read."""

    fd: int
    size_bytes: int
    done: int = 0
    error: str = ""
    is_cancelled: bool = False
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Do it to its end; what came of it is in `error`."""
        try:
            self._write_and_read()
        except _Cancelled:
            pass
        except OSError as e:
            self.error = f"{e.strerror} at byte {self.done % self.size_bytes}"
        finally:
            os.close(self.fd)
            self.ended.set()

    def _write_and_read(self) -> None:
        pattern = os.urandom(_BLOCK_BYTES) * 2
        with mmap.mmap(-1, _BLOCK_BYTES) as buffer:
            for at, size in self._blocks():
                buffer[:size] = _block(pattern, at, size)
                self._whole(os.pwritev(self.fd, [memoryview(buffer)[:size]], at), size)
            os.fsync(self.fd)
            for at, size in self._blocks():
                self._whole(os.preadv(self.fd, [memoryview(buffer)[:size]], at), size)
                if buffer[:size] != _block(pattern, at, size):
                    raise OSError(errno.EIO, "what was read is not what was written")
            buffer[:] = bytes(_BLOCK_BYTES)
            last = (self.size_bytes - 1) // _BLOCK_BYTES * _BLOCK_BYTES
            for at in {0, max(0, last - _BLOCK_BYTES), last}:
                size = min(_BLOCK_BYTES, self.size_bytes - at)
                os.pwritev(self.fd, [memoryview(buffer)[:size]], at)
            os.fsync(self.fd)

    def _blocks(self) -> Iterator[tuple[int, int]]:
        for at in range(0, self.size_bytes, _BLOCK_BYTES):
            if self.is_cancelled:
                raise _Cancelled
            size = min(_BLOCK_BYTES, self.size_bytes - at)
            yield at, size
            self.done += size

    def _whole(self, done: int, size: int) -> None:
        if done != size:
            raise OSError(errno.EIO, "less than a block was written or read")

    def work(self) -> Work:
        """How far it is, or what it came to."""
        is_over = self.ended.is_set()
        state = "failed" if self.error else "done" if is_over else "running"
        total = 2 * self.size_bytes
        return Work(KIND, state, self.done, total, self.error, self.is_cancelled)


def _block(pattern: bytes, at: int, size: int) -> bytes:
    """What is written at a place: no sector of it is what another one near it is."""
    start = at // _BLOCK_BYTES * _SHIFT_BYTES % _BLOCK_BYTES
    return (at.to_bytes(16, "little") + pattern[start : start + size])[:size]


_LOCK = threading.Lock()
_KNOWN: dict[str, _Burn] = {}


def is_running() -> bool:
    """Whether any goes on, so that the worker must not end."""
    with _LOCK:
        return any(not one.ended.is_set() for one in _KNOWN.values())


def start(request: Request, _: Tools) -> dict[str, Any]:
    """Begin: what told what the disk held is saved and erased before, with its partitions."""
    disk = request.device("disk")
    request.erase(disk)
    fd = use.claimed(disk, os.O_RDWR | os.O_DIRECT)
    one = _Burn(fd, disk.target.size_bytes)
    with _LOCK:
        if sum(not each.ended.is_set() for each in _KNOWN.values()) >= _MOST:
            os.close(fd)
            raise Refused("DEVICE_BUSY", f"{_MOST} disks are burnt in already")
        _KNOWN[disk.target.id] = one
    if identity.disk_sequence(fd) != disk.target.disk_sequence:
        one.is_cancelled = True
    threading.Thread(target=one.run, name=KIND).start()
    return {}


def look(request: Request, _: Tools) -> dict[str, Any]:
    """How far it is; the state is "none" if this worker has begun none."""
    with _LOCK:
        one = _KNOWN.get(str(request["id"]))
    return {"work": asdict(one.work() if one is not None else Work(KIND, "none"))}


def cancel(request: Request, _: Tools) -> dict[str, Any]:
    """Have it cease; the disk is left as it is by then. Raises Refused if it does not."""
    with _LOCK:
        one = _KNOWN.get(str(request["id"]))
    if one is not None and not one.ended.is_set():
        one.is_cancelled = True
        if not one.ended.wait(_CEASE_S):
            raise Refused("DEVICE_BUSY", "it does not cease: the disk does not answer")
    return {}


OPERATIONS: Mapping[str, Operation] = {
    "StartBurnIn": Operation({"disk": target}, start, overwrites=("disk",)),
    "LookBurnIn": Operation({"id": text(WORDS)}, look),
    "CancelBurnIn": Operation({"id": text(WORDS)}, cancel),
}
