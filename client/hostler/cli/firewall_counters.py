"""`hostler firewall counters` and `top`: what rules have counted, and how fast."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import click

from hostler.api.firewall.v1 import counter_pb2
from hostler.channel import rpc
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.kinds import Seconds
from hostler.cli.netns_counters import scaled
from hostler.cli.output import Table, print_table
from hostler.results import plain
from hostler.resume import after_seq
from hostler.session import Session

_SERVICE = "RuleCounterService"
_RATES = ("HOST", "RULE", "PKT/S", "BIT/S", "PACKETS", "BYTES")


def _rows(answer: Any) -> Iterable[Sequence[Any]]:
    return ((each.rule, each.packets, each.bytes) for each in answer.counters)


@click.command(epilog=examples("hostler -H all firewall counters"))
@pass_state
def counters(state: State) -> None:
    """List what the rules have counted, in the order in which they are asked."""
    method = rpc(counter_pb2, _SERVICE, "ListRuleCounters")
    results = state.read(method, counter_pb2.ListRuleCountersRequest(), pages=True)
    state.finish(results, Table(("RULE", "PACKETS", "BYTES"), _rows))


@click.command(
    epilog=examples(
        "hostler -H all firewall top", "hostler -H h1 firewall top --interval 5s --count 3 -n 10"
    )
)
@click.option("--interval", type=Seconds(), default="1s", show_default=True, help="Of readings.")
@click.option("--count", type=click.IntRange(0), default=0, help="End after so many; 0: go on.")
@click.option(
    "-n", "top", type=click.IntRange(1, 10_000), default=20, show_default=True, help="Rules a host."
)
@pass_state
def top(state: State, interval: float, count: int, top: int) -> None:
    """Show the busiest rules of hosts, again and again.

    The first reading has no rates yet. Bits are those of packets with their L3 headers.
    """
    asked = counter_pb2.WatchRuleCountersRequest(top=top)
    asked.interval.FromNanoseconds(round(interval * 1e9))

    async def one(session: Session) -> None:
        method = rpc(counter_pb2, _SERVICE, "WatchRuleCounters")
        left = count
        async for reading in session.stream(method, asked, resume=_after):
            _say(state.output, session.host.name, reading)
            left -= 1
            if left == 0:
                return

    state.end(state.run(state.client.each(state.hosts, one)))


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
            each.counter.rule,
            scaled(each.packets_per_second),
            scaled(each.bits_per_second),
            each.counter.packets,
            each.counter.bytes,
        )
        for each in reading.rules
    ]
    if reading.dropped:
        click.echo(f"{host}: {reading.dropped} readings were left out", err=True)
    print_table(_RATES, rows)
