"""`hostler netns run`: run a command in a namespace and stay with it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import click

from hostler.api.netns.v1 import process_pb2
from hostler.channel import rpc
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.netns_process import build_process, process_options
from hostler.cli.output import Table, show, show_errors
from hostler.results import CallFailed, HostError, exit_code
from hostler.session import Session

_RUN = rpc(process_pb2, "ProcessService", "RunProcess")
_OUT_OF_MEMORY = "ended by the kernel: out of memory"
_PIECE_BYTES = 64 * 1024
_KEPT_BYTES = 1024 * 1024
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


@click.command(
    epilog=examples(
        "hostler -H h1 netns run web -- ip addr",
        "hostler -H h1 netns run web --user nobody -- curl -s http://10.0.0.1/",
        "hostler -H all netns run web -- ping -c 1 192.0.2.1",
    )
)
@click.argument("namespace")
@click.argument("argv", nargs=-1, required=True, metavar="-- COMMAND...")
@process_options
@pass_state
def run(state: State, /, namespace: str, argv: tuple[str, ...], **options: Any) -> None:
    """Run a command in a namespace and stay with it; its exit status becomes ours.

    On one host, its standard input is ours and signals are passed on. On several, it gets no
    input, each line of output has the host before it, and the exit status is 0 if all had 0.
    With -o json, yaml or ndjson the output comes in the results, up to 1 MiB of each stream.
    """
    if state.plan_only:
        raise click.UsageError("run makes no plan: it does what it is told, once")
    process = build_process(namespace, "", argv, options)
    if len(state.hosts) == 1 and state.output == "table":
        _interactive(state, process)
    _everywhere(state, process)


def _interactive(state: State, process: Any) -> None:
    session = state.client.session
    host = state.one_host()

    async def work() -> int:
        async with session(host) as doors:
            return await _attached(doors, process)

    try:
        code = state.run(work())
    except CallFailed as failed:
        raise click.ClickException(f"{host.name}: {failed}") from failed
    click.get_current_context().exit(code)


async def _attached(session: Session, process: Any) -> int:
    """Run it on our own input, output and signals; answer its exit status."""
    loop = asyncio.get_running_loop()
    inputs: asyncio.Queue[Any] = asyncio.Queue(maxsize=16)
    ended = threading.Event()
    for number in _SIGNALS:
        message = process_pb2.RunProcessRequest(signal=number.name)
        loop.add_signal_handler(number, _offer, inputs, message)
    threading.Thread(target=_read_stdin, args=(loop, inputs, ended), daemon=True).start()
    try:
        async for answer in session.converse(_RUN, _requests(process, inputs)):
            kind = answer.WhichOneof("output")
            if kind == "stdout":
                _write(sys.stdout.buffer, answer.stdout)
            elif kind == "stderr":
                _write(sys.stderr.buffer, answer.stderr)
            elif kind == "exited":
                if answer.exited.out_of_memory:
                    click.echo(f"{session.host.name}: {_OUT_OF_MEMORY}", err=True)
                return int(answer.exited.exit_code)
    finally:
        ended.set()
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
    raise CallFailed(HostError("UNKNOWN", "NO_EXIT_STATUS", "the stream ended before the process"))


def _offer(inputs: asyncio.Queue[Any], message: Any) -> None:
    # A full queue means that input is waiting anyway; a second signal can be sent again.
    if not inputs.full():
        inputs.put_nowait(message)


def _read_stdin(
    loop: asyncio.AbstractEventLoop, inputs: asyncio.Queue[Any], ended: threading.Event
) -> None:
    """Feed standard input, of whatever kind it is, which no event loop can watch in all cases."""
    while not ended.is_set():
        try:
            piece = os.read(0, _PIECE_BYTES)
        except OSError:
            piece = b""
        message = process_pb2.RunProcessRequest(stdin=piece)
        if not piece:
            message = process_pb2.RunProcessRequest(stdin_end=True)
        try:
            asyncio.run_coroutine_threadsafe(inputs.put(message), loop).result()
        except RuntimeError:
            return  # The loop has ended with the process.
        if not piece:
            return


async def _requests(process: Any, inputs: asyncio.Queue[Any]) -> AsyncIterator[Any]:
    yield process_pb2.RunProcessRequest(start=process)
    while True:
        yield await inputs.get()


def _write(stream: BinaryIO, data: bytes) -> None:
    stream.write(data)
    stream.flush()


@dataclass(slots=True)
class Run:
    """What a command did on one host. Output beyond 1 MiB a stream is counted, not kept."""

    exit_code: int = 0
    exit_signal: str = ""
    out_of_memory: bool = False
    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    dropped_bytes: int = 0

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it; bytes that are not UTF-8 are shown as replacement characters."""
        return {
            "exit_code": self.exit_code,
            "exit_signal": self.exit_signal,
            "out_of_memory": self.out_of_memory,
            "stdout": self.stdout.decode(errors="replace"),
            "stderr": self.stderr.decode(errors="replace"),
            "dropped_bytes": self.dropped_bytes,
        }


def _everywhere(state: State, process: Any) -> None:
    lines = state.output == "table"

    async def one(session: Session) -> Run:
        return await _collected(session, process, lines)

    results = state.run(state.client.each(state.hosts, one, tolerance=state.tolerance))
    if lines:
        show_errors(results)
    else:
        show(results, state.output, Table((), lambda _: ()))
    failed = any(r.result is not None and r.result.exit_code for r in results)
    click.get_current_context().exit(exit_code(results) or int(failed))


async def _collected(session: Session, process: Any, lines: bool) -> Run:
    done = Run()
    partial = {"stdout": bytearray(), "stderr": bytearray()}
    async for answer in session.converse(_RUN, _no_input(process)):
        kind = answer.WhichOneof("output")
        if kind in partial:
            piece = getattr(answer, kind)
            if lines:
                _print_lines(session.host.name, kind, partial[kind], piece)
            else:
                _keep(done, getattr(done, kind), piece)
        elif kind == "exited":
            done.exit_code, done.exit_signal = answer.exited.exit_code, answer.exited.exit_signal
            done.out_of_memory = answer.exited.out_of_memory
            if lines and done.out_of_memory:
                click.echo(f"{session.host.name}: {_OUT_OF_MEMORY}", err=True)
            break
    for kind, rest in partial.items():
        if rest:
            _print_lines(session.host.name, kind, rest, b"\n")
    return done


async def _no_input(process: Any) -> AsyncIterator[Any]:
    yield process_pb2.RunProcessRequest(start=process)
    yield process_pb2.RunProcessRequest(stdin_end=True)
    # The end of the requests would cut the stream, and with it the process.
    await asyncio.Event().wait()


def _keep(done: Run, kept: bytearray, piece: bytes) -> None:
    room = _KEPT_BYTES - len(kept)
    kept += piece[:room]
    done.dropped_bytes += max(0, len(piece) - room)


def _print_lines(host: str, kind: str, partial: bytearray, piece: bytes) -> None:
    partial += piece
    *whole, rest = bytes(partial).split(b"\n")
    if len(rest) > _PIECE_BYTES:
        whole, rest = [*whole, rest], b""
    partial[:] = rest
    for line in whole:
        click.echo(f"{host}: {line.decode(errors='replace')}", err=kind == "stderr")
