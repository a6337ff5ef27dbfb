"""The lock of a domain's changes: one at a time over all tasks and processes of the domain.

The daemon, a job, a revert and a restore hold it while they plan and carry out. Within a process
tasks take turns; between processes flock(2) on `state_dir/lock`, which a kill frees.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from hostlerd.runtime.errors import Code, DomainError

WAIT_S = 300.0
_POLL_S = 0.02


class ChangeInProgress(DomainError):
    """Another change of this domain has been going on for longer than this one may wait."""

    code, reason = Code.UNAVAILABLE, "CHANGE_IN_PROGRESS"


class ChangeLock:
    """The one lock of a domain; `path` is the file that its processes share."""

    def __init__(self, path: Path, wait_s: float = WAIT_S) -> None:
        self._path = path
        self._wait_s = wait_s
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Keep the other tasks of this process from changing anything. Raises ChangeInProgress."""
        try:
            async with asyncio.timeout(self._wait_s):
                await self._turn.acquire()
        except TimeoutError as e:
            raise self._in_progress() from e
        try:
            yield
        finally:
            self._turn.release()

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Keep everybody else from changing anything. Raises ChangeInProgress, OSError."""
        async with self.turn():
            fd = self._open()
            try:
                end = time.monotonic() + self._wait_s
                while not _try(fd):
                    if time.monotonic() > end:
                        raise self._in_progress()
                    await asyncio.sleep(_POLL_S)
                yield
            finally:
                os.close(fd)

    @contextmanager
    def held_here(self, wait_s: float | None = None) -> Iterator[None]:
        """Do the same where there is no loop: before a daemon serves, and in other processes.

        Raises ChangeInProgress after `wait_s` seconds, OSError.
        """
        fd = self._open()
        try:
            end = time.monotonic() + (self._wait_s if wait_s is None else wait_s)
            while not _try(fd):
                if time.monotonic() > end:
                    raise self._in_progress()
                time.sleep(_POLL_S)
            yield
        finally:
            os.close(fd)

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(self._path, flags, 0o600)

    def _in_progress(self) -> ChangeInProgress:
        return ChangeInProgress("another change of this domain goes on; nothing was done")


def _try(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
