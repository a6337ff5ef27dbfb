"""`hostler netns counters`: what the links of a namespace, or of the host, have counted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import click

from hostler.api.netns.v1 import counter_pb2
from hostler.channel import rpc
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.kinds import Seconds
from hostler.cli.output import Table, print_table
from hostler.results import plain
from hostler.resume import after_seq
from hostler.session import Session

_SERVICE = "CounterService"
_TITLES = (
    "NETNS",
    "LINK",
    "LAYER",
    "MTU",
    "RX BYTES",
    "TX BYTES",
    "RX PACKETS",
    "TX PACKETS",
    "DROPPED",
    "ERRORS",
)
_RATES = ("LINK", "LAYER", "RX BIT/S", "TX BIT/S", "RX PKT/S", "TX PKT/S", "TCP4 PAYLOAD SHARE")


def _rows(answer: Any) -> Iterable[Sequence[Any]]:
    for link in answer.links:
        yield (
            link.namespace or "(host)",
            link.ifname,
            link.layer,
            link.mtu_bytes,
            link.rx_bytes,
            link.tx_bytes,
            link.rx_packets,
            link.tx_packets,
            link.rx_dropped + link.tx_dropped,
            link.rx_errors + link.tx_errors,
        )


@click.command(
    epilog=examples(
        "hostler -H all netns counters web", "hostler -H h1 netns counters --watch --interval 2s"
    )
)
@click.argument("name", required=False, default="")
@click.option("--link", default="", help="Only this link.")
@click.option("--watch", is_flag=True, help="Show rates, again and again.")
@click.option("--interval", type=Seconds(), default="1s", show_default=True, help="Of --watch.")
@click.option("--count", type=click.IntRange(0), default=0, help="End --watch after so many.")
@pass_state
def counters(state: State, name: str, link: str, watch: bool, interval: float, count: int) -> None:
    """Show the counters of a namespace's links, or of the host's if no name is given.

    Rates are in decimal units, on the layer that the device counts.
    """
    if not watch:
        request = counter_pb2.GetCountersRequest(namespace=name, ifname=link)
        method = rpc(counter_pb2, _SERVICE, "GetCounters")
        state.tell(method, request, Table(_TITLES, _rows))
    asked = counter_pb2.WatchCountersRequest(namespace=name, ifname=link, count=count)
    asked.interval.FromNanoseconds(round(interval * 1e9))

    async def one(session: Session) -> None:
        method = rpc(counter_pb2, _SERVICE, "WatchCounters")
        async for reading in session.stream(method, asked, resume=_after):
            _say(state.output, session.host.name, reading)

    results = state.run(state.client.each(state.hosts, one))
    state.end(results)


def _after(request: Any, reading: Any) -> None:
    after_seq(request, reading)
    request.after_time.CopyFrom(reading.time)


def _say(output: str, host: str, reading: Any) -> None:
    if output != "table":
        click.echo(json.dumps({"host": host, **plain(reading)}))
        return
    rows = [
        (
            host,
            each.counters.ifname,
            each.counters.layer,
            scaled(each.rates.rx_bits_per_second),
            scaled(each.rates.tx_bits_per_second),
            scaled(each.rates.rx_packets_per_second),
            scaled(each.rates.tx_packets_per_second),
            f"{each.rates.tcp4_payload_share:.2%}",
        )
        for each in reading.links
        if each.HasField("rates")
    ]
    if rows:
        print_table(("HOST", *_RATES), rows)


def scaled(value: float) -> str:
    """A number with a decimal prefix: 1500000 is "1.50 M"."""
    for prefix in ("", "k", "M", "G"):
        if abs(value) < 999.995:
            return f"{value:.2f} {prefix}".strip()
        value /= 1000
    return f"{value:.2f} T"
