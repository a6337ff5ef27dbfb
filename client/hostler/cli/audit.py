"""`hostler audit`: the audit logs of the daemons."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

import click

from hostler.api.common.v1 import audit_pb2
from hostler.channel import rpc
from hostler.cli.audit_doors import Moment, each_door, words_of
from hostler.cli.audit_verify import replay_run, verify_logs
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.options import with_doors
from hostler.cli.output import Table, printable
from hostler.limits import shortened
from hostler.results import plain
from hostler.session import Session

_LIST = rpc(audit_pb2, "AuditService", "ListAuditRecords")
_FOLLOW = rpc(audit_pb2, "AuditService", "FollowAuditRecords")
_TITLES = ("SEQ", "TIME", "KIND", "WHO", "METHOD", "ABOUT", "STATUS", "REASON", "STEPS")
_PAGE = 1000


def _with_filters(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that choose records; they have the names of the API's fields."""
    options = (
        ("--identity", "identity", "Only records of this identity."),
        ("--method", "method", "Only records of this method, by its full name."),
        ("--run", "run", "Only records of this run, by its full id."),
        ("--request-id", "request_id", "Only records of the change with this request id."),
        ("--group", "group", "Only records about this pending group."),
        ("--status", "status", "Only records with this status, such as PERMISSION_DENIED."),
        ("--reason", "reason", "Only records with this reason."),
        ("--resource", "resource", "Only records about this very resource."),
        ("--about", "resource_contains", "Only records about a resource with this in its name."),
    )
    for option, name, words in reversed(options):
        command = click.option(option, name, default="", help=words)(command)
    kind = click.option("--kind", "kinds", multiple=True, help="Only records of this kind.")
    return kind(with_doors(command))


@click.group()
def audit() -> None:
    """What was done on hosts, by whom, and with what outcome; and whether the record is whole."""


def _row(record: Any) -> tuple[Any, ...]:
    return (
        record.seq,
        record.time.ToDatetime().strftime("%Y-%m-%dT%H:%M:%SZ"),
        record.kind,
        record.identity,
        record.method.rpartition(".")[2],
        shortened([name for name in record.resources if name]),
        record.status,
        record.reason,
        words_of(record),
    )


def _rows(answer: Any) -> Iterable[Sequence[Any]]:
    return [_row(record) for record in answer.records]


def _show(state: State, doors: tuple[str, ...], request: Any, limit: int) -> None:
    """Print the records that a request asks for, of each door at most so many."""

    async def ask(session: Session, door: str) -> Any:
        whole, page = _LIST.response_type(), _LIST.request_type()
        page.CopyFrom(request)
        while len(whole.records) < limit:
            page.page_size = min(_PAGE, limit - len(whole.records))
            answer = await session.call(_LIST.at(door), page)
            whole.MergeFrom(answer)
            whole.next_page_token = page.page_token = answer.next_page_token
            if not answer.next_page_token:
                break
        return whole

    state.finish(state.run(each_door(state, doors, ask)), Table(_TITLES, _rows))


@audit.command(
    epilog=examples(
        "hostler -H h1 audit query --since 2h --identity spiffe://lab.hostler/user/admin",
        "hostler -H all audit query --status PERMISSION_DENIED --since 2026-11-01",
        "hostler -H all -o ndjson audit query --kind outcome --about web --limit 100000",
    )
)
@_with_filters
@click.option("--since", type=Moment(), help="From this time on, or so long ago: 2h, 2026-11-01.")
@click.option("--until", type=Moment(), help="Before this time, or so long ago.")
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True)
@pass_state
def query(
    state: State,
    /,
    doors: tuple[str, ...],
    since: datetime | None,
    until: datetime | None,
    limit: int,
    **filters: Any,
) -> None:
    """Find records, oldest first."""
    request = audit_pb2.ListAuditRecordsRequest(**filters)
    if since is not None:
        request.since.FromDatetime(since)
    if until is not None:
        request.until.FromDatetime(until)
    _show(state, doors, request, limit)


@audit.command(
    name="list",
    epilog=examples(
        "hostler -H h1 audit list",
        "hostler -H all -o json audit list --domain netns --limit 1000",
        "hostler -H h1 audit list --identity spiffe://lab.hostler/user/admin",
    ),
)
@_with_filters
@click.option("--after-seq", type=click.IntRange(0), default=0, help="Only records after this.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True)
@pass_state
def list_records(
    state: State, /, doors: tuple[str, ...], after_seq: int, limit: int, **filters: Any
) -> None:
    """List records, oldest first."""
    _show(state, doors, audit_pb2.ListAuditRecordsRequest(after_seq=after_seq, **filters), limit)


@audit.command(
    epilog=examples("hostler -H h1 audit tail", "hostler -H all audit tail -f --domain firewall")
)
@_with_filters
@click.option("-n", "--lines", type=click.IntRange(1, 1000), default=20, show_default=True)
@click.option("-f", "--follow", "go_on", is_flag=True, help="Go on with what is written from now.")
@pass_state
def tail(state: State, /, doors: tuple[str, ...], lines: int, go_on: bool, **filters: Any) -> None:
    """Show the last records."""
    request = audit_pb2.ListAuditRecordsRequest(tail=lines, **filters)
    if not go_on:
        _show(state, doors, request, lines)

    async def both(session: Session, door: str) -> None:
        answer = await session.call(_LIST.at(door), request)
        for record in answer.records:
            _say(state.output, session.host.name, door, record)
        await _follow(state, session, door, answer.end.seq, filters)

    state.end(state.run(each_door(state, doors, both)))


@audit.command(
    epilog=examples(
        "hostler -H all audit follow --status PERMISSION_DENIED",
        "hostler -H h1 -o ndjson audit follow --domain netns --after-seq 1200",
    )
)
@_with_filters
@click.option(
    "--after-seq",
    type=click.IntRange(0),
    help="Begin after this record. [default: with what is written from now on]",
)
@pass_state
def follow(state: State, /, doors: tuple[str, ...], after_seq: int | None, **filters: Any) -> None:
    """Print records as they are written, until interrupted; goes on when a daemon restarts."""
    after = -1 if after_seq is None else after_seq

    async def work(session: Session, door: str) -> None:
        await _follow(state, session, door, after, filters)

    state.end(state.run(each_door(state, doors, work)))


async def _follow(
    state: State, session: Session, door: str, after: int, filters: dict[str, Any]
) -> None:
    from hostler.resume import after_seq

    request = audit_pb2.FollowAuditRecordsRequest(after_seq=after, **filters)
    name = session.host.name
    async for answer in session.stream(_FOLLOW.at(door), request, resume=after_seq):
        if answer.dropped and after >= 0:
            click.echo(f"{name} {door}: {answer.dropped} records are gone already", err=True)
        for record in answer.records:
            _say(state.output, name, door, record)


def _say(output: str, host: str, door: str, record: Any) -> None:
    if output != "table":
        click.echo(json.dumps({"host": host, "domain": door, **plain(record)}))
        return
    words = "  ".join(printable(cell) for cell in _row(record) if cell != "")
    click.echo(f"{host} {door}: {words}")


audit.add_command(verify_logs)
audit.add_command(replay_run)
