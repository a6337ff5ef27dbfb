"""`hostler firewall top`: how fast rules and address sets count, drawn again and again."""

from __future__ import annotations

import json
import sys
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import click

from hostler.api.firewall.v1 import counter_pb2
from hostler.channel import rpc
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.kinds import Seconds
from hostler.cli.netns_counters import scaled
from hostler.cli.output import grid_of, print_table, printable
from hostler.results import CallFailed, plain
from hostler.resume import after_seq
from hostler.session import Session

if TYPE_CHECKING:
    from rich.console import Group

_TITLES = ("HOST", "RULE OR SET", "PKT/S", "BIT/S", "PACKETS", "BYTES")
_DRAWN_PER_S = 4

Row = tuple[str, str, float, float, int, int]
"""Host, rule or set, packets and bits for each second, packets and bytes in all."""


@click.command(
    epilog=examples(
        "hostler -H all firewall top", "hostler -H h1 firewall top --interval 5s --count 3 -n 10"
    )
)
@click.option("--interval", type=Seconds(), default="1s", show_default=True, help="Of readings.")
@click.option("--count", type=click.IntRange(0), default=0, help="End after so many; 0: go on.")
@click.option(
    "-n",
    "top",
    type=click.IntRange(1, 10_000),
    default=20,
    show_default=True,
    help="Rules, and sets, a host.",
)
@pass_state
def top(state: State, interval: float, count: int, top: int) -> None:
    """Show the busiest rules and address sets of hosts, again and again until Ctrl-C.

    A terminal is drawn anew in place, with all hosts in one table; a pipe gets a table for each
    reading. What a set counts is what the rules that use it count. The first reading has no rates
    yet. Bits are those of packets with their L3 headers.
    """
    asked = counter_pb2.WatchRuleCountersRequest(top=top)
    asked.interval.FromNanoseconds(round(interval * 1e9))
    view = _view_for(state.output)

    async def one(session: Session) -> None:
        method = rpc(counter_pb2, "RuleCounterService", "WatchRuleCounters")
        left = count
        try:
            async for reading in session.stream(method, asked, resume=_after):
                view.say(session.host.name, reading)
                left -= 1
                if left == 0:
                    return
        except CallFailed:
            view.lose(session.host.name)
            raise

    with view:
        results = state.run(state.client.each(state.hosts, one))
    state.end(results)


def _after(request: Any, reading: Any) -> None:
    after_seq(request, reading)
    request.after_time.CopyFrom(reading.time)


class _View(AbstractContextManager["_View"]):
    """Is told of each reading of each host. This one prints a document in a line for each."""

    def say(self, host: str, reading: Any) -> None:
        """Show a WatchRuleCountersResponse."""
        click.echo(json.dumps({"host": host, **plain(reading)}))

    def lose(self, host: str) -> None:
        """A host says no more. Its error is told at the end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave what was shown as it is."""


class _Tables(_View):
    """A table for each reading of a host."""

    def say(self, host: str, reading: Any) -> None:
        """Print it."""
        if reading.dropped:
            click.echo(f"{host}: {reading.dropped} readings were left out", err=True)
        rules, sets = _rows(host, reading)
        print_table(_TITLES, map(_cells, [*rules, *sets]))


class _Screen(_View):
    """One table of all hosts, drawn anew in place."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._last: dict[str, tuple[list[Row], list[Row]]] = {}
        self._left_out: dict[str, int] = {}
        self._lost: set[str] = set()
        self._console = Console(highlight=False)
        # Drawn by a clock: with hundreds of hosts each reading would draw hundreds of times.
        self._live = Live(
            console=self._console,
            refresh_per_second=_DRAWN_PER_S,
            vertical_overflow="crop",
            get_renderable=self._drawn,
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the cursor back; the last table stays."""
        self._live.stop()

    def say(self, host: str, reading: Any) -> None:
        """Have it drawn beside what the others said last."""
        self._last[host] = _rows(host, reading)
        self._left_out[host] = self._left_out.get(host, 0) + reading.dropped

    def lose(self, host: str) -> None:
        """Take it off the table: its rates would look like those of now."""
        self._last.pop(host, None)
        self._lost.add(host)

    def _drawn(self) -> Group:
        from rich.console import Group
        from rich.text import Text

        # The clock is a thread of its own: what it goes through must not grow meanwhile.
        last, left_out = list(self._last.values()), list(self._left_out.items())
        notes = [f"{host}: {n} readings were left out" for host, n in left_out if n]
        notes += [f"{host}: says no more" for host in sorted(self._lost)]
        # What does not fit is the least busy; titles and the line of the cursor take two lines.
        fit = max(1, self._console.height - 2 - len(notes))
        rules = _busiest([row for rows, _ in last for row in rows])
        sets = _busiest([row for _, rows in last for row in rows])
        sets = sets[: max(fit - len(rules), fit // 3)]
        rows = [*rules[: fit - len(sets)], *sets]
        grid = grid_of(_TITLES, map(_cells, rows), coloured=True)
        return Group(grid, *(Text(printable(note)) for note in notes))


def _view_for(output: str) -> _View:
    if output != "table":
        return _View()
    return _Screen() if sys.stdout.isatty() else _Tables()


def _rows(host: str, reading: Any) -> tuple[list[Row], list[Row]]:
    rules = [(host, each.counter.rule, *_counted(each, each.counter)) for each in reading.rules]
    sets = [(host, f"set {each.address_set}", *_counted(each, each)) for each in reading.sets]
    return rules, sets


def _counted(rate: Any, counter: Any) -> tuple[float, float, int, int]:
    return rate.packets_per_second, rate.bits_per_second, counter.packets, counter.bytes


def _busiest(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (row[2], row[4]), reverse=True)


def _cells(row: Row) -> tuple[object, ...]:
    host, what, packets_per_second, bits_per_second, packets, size_bytes = row
    return host, what, scaled(packets_per_second), scaled(bits_per_second), packets, size_bytes
