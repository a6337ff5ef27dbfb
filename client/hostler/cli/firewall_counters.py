"""`hostler firewall counters`: what rules have counted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import click

from hostler.api.firewall.v1 import counter_pb2
from hostler.channel import rpc
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.output import Table


def _rows(answer: Any) -> Iterable[Sequence[Any]]:
    return ((each.rule, each.packets, each.bytes) for each in answer.counters)


@click.command(epilog=examples("hostler -H all firewall counters"))
@pass_state
def counters(state: State) -> None:
    """List what the rules have counted, in the order in which they are asked."""
    method = rpc(counter_pb2, "RuleCounterService", "ListRuleCounters")
    state.tell(
        method,
        counter_pb2.ListRuleCountersRequest(),
        Table(("RULE", "PACKETS", "BYTES"), _rows),
        pages=True,
    )
