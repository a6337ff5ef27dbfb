"""`hostler audit`: the audit logs of the daemons."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from typing import Any

import click

from hostler.api.common.v1 import audit_pb2
from hostler.channel import rpc
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.host import at_doors, domains
from hostler.cli.output import Table, printable
from hostler.fleet import PORTS, Host
from hostler.results import HostResult, plain
from hostler.session import Session

_LIST = rpc(audit_pb2, "AuditService", "ListAuditRecords")
_TITLES = ("SEQ", "TIME", "KIND", "WHO", "METHOD", "STATUS", "REASON", "STEPS")
_doors = click.option(
    "--domain",
    "doors",
    multiple=True,
    type=click.Choice(list(PORTS)),
    help="Only this daemon's log. [default: all]",
)
_identity = click.option("--identity", default="", help="Only records of this identity.")
_method = click.option("--method", default="", help="Only records of this method.")


@click.group()
def audit() -> None:
    """What was done on hosts, by whom, and with what outcome."""


def _row(record: Any) -> tuple[Any, ...]:
    return (
        record.seq,
        record.time.ToDatetime().strftime("%Y-%m-%dT%H:%M:%SZ"),
        record.kind,
        record.identity,
        record.method.rpartition(".")[2],
        record.status,
        record.reason,
        "; ".join(record.steps),
    )


def _rows(answer: Any) -> Iterable[Sequence[Any]]:
    return [_row(record) for record in answer.records]


@audit.command(
    name="list",
    epilog=examples(
        "hostler -H h1 audit list",
        "hostler -H all -o json audit list --domain netns --limit 1000",
        "hostler -H h1 audit list --identity spiffe://lab.hostler/user/admin",
    ),
)
@_doors
@_identity
@_method
@click.option("--after-seq", type=click.IntRange(0), default=0, help="Only records after this.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True)
@pass_state
def list_records(
    state: State, doors: tuple[str, ...], identity: str, method: str, after_seq: int, limit: int
) -> None:
    """List records, oldest first."""
    request = audit_pb2.ListAuditRecordsRequest(
        page_size=limit, after_seq=after_seq, identity=identity, method=method
    )
    results = at_doors(state, state.hosts, doors or domains(), _LIST, request)
    state.finish(results, Table(_TITLES, _rows))


@audit.command(
    epilog=examples("hostler -H h1 audit tail", "hostler -H all audit tail -f --domain firewall")
)
@_doors
@_identity
@_method
@click.option("-n", "--lines", type=click.IntRange(1, 1000), default=20, show_default=True)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on.")
@pass_state
def tail(
    state: State, doors: tuple[str, ...], identity: str, method: str, lines: int, follow: bool
) -> None:
    """Show the last records."""
    request = audit_pb2.ListAuditRecordsRequest(tail=lines, identity=identity, method=method)
    if not follow:
        results = at_doors(state, state.hosts, doors or domains(), _LIST, request)
        state.finish(results, Table(_TITLES, _rows))
    places = [(host, door) for host in state.hosts for door in doors or domains()]
    state.end(state.run(_follow(state, places, request)))


async def _follow(
    state: State, places: Sequence[tuple[Host, str]], request: Any
) -> list[HostResult[Any]]:
    """Follow every log at once; ends when none can be followed any more."""
    from hostler.fanout import fan_out

    async def one(place: tuple[Host, str]) -> None:
        host, door = place
        async with state.client.session(host) as session:
            await _follow_one(state.output, session, door, request)

    results = await fan_out(places, lambda p: p[0].name, one, window=max(1, len(places)))
    return [
        HostResult(result.host, None, result.error, door)
        for result, (_, door) in zip(results, places, strict=True)
    ]


async def _follow_one(output: str, session: Session, door: str, request: Any) -> None:
    ask = audit_pb2.ListAuditRecordsRequest()
    ask.CopyFrom(request)
    while True:
        answer = await session.call(_LIST.at(door), ask)
        for record in answer.records:
            _say(output, session.host.name, door, record)
        # `end` also passes records that the filters left out.
        ask.after_seq = max(answer.end.seq, ask.after_seq, *(r.seq for r in answer.records), 0)
        if answer.next_page_token:
            ask.after_seq = answer.records[-1].seq
        ask.tail = 0
        ask.page_size = 1000
        await asyncio.sleep(1.0)


def _say(output: str, host: str, door: str, record: Any) -> None:
    if output != "table":
        click.echo(json.dumps({"host": host, "domain": door, **plain(record)}))
        return
    words = "  ".join(printable(cell) for cell in _row(record) if cell != "")
    click.echo(f"{host} {door}: {words}")
