"""`hostler firewall log`, `collect` and `filters`: what rules with `log` have seen."""

from __future__ import annotations

import json
import signal
import sys
from typing import TYPE_CHECKING, Any

import click

from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.kinds import Age
from hostler.cli.records import show_records
from hostler.config import HostlerError

if TYPE_CHECKING:
    from hostler.packet_store import NamedFilter, PacketStore
    from hostler.packet_writer import PacketWriter
    from hostler.session import Session

_ENDED_S = 30.0

where_option = click.option(
    "--where",
    default="",
    metavar="FILTER",
    help="""Only records for which this holds, such as 'dport == 22 and action == "drop"'.""",
)
store_option = click.option(
    "--store",
    "url",
    default="",
    envvar="HOSTLER_PACKETS_URL",
    metavar="URL",
    help="sqlite:///FILE or postgresql://...  [default: ~/.local/state/hostler/packets.sqlite]",
)


@click.command(
    epilog=examples(
        "hostler -H all firewall log --follow --where 'dport == 22 and action == \"drop\"'",
        "hostler -H h1 -o ndjson firewall log --limit 1000",
    )
)
@click.option("-f", "--follow", "go_on", is_flag=True, help="Go on with what is logged from now.")
@where_option
@click.option("--limit", type=click.IntRange(1), help="End after so many of each host.")
@pass_state
def log(state: State, go_on: bool, where: str, limit: int | None) -> None:
    """Print packets that rules with `log` have seen, as they come.

    Without --follow, what hosts still have of them: up to the last one there is.
    """
    from hostler.fanout import fan_out
    from hostler.packets import compile_where

    compile_where(where)
    hosts = state.hosts

    async def one(host: Any) -> None:
        async with state.client.session(host) as session:
            await _print_log(session, state.output, where, go_on, limit)

    results = state.run(fan_out(hosts, lambda h: h.name, one, window=max(1, len(hosts))))
    state.end(results)


async def _print_log(
    session: Session, output: str, where: str, go_on: bool, limit: int | None
) -> None:
    from hostler.api.firewall.v1 import packet_log_pb2
    from hostler.packets import FROM_NOW_ON, STATE, follow
    from hostler.results import CallFailed, HostError

    after, last = FROM_NOW_ON, 0
    if not go_on:
        stands = await session.call(STATE, packet_log_pb2.GetPacketLogStateRequest())
        after, last = 0, stands.last_seq
        if stands.problem:
            why = HostError("FAILED_PRECONDITION", "PACKET_LOG_UNAVAILABLE", stands.problem)
            raise CallFailed(why)
        if not last:
            return
    seen = 0
    async for answer in follow(session, where, "", after):
        if answer.lost:
            click.secho(f"{session.host.name}: {_lost(answer)}", fg="red", err=True)
        for record in answer.records:
            _say(output, session.host.name, record)
            seen += 1
            if seen == limit:
                return
        if not go_on and answer.seq >= last:
            return


def _lost(answer: Any) -> str:
    if answer.lost < 0:
        return f"{-answer.lost} records fewer lost than it has told before"
    at_socket = f", {answer.lost_at_socket} of them at its socket" if answer.lost_at_socket else ""
    return f"{answer.lost} records lost up to number {answer.seq}{at_socket}"


def _say(output: str, host: str, record: Any) -> None:
    from hostler.cli.output import printable
    from hostler.packet_row import fields_of, line_of

    if output == "table":
        click.echo(f"{host}: {printable(line_of(record))}")
    else:
        click.echo(json.dumps({"host": host, **fields_of(record)}))


@click.command(
    epilog=examples(
        "hostler -H all firewall collect",
        "hostler -H all firewall collect --keep 30d --keep-records 10000000",
        "hostler -H role=web firewall collect --store postgresql://log@db/packets "
        "--where 'action == \"drop\"'",
    )
)
@store_option
@where_option
@click.option("--keep", type=Age(), help="Remove records older than this, such as 30d.")
@click.option("--keep-records", type=click.IntRange(1), help="Remove the oldest above so many.")
@pass_state
def collect(
    state: State, url: str, where: str, keep: float | None, keep_records: int | None
) -> None:
    """Store the packet logs of hosts until interrupted; goes on where the last one stopped.

    With named filters (see `hostler firewall filters`) only what one of them holds for is stored.
    """
    from hostler.packet_retention import Retention
    from hostler.packet_store import open_packets
    from hostler.packet_writer import PacketWriter
    from hostler.packets import compile_where

    compile_where(where)
    hosts = state.hosts
    with open_packets(url) as store:
        found = {host.name: store.newest(host.name) for host in hosts}
        positions = {name: (p.reader, p.last_seq) for name, p in found.items() if p is not None}
        writer = PacketWriter(store, Retention(keep, keep_records), _tell)
        writer.start()
        _tell(f"collecting from {len(hosts)} hosts into {store.place}")
        # How a service is ended in good order: what has come is stored on the way out.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        try:
            results = _collected(state, writer, positions, where)
        finally:
            _end(writer)
    state.end(results)


def _collected(
    state: State, writer: PacketWriter, positions: dict[str, tuple[str, int]], where: str
) -> Any:
    from hostler.packet_collector import WriterEnded
    from hostler.packet_collector import collect as collect_from

    try:
        return state.run(collect_from(state.client, state.hosts, writer, positions, where, _tell))
    except WriterEnded:
        raise writer.failure or HostlerError("the writer has ended") from None


def _end(writer: PacketWriter) -> None:
    if not writer.end(_ENDED_S):
        _tell("what has come last could not be stored; it is fetched again next time")
    totals = writer.totals
    words = [f"{totals.stored} stored"]
    words += [f"{totals.unwanted} that no filter wanted"] if totals.unwanted else []
    words += [f"{totals.expired} removed"] if totals.expired else []
    _tell(", ".join(words))
    if totals.lost:
        click.secho(
            f"{totals.lost} lost, {totals.lost_at_socket} of them at sockets", fg="red", err=True
        )


def _tell(words: str) -> None:
    from hostler.cli.output import printable

    click.echo(printable(words), err=True)


@click.group()
def filters() -> None:
    """Named filters: which records collectors store. Without any, they store all."""


@filters.command(epilog=examples("hostler firewall filters add ssh 'dport == 22'"))
@click.argument("name")
@click.argument("expression")
@store_option
def add(name: str, expression: str, url: str) -> None:
    """Store from now on what this holds for; collectors follow within seconds."""
    with _opened(url) as store:
        store.add_filter(name, expression)


@filters.command(epilog=examples("hostler firewall filters remove ssh"))
@click.argument("name")
@store_option
def remove(name: str, url: str) -> None:
    """Take a filter away; collectors follow within seconds. Without any left they store all."""
    with _opened(url) as store:
        store.remove_filter(name)


@filters.command(
    name="list",
    epilog=examples("hostler firewall filters list", "hostler firewall filters list --history"),
)
@click.option("--history", is_flag=True, help="Also those that were removed.")
@store_option
@pass_state
def list_filters(state: State, history: bool, url: str) -> None:
    """List the filters, and since when and until when they were in force."""
    with _opened(url) as store:
        records = [_filter_record(each) for each in store.filters(history=history)]
    columns = {
        "NAME": "name",
        "FILTER": "expression",
        "ADDED": "added",
        "IN FORCE": "in_force",
        "REMOVED": "removed",
        "OUT OF FORCE": "out_of_force",
    }
    show_records(records, columns, state.output)


def _filter_record(each: NamedFilter) -> dict[str, Any]:
    from hostler.packet_row import moment

    times = {
        "added": each.added,
        "in_force": each.in_force,
        "removed": each.removed,
        "out_of_force": each.out_of_force,
    }
    told = {key: None if value is None else moment(value) for key, value in times.items()}
    return {"name": each.name, "expression": each.expression, **told}


def _opened(url: str) -> PacketStore:
    from hostler.packet_store import open_packets

    return open_packets(url)
