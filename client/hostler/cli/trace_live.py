"""`hostler trace live`, `attach`, `pid`, `run`: what processes ask of the kernel, as it happens."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.kinds import Seconds
from hostler.cli.trace_chisel import chosen, with_chisel
from hostler.cli.trace_options import (
    Shape,
    check_filter,
    payload_spec,
    rotation,
    set_budget,
    with_file,
    with_style,
    with_trace,
)
from hostler.cli.trace_read import read
from hostler.fleet import LOCAL

if TYPE_CHECKING:
    from hostler.cli.trace_output import Show
    from hostler.trace_files import Recording
    from hostler.traces import Asked, Attached, Piece, Started

_LOOK_S = 0.1
_OF_CHISELS = ("chisel", "arguments", "per_host", "svg")


@click.command(
    epilog=examples(
        "hostler -H all trace live --filter 'proc.name=sshd and fd.name contains /etc'",
        "hostler -H h1 trace live --for 10s -w boot.htrace",
        "hostler -H all -o ndjson trace live --filter evt.failed=true --events 100",
        "hostler -H h1 trace live --payload 1024 --style strace -s 1024 --ascii",
    )
)
@click.option(
    "-r", "--read", "captures", multiple=True, metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Show what captures have instead, as `trace read` does.",
)  # fmt: skip
@with_trace
@with_chisel
@with_style
@click.pass_context
def live(context: click.Context, /, captures: tuple[Path, ...], **options: Any) -> None:
    """Show the system calls of hosts, until interrupted, in one order by corrected clocks."""
    if captures:
        shown = ("filter_text", "style", "most_bytes", "is_ascii", *_OF_CHISELS)
        given = [
            name
            for name in options
            if name not in shown
            and context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        ]
        if given:
            raise click.UsageError("-r takes --filter, a chisel and how lines look, and no more")
        chosen_options = {name: options[name] for name in shown}
        context.invoke(read, files=captures, scap=None, parquet=None, **chosen_options)
        return
    _trace(context.ensure_object(State), (), **options)


@click.command(
    epilog=examples(
        "hostler -H all trace attach nightly --for 10s",
        "hostler -H h1 trace attach t3f2a90c1b7de -c topprocs_cpu",
    )
)
@click.argument("name")
@click.option("--for", "lasting", type=Seconds(), help="Leave after so long.")
@click.option("--payload", is_flag=True, help="With its payloads; needs a permission of its own.")
@with_file
@with_chisel
@with_style
@pass_state
def attach(
    state: State,
    /,
    name: str,
    lasting: float | None,
    payload: bool,
    file: Path | None,
    style: str,
    most_bytes: int,
    is_ascii: bool,
    chisel: str | None,
    arguments: Sequence[str],
    per_host: bool,
    svg: Path | None,
    **rotated: Any,
) -> None:
    """Show a trace that somebody has started, with what it still has from before.

    It goes on when you leave, unless you were the last who watched and it is not kept.
    """
    from hostler.trace_files import Recording
    from hostler.traces import Attached

    shaped = Shape(state.output, style, most_bytes, is_ascii, file is not None, is_live=True)
    show, filter_text, _ = shaped.show(chosen(chisel, arguments, per_host, svg), "")
    names = [host.name for host in state.hosts]
    recording = None
    if file is not None:
        recording = Recording(file, names, filter_text, rotation(**rotated))
    _run(state, Attached(name, payload), _Told(names, show, recording, None), lasting)


@click.command(epilog=examples("hostler -H h1 trace pid 3138 --style strace -s 1024"))
@click.argument("pids", type=click.IntRange(1, 1 << 22), nargs=-1, required=True, metavar="PID...")
@click.option("--without-children", is_flag=True, help="Not what these start.")
@with_trace
@with_chisel
@with_style
@pass_state
def pid(state: State, /, pids: tuple[int, ...], without_children: bool, **options: Any) -> None:
    """Show the system calls of processes and what they start, until all have ended."""
    _trace(state, pids, without_children=without_children, **options)


@click.command(
    context_settings={"ignore_unknown_options": True},
    epilog=examples(
        "hostler -H local trace run --style strace -- md5sum /etc/passwd",
        "hostler -H local trace run -c topfiles_time -- make",
    ),
)
@click.argument("command", nargs=-1, required=True, metavar="-- COMMAND...")
@with_trace
@with_chisel
@with_style
@pass_state
def run(state: State, /, command: tuple[str, ...], **options: Any) -> None:
    """Run a command on this machine, and show its system calls from the first to the last.

    What it prints goes to standard error, its exit status is that of this command. On other hosts
    start it as they start processes (`hostler netns run`, systemd), and trace its --cgroup.
    """
    if not state.local_only:
        raise click.UsageError(f"this starts a command on this machine: say -H {LOCAL}")
    gated = _Gated(command)
    try:
        _trace(state, (gated.pid,), ready=gated.open, **options)
    except click.exceptions.Exit as ended:
        raise click.exceptions.Exit(ended.exit_code or gated.status()) from ended
    finally:
        gated.leave()


class _Gated:
    """A process that becomes a command once it is told to, so that a trace can be there before."""

    def __init__(self, command: Sequence[str]) -> None:
        wait, self._gate = os.pipe()
        self._status: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            self._become(command, wait)
        os.close(wait)

    def _become(self, command: Sequence[str], wait: int) -> None:
        try:
            os.close(self._gate)
            # Without a word the gate closes: then nothing is run.
            if os.read(wait, 1):
                # What is traced is on standard output.
                os.dup2(2, 1)
                os.execvp(command[0], list(command))  # noqa: S606 - becoming it is the purpose
        except OSError as error:
            sys.stderr.write(f"{command[0]}: {error.strerror}\n")
            sys.stderr.flush()
        finally:
            os._exit(127)

    def open(self) -> None:
        """Let it run."""
        os.write(self._gate, b"g")

    def status(self) -> int:
        """Wait for its exit status; 128 and the signal that ended it, as shells have it."""
        if self._status is None:
            ended = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            self._status = ended if ended >= 0 else 128 - ended
        return self._status

    def leave(self) -> None:
        """Close the gate, and wait for the process."""
        os.close(self._gate)
        self.status()


def _trace(
    state: State,
    pids: Sequence[int],
    *,
    filter_text: str,
    cgroup: str,
    lasting: float | None,
    events: int | None,
    cpu: float | None,
    engine: str | None,
    payload: int,
    command_lines: bool,
    environments: bool,
    file: Path | None,
    style: str,
    most_bytes: int,
    is_ascii: bool,
    chisel: str | None,
    arguments: Sequence[str],
    per_host: bool,
    svg: Path | None,
    without_children: bool = False,
    ready: Callable[[], None] | None = None,
    **rotated: Any,
) -> None:
    from hostler.api.tracing.v1 import trace_pb2 as pb
    from hostler.trace_files import Recording
    from hostler.traces import Asked

    check_filter(filter_text)
    shaped = Shape(state.output, style, most_bytes, is_ascii, file is not None, is_live=True)
    show, filter_text, needs = shaped.show(chosen(chisel, arguments, per_host, svg), filter_text)
    payload, command_lines, environments = needs.with_asked(payload, command_lines, environments)
    spec = pb.TraceSpec(
        filter=filter_text,
        pids=pids,
        without_children=without_children,
        cgroup=cgroup,
        engine=engine or "",
    )
    set_budget(spec.budget, lasting, events, cpu)
    wanted = payload_spec(payload, command_lines, environments)
    names = [host.name for host in state.hosts]
    recording = None
    if file is not None:
        recording = Recording(file, names, filter_text, rotation(**rotated))
    _run(state, Asked(spec, wanted), _Told(names, show, recording, ready))


def _run(state: State, asked: Asked | Attached, told: _Told, lasting: float | None = None) -> None:
    try:
        results = state.run(_watch(state, asked, told, lasting))
    finally:
        told.close()
    for result in results:
        if result.ok and (ended := result.value()) is not None:
            _say_end(result.host, ended)
    state.end(results)


async def _watch(state: State, asked: Asked | Attached, told: _Told, lasting: float | None) -> Any:
    import asyncio
    import signal

    from hostler.trace_watch import watch

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, stop.set)
    if lasting is not None:
        loop.call_later(lasting, stop.set)
    watching = asyncio.create_task(
        watch(state.client, state.hosts, asked, told.take, stop=stop, gone=told.leave)
    )
    while not watching.done():
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(watching), _LOOK_S)
        told.tell_ready()
    return await watching


class _Told:
    """What hosts have told: put in order and shown, or written as it comes.

    `ready` is called when the first host sees events.
    """

    def __init__(
        self,
        names: Sequence[str],
        show: Show,
        recording: Recording | None,
        ready: Callable[[], None] | None,
    ) -> None:
        from hostler.trace_watch import InOrder

        self._names = list(names)
        self._show = show
        self._recording = recording
        self._ready = ready
        self._order = InOrder(len(names))
        self._begun: set[str] = set()

    def take(self, host: str, started: Started, piece: Piece) -> None:
        """Take what a host has told."""
        _warn(host, piece)
        if self._ready is not None:
            self._ready()
            self._ready = None
        if self._recording is None:
            self._order.put(self._names.index(host), piece)
            return
        if host not in self._begun:
            self._recording.begin(host, started)
            self._begun.add(host)
        if len(piece.events) or piece.lost:
            self._recording.write(host, piece.events)

    def leave(self, host: str) -> None:
        """Wait no more for a host."""
        self._order.leave(self._names.index(host))

    def tell_ready(self) -> None:
        """Show what can be shown by now."""
        merged = self._order.ready()
        if merged is not None:
            self._show.take(merged, self._names)

    def close(self) -> None:
        """Show what is left, and complete what is written."""
        if self._recording is not None:
            self._recording.close()
        self.tell_ready()
        self._show.end()


def _warn(host: str, piece: Piece) -> None:
    for warning in piece.warnings:
        click.secho(f"{host}: {warning}", fg="yellow", err=True)
    if piece.lost:
        click.secho(f"{host}: {piece.lost} events lost, the host was too busy", fg="red", err=True)
    if piece.batches_dropped:
        words = f"{piece.batches_dropped} batches lost, this client was too slow"
        click.secho(f"{host}: {words}", fg="red", err=True)


def _say_end(host: str, trace: Any) -> None:
    reason = trace.end_reason.lower().replace("_", " ")
    words = f"{trace.events} events, {trace.lost} lost; {reason}"
    if trace.problem:
        words += f": {trace.problem}"
    click.echo(f"{host}: {words}", err=True)
