"""Changes as the command line carries them out: shown, asked for, interrupted, and told."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NoReturn, Protocol, TextIO

import click

from hostler.cli.asking import ask
from hostler.cli.context import State
from hostler.cli.output import Table, printable, show, show_plans
from hostler.fanout import Halt
from hostler.outcome import MISSING
from hostler.plans import Planned, group_plans
from hostler.results import HostResult, exit_code
from hostler.rollout import INTERRUPTED, Rolled, Rollout
from hostler.runs_model import RunsError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_INTERRUPTED_STATUS = 130
Say = Callable[[str], None]


class Review(Protocol):
    """What a command looks at in its plans, before anybody is asked and anything is done."""

    def judge(self, plans: Sequence[HostResult[Planned]], options: Rollout) -> Rollout:
        """Answer how the change is to go out, now that the plans are known; or leave."""
        ...

    def show(self, plans: Sequence[HostResult[Planned]], file: TextIO) -> None:
        """Print what there is to say beside the plans."""
        ...


def show_plans_only(
    state: State, plans: Sequence[HostResult[Planned]], review: Review | None = None
) -> NoReturn:
    """Show what would be done, each plan once, and leave."""
    if state.output != "table":
        state.finish(plans)
    show_plans(group_plans(plans), sys.stdout)
    if review is not None:
        review.show(plans, sys.stdout)
    state.finish([plan for plan in plans if not plan.ok] or plans, Table((), lambda _: ()))


def show_and_ask(
    state: State,
    plans: Sequence[HostResult[Planned]],
    options: Rollout,
    *,
    more: int = 0,
    review: Review | None = None,
) -> None:
    """Show each plan once, and ask whether to go on, unless nothing would be done anyway.

    `more` hosts are to be asked what became of what they were told before.
    """
    groups = group_plans(plans)
    stopped = sum(not plan.ok for plan in plans) > options.tolerance.allowed(len(plans))
    if state.output == "table" or not state.yes:
        show_plans(groups, sys.stderr)
        if review is not None:
            review.show(plans, sys.stderr)
    count = max(more, sum(bool(plan.result and plan.result.steps) for plan in plans))
    if count and not stopped:
        ask(state, f"Change {count} host{'s' if count != 1 else ''}?")


def roll(state: State, start: Callable[[Halt, Say], Coroutine[Any, Any, Rolled]]) -> Rolled:
    """Carry out a change. A first interrupt lets what is in flight end, a second one leaves it."""

    def say(words: str) -> None:
        if state.output == "table":
            click.echo(printable(words), err=True)

    try:
        return state.run(_interruptible(start, say))
    except RunsError as error:
        hint = "nothing was changed; --no-record changes without a record"
        raise RunsError(f"{error}; {hint}") from error
    except asyncio.CancelledError:
        click.echo("Left in the middle; see: hostler runs show last", err=True)
        raise click.Abort from None


async def _interruptible(
    start: Callable[[Halt, Say], Coroutine[Any, Any, Rolled]], say: Say
) -> Rolled:
    halt = Halt()
    work = asyncio.ensure_future(start(halt, say))
    asked = False

    def interrupt() -> None:
        nonlocal asked
        if asked:
            work.cancel()
            return
        asked = True
        halt.pull(INTERRUPTED, "interrupted")
        click.echo("Waiting for hosts in flight; interrupt again to leave them.", err=True)

    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, interrupt)
    try:
        return await work
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


def finish(state: State, rolled: Rolled, table: Table) -> NoReturn:
    """Print the results, where it stopped and how to go on, and leave."""
    show(rolled.results, state.output, table)
    if rolled.stop is not None:
        click.secho(printable(rolled.where()).capitalize(), fg="red", err=True)
    if rolled.recorded and any(result.outcome in MISSING for result in rolled.results):
        short = rolled.run[:8]
        verb = "show" if rolled.not_recorded else "resume"
        click.echo(f"To go on with what is missing: hostler runs {verb} {short}", err=True)
    status = exit_code(rolled.results)
    if rolled.stop is not None:
        status = _INTERRUPTED_STATUS if rolled.stop.kind == INTERRUPTED else 1
    click.get_current_context().exit(status)
