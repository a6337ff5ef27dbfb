"""`hostler trace captures`: traces that hosts keep, with nobody there to watch."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.kinds import Bytes, Seconds
from hostler.cli.output import Table, moment
from hostler.cli.trace_chisel import chosen, with_chisel
from hostler.cli.trace_options import (
    Needed,
    Shape,
    check_filter,
    payload_spec,
    rotation,
    set_budget,
    with_rotation,
    with_style,
    with_traced,
)

if TYPE_CHECKING:
    from hostler.captures import Fetched
    from hostler.fleet import Host
    from hostler.results import HostResult

_BEGIN_AHEAD_S = 1.5


@click.group()
def captures() -> None:
    """Traces that hosts keep: start one, list, query, fetch, delete.

    A host has room for so many (tracing.captures_bytes of its hostler.toml); the oldest go first.
    """


def _state(each: Any) -> str:
    return each.end_reason.lower().replace("_", " ") or "running"


def _rows(answer: Any) -> Iterable[Sequence[Any]]:
    for each in answer.captures:
        yield (
            each.name,
            each.owner,
            moment(each, "start_time"),
            _state(each) + (f": {each.problem}" if each.problem else ""),
            each.events,
            each.lost,
            each.size_bytes,
            each.files,
            each.spec.filter or "-",
        )


_TITLES = ("CAPTURE", "OWNER", "SINCE", "STATE", "EVENTS", "LOST", "BYTES", "FILES", "FILTER")


@captures.command(
    epilog=examples(
        "hostler -H all trace captures start nightly --for 8h --filter evt.failed=true",
        "hostler -H h1 trace captures start ring --rotate-size 64MiB --keep 4 --size 16GiB",
        "hostler -H h1 trace captures start su --pid 3138 --payload 256",
        "hostler -H all trace stop nightly",
    )
)
@click.argument("name")
@click.option(
    "--pid", "pids", type=click.IntRange(1, 1 << 22), multiple=True, metavar="PID",
    help="Only this process and what it starts.",
)  # fmt: skip
@click.option("--size", type=Bytes(), help="Bytes that are written, at most.  [default: 1GiB]")
@with_traced
@with_rotation
@pass_state
def start(
    state: State,
    /,
    name: str,
    pids: tuple[int, ...],
    size: int | None,
    filter_text: str,
    cgroup: str,
    lasting: float | None,
    events: int | None,
    cpu: float | None,
    engine: str | None,
    payload: int,
    command_lines: bool,
    environments: bool,
    **rotated: Any,
) -> None:
    """Start traces that their hosts keep, all at one time; nobody has to watch.

    They end with their budgets, or by `trace stop NAME`.
    """
    from hostler.api.tracing.v1 import trace_pb2 as pb
    from hostler.traces import Asked
    from hostler.traces import start as start_on

    check_filter(filter_text)
    spec = pb.TraceSpec(filter=filter_text, pids=pids, cgroup=cgroup, engine=engine or "")
    set_budget(spec.budget, lasting, events, cpu)
    spec.budget.size_bytes = size or 0
    _set_store(spec.store, name, **rotated)
    asked = Asked(spec, payload_spec(payload, command_lines, environments))
    hosts = state.hosts
    begin_ns = time.time_ns() + round(_BEGIN_AHEAD_S * 1e9) if len(hosts) > 1 else 0

    async def one(session: Any) -> Any:
        started = await start_on(session, asked, begin_ns)
        for warning in started.warnings:
            click.secho(f"{session.host.name}: {warning}", fg="yellow", err=True)
        return started.trace

    def row(trace: Any) -> Iterable[Sequence[Any]]:
        yield trace.name, trace.engine, trace.spec.filter or "-"

    results = state.run(state.client.each(hosts, one))
    state.finish(results, Table(("CAPTURE", "ENGINE", "FILTER"), row))


def _set_store(store: Any, name: str, **rotated: Any) -> None:
    wanted = rotation(**rotated)
    store.name = name
    if wanted is not None:
        store.rotate_size_bytes = wanted.size_bytes or 0
        store.rotate_events = wanted.events or 0
        store.keep_files = wanted.keep or 0
        store.rotate_duration.FromNanoseconds(round((wanted.seconds or 0) * 1e9))


@captures.command("list", epilog=examples("hostler -H all trace captures list"))
@pass_state
def list_(state: State) -> None:
    """List the captures of hosts."""
    from hostler.api.tracing.v1 import capture_pb2
    from hostler.captures import LIST

    state.tell(LIST, capture_pb2.ListCapturesRequest(), Table(_TITLES, _rows))


@captures.command(
    epilog=examples(
        "hostler -H all trace captures query nightly --filter 'evt.latency > 10ms'",
        "hostler -H all trace captures query nightly --last 10m -c topfiles_bytes",
    )
)
@click.argument("name")
@click.option("--filter", "filter_text", default="", metavar="FILTER", help="See `trace fields`.")
@click.option("--last", type=Seconds(), help="Only calls of the last so many seconds.")
@click.option("--payload", is_flag=True, help="With payloads; needs a permission of its own.")
@with_chisel
@with_style
@pass_state
def query(
    state: State,
    name: str,
    filter_text: str,
    last: float | None,
    payload: bool,
    style: str,
    most_bytes: int,
    is_ascii: bool,
    chisel: str | None,
    arguments: Sequence[str],
    per_host: bool,
    svg: Path | None,
) -> None:
    """Show what captures of hosts have, in one order; each host filters its own."""
    from hostler.cli.trace_read import chosen_of
    from hostler.trace_files import Captures

    check_filter(filter_text)
    shaped = Shape(state.output, style, most_bytes, is_ascii)
    show, filter_text, needs = shaped.show(chosen(chisel, arguments, per_host, svg), filter_text)
    payload = payload or needs != Needed()
    with tempfile.TemporaryDirectory(prefix="hostler-capture-") as folder:
        paths = {host: Path(folder) / f"{i}.htrace" for i, host in enumerate(state.hosts)}
        results = _fetch(state, _wanted(name, filter_text, last), paths, payload)
        found = Captures([result.value().path for result in results if result.ok])
        try:
            for merged in chosen_of(found, ""):
                show.take(merged, found.hosts)
            show.end()
        finally:
            found.close()
    state.end(results)


@captures.command(epilog=examples("hostler -H all trace captures get nightly nightly.htrace"))
@click.argument("name")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--filter", "filter_text", default="", metavar="FILTER", help="See `trace fields`.")
@click.option("--last", type=Seconds(), help="Only calls of the last so many seconds.")
@click.option("--payload", is_flag=True, help="With payloads; needs a permission of its own.")
@pass_state
def get(
    state: State, name: str, file: Path, filter_text: str, last: float | None, payload: bool
) -> None:
    """Fetch captures of hosts for `trace read`; of several hosts one each, with its name."""
    check_filter(filter_text)
    hosts = state.hosts
    paths = {
        host: file if len(hosts) == 1 else file.with_name(f"{file.stem}.{host.name}{file.suffix}")
        for host in hosts
    }
    results = _fetch(state, _wanted(name, filter_text, last), paths, payload)
    for result in results:
        if result.ok:
            got = result.value()
            click.echo(f"{result.host}: {got.path}: {got.events} events, {got.lost} lost", err=True)
    state.end(results)


@captures.command(epilog=examples("hostler -H all --yes trace captures delete nightly"))
@click.argument("name")
@pass_state
def delete(state: State, name: str) -> None:
    """Delete captures of hosts. One that is not there is no error."""
    from hostler.api.tracing.v1 import capture_pb2
    from hostler.captures import DELETE
    from hostler.plans import RpcChange

    state.change(RpcChange(DELETE, capture_pb2.DeleteCaptureRequest(name=name)))


def _wanted(name: str, filter_text: str, last: float | None) -> Any:
    from hostler.api.tracing.v1 import capture_pb2

    wanted = capture_pb2.CaptureQuery(name=name, filter=filter_text)
    if last is not None:
        wanted.begin_time.FromNanoseconds(time.time_ns() - round(last * 1e9))
    return wanted


def _fetch(
    state: State, wanted: Any, paths: dict[Host, Path], with_payload: bool
) -> list[HostResult[Fetched]]:
    from hostler.captures import fetch
    from hostler.trace_files import CaptureUnreadable

    async def one(session: Any) -> Fetched:
        path = paths[session.host]
        try:
            got = await fetch(session, wanted, path, with_payload=with_payload)
        except OSError as e:
            raise CaptureUnreadable(f"{path}: {e.strerror or e}") from e
        for warning in got.warnings:
            click.secho(f"{session.host.name}: {warning}", fg="yellow", err=True)
        return got

    return state.run(state.client.each(tuple(paths), one))
