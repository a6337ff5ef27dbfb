"""`hostler pending`: changes that hosts will take back unless they are confirmed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import click

from hostler.cli.asking import ask, must_be_able_to_ask, refuse_terms
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.output import Table, printable, show_errors
from hostler.confirm import confirm_host, fate, outcome_of, pending_on, revert_host
from hostler.jobs import method_word
from hostler.outcome import Outcome
from hostler.results import CallFailed, HostError, HostResult
from hostler.session import Session

_SHOWN_STEPS = 20


@click.group(
    invoke_without_command=True,
    epilog=examples(
        "hostler -H all --confirm-within 60s firewall apply -f base.toml     makes one",
        "hostler -H all pending",
        "hostler -H all -o json pending",
        "hostler -H h1 --yes pending revert",
    ),
)
@click.option("--ended", is_flag=True, help="Show how the last groups ended, too.")
@click.pass_context
def pending(ctx: click.Context, ended: bool) -> None:
    """Show what hosts will take back by themselves unless it is confirmed.

    Each host has one pending group, of all its domains; any door that answers tells of it.
    """
    if ctx.invoked_subcommand is None:
        state = ctx.ensure_object(State)
        state.finish(_look(state), Table(_TITLES, lambda seen: _rows(seen, ended)))


def _look(state: State) -> list[HostResult[Any]]:
    return state.run(state.client.each(state.hosts, pending_on, tolerance=state.tolerance))


_TITLES = ("GROUP", "STATE", "BY", "CONFIRMED AT", "WAITS FOR", "CHANGES")


def _rows(seen: Any, ended: bool) -> Iterable[Sequence[Any]]:
    if seen.HasField("pending"):
        group = seen.pending
        yield (
            group.group,
            "being taken back" if group.reverting else _left(group),
            group.identity,
            ", ".join(d.domain for d in group.doors if d.confirmed) or "-",
            ", ".join(d.domain for d in group.doors if not d.confirmed) or "-",
            "; ".join(method_word(part.method) for part in group.parts),
        )
    elif not (ended and seen.ended):
        yield "-", "nothing pending", "", "", "", ""
    for each in seen.ended if ended else ():
        at = each.end_time.ToDatetime().strftime("%Y-%m-%d %H:%M:%S")
        word = outcome_of(each).value.replace("_", " ")
        yield each.group, f"{word} {at}: {each.reason}", each.identity, "", "", ""


def _left(group: Any) -> str:
    return f"taken back in {group.remaining.ToTimedelta().total_seconds():.0f} s"


@pending.command(
    short_help="Take a group back at once.",
    epilog=examples(
        "hostler -H all --yes pending revert",
        "hostler -H all --plan pending revert",
        "hostler -H h1 pending revert 1c6f8d8e-5f0c-4a39-9d55-3a3c0d8a7a11",
    ),
)
@click.argument("group", required=False, default="")
@pass_state
def revert(state: State, group: str) -> None:
    """Take what is pending back at once, in all domains: GROUP, or whichever there is.

    All hosts at a time, whatever becomes of the others. Where nothing is pending, nothing is done.
    """
    refuse_terms(state)
    must_be_able_to_ask(state)
    seen = _look(state)
    chosen = [r for r in seen if _is_meant(r, group)]
    for result in chosen:
        _say_what_goes(result)
    if state.plan_only:
        show_errors(seen)
        click.get_current_context().exit(any(not r.ok for r in seen))
    if chosen:
        ask(state, f"Take it back on {len(chosen)} host{'s' if len(chosen) != 1 else ''}?")
    groups = {r.host: r.result.pending.group for r in chosen if r.result is not None}

    async def one(session: Session) -> Any:
        name = groups.get(session.host.name)
        if name is None:
            return None
        ended = await revert_host(session, name)
        if ended is not None and outcome_of(ended) is not Outcome.ROLLED_BACK:
            raise CallFailed(HostError("ABORTED", "NOT_REVERTED", str(ended.reason)))
        return ended

    done = state.run(state.client.each(state.hosts, one, tolerance=state.tolerance))
    results = [s if not s.ok else d for s, d in zip(seen, done, strict=True)]
    state.finish(results, Table(("GROUP", "STATE"), _reverted))


def _is_meant(result: HostResult[Any], group: str) -> bool:
    seen = result.result
    return bool(seen and seen.HasField("pending") and group in ("", seen.pending.group))


def _say_what_goes(result: HostResult[Any]) -> None:
    group = result.value().pending
    click.secho(f"{result.host}: {group.group} of {printable(group.identity)}", bold=True, err=True)
    steps = [
        f"{part.domain}: {step}" for part in reversed(group.parts) for step in reversed(part.steps)
    ]
    for step in steps[:_SHOWN_STEPS]:
        click.echo(f"  take back {printable(step)}", err=True)
    if len(steps) > _SHOWN_STEPS:
        click.echo(f"  and {len(steps) - _SHOWN_STEPS} more", err=True)


def _reverted(ended: Any) -> Iterable[Sequence[Any]]:
    if ended is None:
        yield "-", "nothing pending"
    else:
        yield ended.group, f"taken back: {ended.reason}"


@pending.command(
    short_help="Confirm a group, so that it stays.",
    epilog=examples("hostler -H all --yes pending confirm 1c6f8d8e-5f0c-4a39-9d55-3a3c0d8a7a11"),
)
@click.argument("group")
@pass_state
def confirm(state: State, group: str) -> None:
    """Confirm GROUP at every door of the selected hosts, so that it stays.

    Counts only from who made the change, and from another machine. `--confirm-within` does this by
    itself; here it is for changes that were made by other means.
    """
    refuse_terms(state)
    must_be_able_to_ask(state)
    if state.plan_only:
        state.finish(_look(state), Table(_TITLES, lambda seen: _rows(seen, ended=False)))
    ask(state, f"Let {group} stay on {len(state.hosts)} hosts?")

    async def one(session: Session) -> Any:
        seen = await pending_on(session)
        left_s = 0.0
        if seen.HasField("pending") and seen.pending.group == group:
            left_s = seen.pending.remaining.ToTimedelta().total_seconds()
        elif await fate(session, group) is Outcome.UNKNOWN:
            message = f"no group {group} is pending, and none has ended lately"
            raise CallFailed(HostError("NOT_FOUND", "GROUP_NOT_PENDING", message))
        return await confirm_host(session, group, (), left_s)

    results = state.run(state.client.each(state.hosts, one, tolerance=state.tolerance))
    table = Table(("GROUP", "CONFIRMED AT"), lambda c: [(c.group, ", ".join(c.doors))])
    state.finish(results, table)
