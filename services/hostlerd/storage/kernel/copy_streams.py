"""Streams of files to and from the program that copies, frame by frame, as fast as both go."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from hostler.core.copying.parts import (
    PART_BYTES_MOST,
    PIECE_BYTES,
    BadPart,
    End,
    Have,
    Part,
    decode,
    encode,
)
from hostlerd.runtime.errors import InvalidRequest
from hostlerd.storage import errors
from hostlerd.storage.errors.copies import CopyMalformed
from hostlerd.storage.kernel.worker_client import CONNECT_S, refusal
from hostlerd.storage.model.copies import Outcome

_LENGTH = struct.Struct(">I")
_WAITING_BYTES = 2 * PIECE_BYTES


async def read(door: Path, source: str, have: Have) -> AsyncGenerator[Part, None]:
    """The parts of a tree. Raises DomainError."""
    async with _connected(door) as frames:
        asked = {"source": source, "entries": have.entries, "offset": have.offset}
        await frames.send(b"S" + json.dumps(asked).encode())
        while True:
            part = _part(await frames.take())
            yield part
            if isinstance(part, End):
                return


class Writing:
    """A tree that is written."""

    def __init__(self, frames: _Frames, have: Have) -> None:
        self._frames = frames
        self.have = have

    async def write(self, parts: AsyncIterator[Part]) -> Outcome:
        """Write parts to their end; answer what was copied. Raises DomainError.

        What `parts` raises ends the stream, and what came is kept; unless it is InvalidRequest.
        """
        feeding = asyncio.create_task(self._feed(parts))
        answered = asyncio.create_task(self._frames.take())
        try:
            # A refusal comes while parts are still being sent.
            await asyncio.wait({feeding, answered}, return_when=asyncio.FIRST_COMPLETED)
            if not answered.done():
                await self._fed(feeding, answered)
            text = await answered
        finally:
            for task in (feeding, answered):
                task.cancel()
            await asyncio.gather(feeding, answered, return_exceptions=True)
        if text[:1] != b"O":
            raise errors.WorkerUnavailable("the program that copies answered something else")
        return Outcome(**json.loads(text[1:]))

    async def _fed(self, feeding: asyncio.Task[None], answered: asyncio.Task[bytes]) -> None:
        try:
            await feeding
        except InvalidRequest:
            # Nothing that is no stream is to be gone on with.
            with suppress(ConnectionError):
                await self._frames.send(b"X")
                await asyncio.wait({answered}, timeout=CONNECT_S)
            raise

    async def _feed(self, parts: AsyncIterator[Part]) -> None:
        try:
            async for part in parts:
                await self._frames.send(*encode(part))
        except ConnectionError:
            # It has refused, and says why.
            return
        self._frames.end()


@asynccontextmanager
async def writing(door: Path, target: str, origin: str, manifest: bool) -> AsyncIterator[Writing]:
    """Begin to write a tree. Raises DomainError."""
    async with _connected(door) as frames:
        asked = {"target": target, "origin": origin, "manifest": manifest}
        await frames.send(b"W" + json.dumps(asked).encode())
        text = await frames.take()
        if text[:1] != b"H":
            raise errors.WorkerUnavailable("the program that copies answered something else")
        yield Writing(frames, Have(**json.loads(text[1:])))


class _Frames:
    """Frames over a socket, see `hostlerd.storage.copier.streams`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, head: bytes, data: bytes | memoryview = b"") -> None:
        """Send one. Raises ConnectionError."""
        self._writer.write(_LENGTH.pack(len(head) + len(data)) + head)
        if data:
            self._writer.write(data)
        await self._writer.drain()

    def end(self) -> None:
        """Say that no more comes."""
        with suppress(OSError):
            self._writer.write_eof()

    async def take(self) -> bytes:
        """Take one. Raises the refusal that it is, WorkerUnavailable."""
        try:
            (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            if length > PART_BYTES_MOST:
                raise errors.WorkerUnavailable("the program that copies sent too much at once")
            text = await self._reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError) as e:
            raise errors.WorkerUnavailable("the program that copies closed the connection") from e
        if text[:1] == b"R":
            answer: dict[str, Any] = json.loads(text[1:])
            raise refusal(answer)
        return text


@asynccontextmanager
async def _connected(door: Path) -> AsyncIterator[_Frames]:
    try:
        async with asyncio.timeout(CONNECT_S):
            reader, writer = await asyncio.open_unix_connection(door, limit=2 * PART_BYTES_MOST)
    except OSError as e:
        words = e.strerror or "did not answer in time"
        raise errors.WorkerUnavailable(f"program that copies: {words}") from e
    writer.transport.set_write_buffer_limits(high=_WAITING_BYTES)
    try:
        yield _Frames(reader, writer)
    finally:
        writer.transport.abort()


def _part(text: bytes) -> Part:
    try:
        return decode(text)
    except BadPart as e:
        raise CopyMalformed(str(e)) from e
