"""`hostler ssl endpoints`: what hosts serve, for each name at each socket."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import click

from hostler.api.ssl.v1 import endpoint_pb2
from hostler.channel import rpc
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.output import Table
from hostler.cli.ssl_findings import some, tell_apart, words_of

_TITLES = ("LISTENER", "NAME", "STARTTLS", "SERVER", "UNIT", "SERVED", "NEGOTIATED", "FINDINGS")


def _rows(answer: Any) -> Iterable[Sequence[Any]]:
    for each in answer.endpoints:
        leaf = each.served[0][:16] if each.served else ""
        yield (
            each.listener,
            each.name or "(default)",
            each.starttls or "-",
            each.server or each.comm or "-",
            each.unit or "-",
            leaf or f"({some(place.path for place in each.uses)})",
            each.negotiated or "-",
            words_of(each.findings),
        )


@click.command(
    epilog=examples(
        "hostler -H all ssl endpoints", "hostler -H web1 ssl endpoints --handshake --findings"
    )
)
@click.option(
    "--handshake", is_flag=True, help="Shake hands with each, and compare with the files."
)
@click.option("--findings", is_flag=True, help="Tell each finding in words, on standard error.")
@pass_state
def endpoints(state: State, handshake: bool, findings: bool) -> None:
    """List what the servers of hosts serve over TLS: by name, not by port.

    Without --handshake it is what their configurations say, and SERVED has the files of those. With
    it, sockets that no configuration names are tried as well, and shown if they speak TLS;
    NOT_THE_FILE is told of what was not reloaded.
    """
    asked = endpoint_pb2.ListEndpointsRequest(handshake=handshake)
    method = rpc(endpoint_pb2, "EndpointService", "ListEndpoints")
    results = state.read(method, asked, pages=True)
    if state.output == "table":
        tell_apart(results, findings=findings)
    state.finish(results, Table(_TITLES, _rows))
