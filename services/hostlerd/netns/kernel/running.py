"""A process whose caller stays with it: its pipes, and the launcher's word about its end."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from typing import Any

from hostlerd.netns.kernel.launcher_client import MAX_ANSWER, Launcher, parse

CHUNK_BYTES = 64 << 10


class Running:
    """A process that runs on three pipes. Closing it ends the process.

    Opened in a worker thread; all else belongs to the event loop.
    """

    def __init__(self, connection: socket.socket, pid: int, ours: tuple[int, int, int]) -> None:
        self.pid = pid
        self._connection = connection
        self._stdin, self.stdout, self.stderr = ours
        self._open = set(ours)

    @classmethod
    def open(cls, launcher: Launcher, unit: dict[str, Any]) -> Running:
        """Start it; blocks until it runs. Raises what Launcher.run raises."""
        pipes = [os.pipe() for _ in range(3)]
        (their_in, our_in), (our_out, their_out), (our_err, their_err) = pipes
        theirs, ours = (their_in, their_out, their_err), (our_in, our_out, our_err)
        try:
            connection, pid = launcher.run(unit, theirs)
        except BaseException:
            for fd in ours:
                os.close(fd)
            raise
        finally:
            for fd in theirs:
                os.close(fd)
        for fd in ours:
            os.set_blocking(fd, False)
        connection.setblocking(False)
        return cls(connection, pid, ours)

    async def write(self, data: bytes) -> None:
        """Write to its standard input; waits while it does not read. Nothing once it is closed."""
        view = memoryview(data)
        while view and self._stdin in self._open:
            try:
                view = view[os.write(self._stdin, view) :]
            except BlockingIOError:
                await ready(self._stdin, for_writing=True)
            except BrokenPipeError:
                self.close_stdin()

    def close_stdin(self) -> None:
        """End its standard input."""
        self._close(self._stdin)

    async def read(self, fd: int) -> bytes:
        """Read from its standard output or error, at most 64 KiB; empty at the end."""
        while fd in self._open:
            try:
                return os.read(fd, CHUNK_BYTES)
            except BlockingIOError:
                await ready(fd)
        return b""

    async def ended(self) -> dict[str, Any]:
        """Wait for its end, and answer what systemd said of it. Raises LauncherUnavailable."""
        while True:
            try:
                answer = parse(self._connection.recv(MAX_ANSWER))
            except BlockingIOError:
                await ready(self._connection.fileno())
                continue
            end: dict[str, Any] = answer["exited"]
            return end

    def close(self) -> None:
        """Let go of it: a process that still runs is stopped."""
        self._connection.close()
        for fd in list(self._open):
            self._close(fd)

    def _close(self, fd: int) -> None:
        if fd in self._open:
            self._open.discard(fd)
            os.close(fd)


async def ready(fd: int, *, for_writing: bool = False) -> None:
    """Wait until the descriptor can be read, or written, or has been cut off."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not done.done():
            done.set_result(None)

    add, remove = (
        (loop.add_writer, loop.remove_writer)
        if for_writing
        else (loop.add_reader, loop.remove_reader)
    )
    add(fd, wake)
    try:
        await done
    finally:
        with suppress(OSError, ValueError):
            remove(fd)
