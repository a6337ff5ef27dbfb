"""`hostler top`: the fleet in a terminal, drawn again as it changes."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.kinds import Seconds
from hostler.cli.output import grid_of, print_table, printable

if TYPE_CHECKING:
    from rich.console import Group

    from hostler.board.board import Board
    from hostler.board.status import HostStatus, Work

_TITLES = (
    "HOST",
    "STATE",
    "DOORS",
    "PENDING",
    "JOBS",
    "DRIFT",
    "DISKS",
    "CERTIFICATES",
    "TOP DROP",
)
_DRAWN_PER_S = 4


@click.command(
    epilog=examples(
        "hostler top", "hostler -H role=web top --interval 2s", "hostler -o json top --count 1"
    )
)
@click.option(
    "--interval", type=Seconds(), default="5s", show_default=True, help="Between two readings."
)
@click.option("--count", type=click.IntRange(0), default=0, help="End after so many; 0: go on.")
@pass_state
def top(state: State, interval: float, count: int) -> None:
    """Show the state of the selected hosts, or all, again and again until Ctrl-C.

    The same as `hostler web`: a terminal is drawn anew in place; a pipe gets a table, or a document
    in a line, each time that all have been asked.
    """
    from hostler.board.board import Board

    hosts = state.hosts_or_all
    client = state.client

    async def follow() -> None:
        async with Board(client, hosts, interval) as board:
            if state.output == "table" and sys.stdout.isatty():
                await _drawn(board, interval, count)
            else:
                await _printed(board, state.output, interval, count)

    state.run(follow())


async def _printed(board: Board, output: str, interval_s: float, count: int) -> None:
    """One table, or document, for each round."""
    asked = 0
    while True:
        await board.round()
        _say(board.statuses, output)
        asked += 1
        if asked == count:
            return
        await asyncio.sleep(interval_s)


async def _drawn(board: Board, interval_s: float, count: int) -> None:
    """One table, drawn anew in place by a clock, whoever has answered by then."""
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False)
    live = Live(
        console=console,
        refresh_per_second=_DRAWN_PER_S,
        vertical_overflow="crop",
        get_renderable=lambda: _group(board.statuses, console.height),
    )
    with live:
        if count == 0:
            await board.follow()
        for number in range(count):
            await board.round()
            if number + 1 < count:
                await asyncio.sleep(interval_s)


def _group(statuses: Sequence[HostStatus], height: int) -> Group:
    from rich.console import Group
    from rich.text import Text

    from hostler.board.status import summary, worst_first

    # What does not fit is the least bad; titles, summary and the cursor take three lines.
    shown = worst_first(statuses)[: max(1, height - 3)]
    return Group(
        Text(printable(summary(statuses))), grid_of(_TITLES, map(_cells, shown), coloured=True)
    )


def _say(statuses: Sequence[HostStatus], output: str) -> None:
    from hostler.board.status import summary, worst_first

    if output != "table":
        click.echo(json.dumps([each.as_dict() for each in statuses]))
        return
    print_table(_TITLES, map(_cells, worst_first(statuses)))
    click.echo(summary(statuses))


def _cells(status: HostStatus) -> tuple[object, ...]:
    doors = f"{sum(not why for why in status.doors.values())} of {len(status.doors)}"
    ending = status.ending or ()
    drops = status.drops or ()
    return (
        status.host,
        str(status.level) if status.is_asked else "not asked yet",
        doors if status.is_asked else "",
        _pending(status),
        "?" if status.jobs is None else ", ".join(map(_job, status.jobs)),
        _count(status.drift, "differ"),
        _count(status.health, "to look at"),
        "?" if status.ending is None else "; ".join(
            f"{each.subject} {status.days_left(each)} d" for each in ending[:1]
        ) + (f" and {len(ending) - 1} more" if len(ending) > 1 else ""),
        "?" if status.drops is None else "".join(f"{d.rule} {d.packets}" for d in drops[:1]),
    )  # fmt: skip


def _pending(status: HostStatus) -> str:
    if status.waiting is None:
        return ""
    if status.waiting.reverting:
        return "being taken back"
    return f"taken back in {status.waiting.remaining_s:.0f} s"


def _job(work: Work) -> str:
    return f"{work.what} {100 * work.done // work.total} %" if work.total > 0 else work.what


def _count(found: Sequence[str] | None, word: str) -> str:
    if found is None:
        return "?"
    return f"{len(found)} {word}" if found else ""
