"""`hostler firewall explain`: which rule decides about a packet, before and after a change."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from hostler.api.firewall.v1 import explain_pb2, ruleset_pb2
from hostler.channel import rpc
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.output import Table
from hostler.desired import load_message
from hostler.skew import word

_TITLES = ("WHEN", "VERDICT", "PATH", "IN", "OUT", "DECIDED BY", "DOES", "REWRITTEN TO", "FROM")
_PROTOCOLS = [name.removeprefix("PROTOCOL_").lower() for name in ruleset_pb2.Protocol.keys()[1:]]
_STATES = [
    name.removeprefix("CONNECTION_STATE_").lower()
    for name in ruleset_pb2.ConnectionState.keys()[1:]
]


def _rows(answer: Any) -> Iterable[Sequence[Any]]:
    yield _row("now", answer.now)
    if answer.HasField("then"):
        yield _row("then", answer.then)
    elif answer.then_unknown:
        yield "then", "unknown", "", "", "", "", answer.then_unknown, "", ""


def _row(when: str, found: Any) -> Sequence[Any]:
    by = found.decided_by
    where = by.rule or f"{by.table} {by.chain}".strip() or "the host"
    verdict = word(explain_pb2.Verdict, found.verdict)
    return (
        *(when, verdict, found.path, found.in_ifname, found.out_ifname, where),
        *(by.unknown or by.does, found.rewritten_destination, found.rewritten_source),
    )


@click.command(
    epilog=examples(
        "hostler -H all firewall explain --from 198.51.100.7 --to 10.0.0.2 --dport 22",
        "hostler -H h1 firewall explain --from 10.0.0.9 --to 10.0.0.2 --dport 80 -f web.toml",
        "hostler -H h1 firewall explain --from 10.0.0.9 --to 10.0.0.2 --icmp-type echo-request"
        " --delete web",
    )
)
@click.option("--from", "source", required=True, help="The packet's source address.")
@click.option("--to", "destination", required=True, help="Its destination address.")
@click.option("--proto", type=click.Choice(_PROTOCOLS), help="Its protocol; tcp if it has ports.")
@click.option("--dport", type=click.IntRange(1, 65535), default=None, help="Destination port.")
@click.option("--sport", type=click.IntRange(1, 65535), default=None, help="Source port.")
@click.option("--in", "in_ifname", default="", help="The link it comes in by.")
@click.option("--out", "out_ifname", default="", help="The link it goes out by.")
@click.option("--state", "ct_state", type=click.Choice(_STATES), help="Of its connection; new.")
@click.option("--icmp-type", default="", help="Its ICMP type as nft names it; echo-request.")
@click.option(
    "-f",
    "--file",
    "paths",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Also explain it with this ruleset, as TOML, in place of the one of its name.",
)
@click.option(
    "--delete", "without", multiple=True, metavar="NAME", help="And without the ruleset NAME."
)
@pass_state
def explain(
    state: State,
    source: str,
    destination: str,
    proto: str | None,
    dport: int | None,
    sport: int | None,
    in_ifname: str,
    out_ifname: str,
    ct_state: str | None,
    icmp_type: str,
    paths: Sequence[Path],
    without: Sequence[str],
) -> None:
    """Tell which rule decides about a packet. None is sent."""
    if icmp_type and proto not in (None, "icmp"):
        raise click.UsageError("--icmp-type is of --proto icmp")
    if icmp_type:
        proto = "icmp"
    request = explain_pb2.ExplainPacketRequest(
        packet=explain_pb2.Packet(
            source=source,
            destination=destination,
            protocol=f"PROTOCOL_{(proto or 'unspecified').upper()}",
            source_port=sport or 0,
            destination_port=dport or 0,
            in_ifname=in_ifname,
            out_ifname=out_ifname,
            connection_state=f"CONNECTION_STATE_{(ct_state or 'unspecified').upper()}",
            icmp_type=icmp_type,
        ),
        rulesets=[load_message(path, ruleset_pb2.Ruleset()) for path in paths],
        delete_names=without,
    )
    method = rpc(explain_pb2, "PreviewService", "ExplainPacket")
    state.tell(method, request, Table(_TITLES, _rows))
