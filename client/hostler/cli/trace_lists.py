"""`hostler trace fields`, `list` and `stop`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import click

from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.output import Table, moment, print_table


@click.command(epilog=examples("hostler trace fields", "hostler trace fields fd"))
@click.argument("beginning", default="", metavar="[BEGINNING]")
def fields(beginning: str) -> None:
    """List the fields that a filter can ask for, with what they are."""
    from hostler.core.trace.fields import all_families, all_fields

    rows: list[tuple[str, str, str]] = [
        (field.name, field.kind.value, field.meaning) for field in all_fields().values()
    ]
    rows += [(f"{f.name}{f.argument}", f.kind.value, f.meaning) for f in all_families().values()]
    chosen = [row for row in rows if row[0].startswith(beginning)]
    if not chosen:
        raise click.UsageError(f"no field begins with {beginning!r}")
    print_table(("FIELD", "TYPE", "MEANING"), chosen)


def _rows(answer: Any) -> Iterable[Sequence[Any]]:
    for each in answer.traces:
        yield (
            each.name,
            each.owner,
            moment(each, "start_time"),
            each.end_reason.lower().replace("_", " ") or "running",
            each.events,
            each.lost,
            each.watchers,
            each.spec.filter or "-",
        )


_TITLES = ("TRACE", "OWNER", "SINCE", "STATE", "EVENTS", "LOST", "WATCHERS", "FILTER")


@click.command("list", epilog=examples("hostler -H all trace list"))
@pass_state
def list_(state: State) -> None:
    """List the traces that run on hosts, and those that have just ended."""
    from hostler.api.tracing.v1 import trace_pb2
    from hostler.traces import LIST

    state.tell(LIST, trace_pb2.ListTracesRequest(), Table(_TITLES, _rows))


@click.command(epilog=examples("hostler -H h1 trace stop t3f2a90c1b7de"))
@click.argument("name")
@pass_state
def stop(state: State, name: str) -> None:
    """End a trace. Whoever started it may, and local root."""
    from hostler.api.tracing.v1 import trace_pb2
    from hostler.traces import STOP

    def ended(answer: Any) -> Iterable[Sequence[Any]]:
        trace = answer.trace
        yield (trace.name, trace.end_reason.lower().replace("_", " "), trace.events, trace.lost)

    state.tell(
        STOP,
        trace_pb2.StopTraceRequest(name=name),
        Table(("TRACE", "STATE", "EVENTS", "LOST"), ended),
    )
