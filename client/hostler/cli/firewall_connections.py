"""`hostler firewall connections`: what the kernel tracks, counted, and cut."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click

from hostler.api.firewall.v1 import connection_pb2, ruleset_pb2
from hostler.channel import rpc
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.output import Table
from hostler.plans import RpcChange

_SERVICE = "ConnectionService"
_PROTOCOLS = tuple(
    name.removeprefix("PROTOCOL_").lower() for name in ruleset_pb2.Protocol.keys()[1:]
)
F = TypeVar("F", bound=Callable[..., Any])


class _Ports(click.ParamType[Any]):
    """Ports such as 22 or 8000-8010."""

    name = "PORTS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read them; a usage error if they are none."""
        if isinstance(value, ruleset_pb2.PortRange):
            return value
        first, _, last = str(value).partition("-")
        numbers = [int(n) for n in (first, last or first) if n.isascii() and n.isdigit()]
        if len(numbers) != 2 or not all(0 < n <= 65535 for n in numbers):
            self.fail(f"{value!r} is not a port, nor two such as 8000-8010", param, ctx)
        return ruleset_pb2.PortRange(first=numbers[0], last=numbers[1])


@click.group()
def connections() -> None:
    """The connections that the kernels of hosts track."""


def _filtered(command: F) -> F:
    """Give a command the options that say which connections are meant."""
    for option in (
        click.option("--snat", is_flag=True, help="Only with their source rewritten."),
        click.option("--dnat", is_flag=True, help="Only with their destination rewritten."),
        click.option("--ipv", type=click.Choice(["4", "6"]), help="Only this version of IP."),
        click.option("--sport", type=_Ports(), multiple=True, help="From one of these ports."),
        click.option("--dport", type=_Ports(), multiple=True, help="To one of these ports."),
        click.option("--to", multiple=True, metavar="NETWORK", help="To a network or an address."),
        click.option("--from", "sources", multiple=True, metavar="NETWORK", help="From one."),
        click.option("--proto", type=click.Choice(_PROTOCOLS), help="Only this protocol."),
    ):
        command = option(command)
    return command


def _filter(**given: Any) -> connection_pb2.ConnectionFilter:
    return connection_pb2.ConnectionFilter(
        protocol=f"PROTOCOL_{(given['proto'] or 'unspecified').upper()}",
        sources=given["sources"],
        destinations=given["to"],
        destination_ports=given["dport"],
        source_ports=given["sport"],
        ip_version=int(given["ipv"] or 0),
        destination_nat=given["dnat"],
        source_nat=given["snat"],
    )


def _rows(answer: Any) -> Iterable[Sequence[Any]]:
    for each in answer.connections:
        flags = ("replied" if each.replied else "", "assured" if each.assured else "")
        yield (
            each.protocol or each.protocol_number,
            _end(each.original.source, each.original.source_port),
            _end(each.original.destination, each.original.destination_port),
            _end(each.reply.source, each.reply.source_port),
            _end(each.reply.destination, each.reply.destination_port),
            each.tcp_state,
            ", ".join(filter(None, flags)),
            each.original.packets + each.reply.packets,
            each.timeout.seconds,
        )


def _end(address: str, port: int) -> str:
    if not port:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


_TITLES = (
    *("PROTOCOL", "FROM", "TO", "ANSWERED BY", "ANSWERED TO", "STATE", "FLAGS", "PACKETS"),
    "FORGOTTEN IN S",
)
_TABLE = Table(_TITLES, _rows)


@connections.command(
    name="list",
    epilog=examples(
        "hostler -H h1 firewall connections list --proto tcp --dport 22",
        "hostler -H all firewall connections list --to 10.1.0.0/24 --dnat --limit 50",
    ),
)
@_filtered
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=1000, show_default=True, help="At most."
)
@pass_state
def list_connections(state: State, /, limit: int, **given: Any) -> None:
    """List connections, in no order, and say where there are more of them."""
    request = connection_pb2.ListConnectionsRequest(filter=_filter(**given), page_size=limit)
    results = state.read(rpc(connection_pb2, _SERVICE, "ListConnections"), request)
    for each in results:
        if each.result is not None and each.result.total > len(each.result.connections):
            shown, total = len(each.result.connections), each.result.total
            click.echo(f"{each.host}: {shown} of {total} connections are shown", err=True)
    state.finish(results, _TABLE)


def _counts(answer: Any) -> Iterable[Sequence[Any]]:
    for each in answer.counts:
        yield each.protocol, each.tcp_state, each.connections
    yield "all that match", "", answer.total
    yield "the whole table", "", f"{answer.table_connections} of {answer.table_limit}"


@connections.command(
    epilog=examples(
        "hostler -H all firewall connections count",
        "hostler -H h1 firewall connections count --from 192.0.2.0/24",
    )
)
@_filtered
@pass_state
def count(state: State, /, **given: Any) -> None:
    """Count connections by protocol and state, and say how full the table is."""
    request = connection_pb2.CountConnectionsRequest(filter=_filter(**given))
    state.tell(
        rpc(connection_pb2, _SERVICE, "CountConnections"),
        request,
        Table(("PROTOCOL", "STATE", "CONNECTIONS"), _counts),
    )


@connections.command(
    epilog=examples(
        "hostler -H h1 firewall connections flush --from 192.0.2.7",
        "hostler -H all --plan firewall connections flush --proto tcp --dport 5432",
        "hostler -H h1 --yes firewall connections flush --all",
    )
)
@_filtered
@click.option("--all", "everything", is_flag=True, help="All of them; takes no other option.")
@pass_state
def flush(state: State, /, everything: bool, **given: Any) -> None:
    """Make hosts forget connections: their next packet is judged as a new one's."""
    wanted = _filter(**given)
    if everything == (wanted != connection_pb2.ConnectionFilter()):
        raise click.UsageError("say which connections, or --all, and not both")
    request = connection_pb2.FlushConnectionsRequest(filter=wanted, all=everything)
    state.change(
        RpcChange(rpc(connection_pb2, _SERVICE, "FlushConnections"), request),
        lambda answer: f"{answer.connections} connections",
    )
