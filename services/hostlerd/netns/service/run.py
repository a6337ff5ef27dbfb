"""The conversation of RunProcess: what goes into a process, and what comes out of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from hostler.api.netns.v1 import process_pb2 as pb
from hostlerd.netns.errors import ProcessNotRunning
from hostlerd.netns.kernel.process import how_it_ended, ran_out_of_memory
from hostlerd.netns.kernel.running import CHUNK_BYTES, Running
from hostlerd.netns.model.process import Process, check_signal
from hostlerd.netns.service.process_convert import exited_to_proto
from hostlerd.runtime.errors import DomainError, InvalidRequest, Violation

# Pieces of output that wait for a slow caller; then the process itself has to wait.
_WAITING = 4
# How long output is awaited of a pipe that somebody outside the process's group still holds.
_LAST_OUTPUT_S = 5.0

Signal = Callable[[Process, str], Awaitable[None]]
_Requests = AsyncIterator[pb.RunProcessRequest]
_Queue = asyncio.Queue[tuple[str, Any]]


async def messages(
    process: Process, running: Running, requests: _Requests, send_signal: Signal
) -> AsyncIterator[pb.RunProcessResponse]:
    """Answer what a process that runs has to say, its end last.

    Raises what is wrong with what goes in, and LauncherUnavailable.
    """
    queue: _Queue = asyncio.Queue(_WAITING)
    tasks = [
        asyncio.create_task(_pump(queue, "stdout", running, running.stdout)),
        asyncio.create_task(_pump(queue, "stderr", running, running.stderr)),
        asyncio.create_task(_feed(queue, process, running, requests, send_signal)),
        asyncio.create_task(_await_end(queue, running)),
    ]
    try:
        seq = 1
        started = pb.RunProcessResponse.Started(unit=process.unit, pid=running.pid)
        yield pb.RunProcessResponse(seq=seq, started=started)
        async for output in _outputs(queue):
            seq += 1
            yield pb.RunProcessResponse(seq=seq, **output)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _outputs(queue: _Queue) -> AsyncIterator[dict[str, Any]]:
    streams, end, patience_s = 2, None, None
    while streams or end is None:
        try:
            async with asyncio.timeout(patience_s):
                kind, value = await queue.get()
        except TimeoutError:
            break
        if kind == "error":
            raise value
        if kind == "end":
            end, patience_s = value, _LAST_OUTPUT_S
        elif value:
            yield {kind: value}
        else:
            streams -= 1
    end = end or {}
    yield {"exited": exited_to_proto(*how_it_ended(end), ran_out_of_memory(end))}


async def _pump(queue: _Queue, kind: str, running: Running, fd: int) -> None:
    while data := await running.read(fd):
        await queue.put((kind, data))
    await queue.put((kind, b""))


async def _await_end(queue: _Queue, running: Running) -> None:
    try:
        await queue.put(("end", await running.ended()))
    except DomainError as e:
        await queue.put(("error", e))


async def _feed(
    queue: _Queue, process: Process, running: Running, requests: _Requests, send_signal: Signal
) -> None:
    """Pass on what comes in; the end of the caller's messages is the end of the input."""
    try:
        async for request in requests:
            await _take(process, running, request, send_signal)
        running.close_stdin()
    except DomainError as e:
        await queue.put(("error", e))


async def _take(
    process: Process, running: Running, request: pb.RunProcessRequest, send_signal: Signal
) -> None:
    kind = request.WhichOneof("input")
    if kind == "stdin":
        if len(request.stdin) > CHUNK_BYTES:
            words = f"must be at most {CHUNK_BYTES} bytes at a time"
            raise InvalidRequest.of([Violation("stdin", words)])
        await running.write(request.stdin)
    elif kind == "stdin_end":
        running.close_stdin()
    elif kind == "signal":
        if found := check_signal(request.signal, "signal"):
            raise InvalidRequest.of(found)
        try:
            await send_signal(process, request.signal)
        except ProcessNotRunning:
            # It has ended while the signal was on its way.
            return
    else:
        raise InvalidRequest.of([Violation(kind or "input", "comes once, and first")])
