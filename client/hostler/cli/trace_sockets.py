"""`hostler trace sockets`: which sockets there are, and whose they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import click

from hostler.api.tracing.v1 import socket_pb2
from hostler.channel import rpc
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.output import Table

_TITLES = ("PROTOCOL", "STATE", "RECV-Q", "SEND-Q", "LOCAL", "PEER", "PROCESSES")
_MOST_NAMED = 5


def _rows(answer: Any) -> Iterable[Sequence[Any]]:
    for each in answer.sockets:
        names = [f"{p.comm} ({p.pid})" for p in each.processes]
        more = [f"and {len(names) - _MOST_NAMED} more"] if len(names) > _MOST_NAMED else []
        yield (
            each.protocol,
            each.state,
            each.receive_queue,
            each.send_queue,
            each.local or "-",
            each.peer or "-",
            ", ".join([*names[:_MOST_NAMED], *more]) or "-",
        )


@click.command(
    epilog=examples(
        "hostler -H all trace sockets --listening --protocol tcp",
        "hostler -H h1 trace sockets --pid 411",
    )
)
@click.option(
    "--protocol",
    type=click.Choice(["tcp", "udp", "udplite", "raw", "unix"]),
    default=None,
    help="Only these.",
)
@click.option("--listening", is_flag=True, help="Only those that wait for connections.")
@click.option("--pid", type=click.IntRange(1), default=None, help="Only those of this process.")
@pass_state
def sockets(state: State, protocol: str | None, listening: bool, pid: int | None) -> None:
    """List the sockets of hosts with the processes that have them open.

    RECV-Q is what the owner has not read, SEND-Q what the other end has not acknowledged, in bytes.
    """
    asked = socket_pb2.ListSocketsRequest(
        protocol=protocol or "", listening=listening, pid=pid or 0
    )
    method = rpc(socket_pb2, "SocketService", "ListSockets")
    state.tell(method, asked, Table(_TITLES, _rows), pages=True)
