"""`hostler runs`: what was changed from here, and going on with what was not finished."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any, NoReturn

import click

from hostler.cli import rolling
from hostler.cli.asking import must_be_able_to_ask
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.output import change_table, print_table, printable, show_plans
from hostler.cli.records import show_record, show_records
from hostler.config import ConfigError
from hostler.fleet import LOCAL, Fleet, Host, SelectionError
from hostler.limits import shortened
from hostler.plans import group_plans
from hostler.rollout import Rollout
from hostler.runs import Runs, default_url, open_runs, started_before
from hostler.runs_diff import compare
from hostler.runs_holder import this_process
from hostler.runs_model import Run, RunHost
from hostler.runs_resume import Rebuilt, may_have_it, missing, targets

_run = click.argument("run", metavar="RUN")


@click.group()
def runs() -> None:
    """What was changed from here: each change is recorded before hosts are asked to do it.

    RUN is a run's id, the beginning of one, or "last".
    """


def _open(state: State) -> Runs:
    configured = ""
    if not state.local_only:
        try:
            configured = state.context.runs_url
        except ConfigError:
            # Records can be read without a configuration: they are there without one, too.
            if state.context_name is not None:
                raise
    return open_runs(default_url(configured))


@runs.command(name="list", epilog=examples("hostler runs list", "hostler -o json runs list -n 5"))
@click.option("-n", "--limit", type=click.IntRange(1, 10_000), default=20, show_default=True)
@pass_state
def list_runs(state: State, limit: int) -> None:
    """List runs, newest first."""
    with _open(state) as store:
        found = store.newest(limit)
        outcomes = store.outcomes([run.id for run in found])
        records = [
            {**_record(store, run), "hosts": dict(outcomes[run.id]), "short": run.id[:8]}
            for run in found
        ]
    if state.output != "table":
        show_records(records, {}, state.output)
        return
    rows = [
        (
            record["short"],
            record["started"][:19],
            record["state"],
            ", ".join(f"{count} {word}" for word, count in record["hosts"].items()),
            " ".join(record["argv"]) or record["kind"],
        )
        for record in records
    ]
    print_table(("RUN", "STARTED", "STATE", "HOSTS", "COMMAND"), rows)


def _record(store: Runs, run: Run) -> dict[str, Any]:
    state = "abandoned" if store.is_abandoned(run) else str(run.state)
    return {**run.as_dict(), "state": state}


@runs.command(epilog=examples("hostler runs show last", "hostler -o json runs show 1a2b3c4d"))
@_run
@pass_state
def show(state: State, run: str) -> None:
    """Show a run: its hosts, their plans, what came of it, and where their audit logs stood."""
    with _open(state) as store:
        found = store.find(run)
        record = _record(store, found)
        hosts, plans = store.hosts(found.id), store.plans(found.id)
        anchors = store.anchors(run=found.id)
    if state.output != "table":
        record["hosts"] = [host.as_dict() for host in hosts]
        record["plans"] = [plan.as_dict() for plan in plans.values()]
        record["anchors"] = [anchor.as_dict() for anchor in anchors]
        show_record(record, state.output)
        return
    record["options"] = [f"{key}={value}" for key, value in found.options.items() if value]
    show_record({**record, "argv": " ".join(found.argv)}, "table")
    click.echo()
    print_table(("HOST", "WAVE", "OUTCOME", "PLAN", "ATTEMPTS", "ERROR"), map(_row, hosts))
    for plan in plans.values():
        names = [host.host for host in hosts if host.plan_hash == plan.hash]
        click.secho(f"\nplan {plan.hash[:12]} of {shortened(names) or 'no host'}", bold=True)
        for _, words in plan.steps:
            click.echo(f"  {printable(words)}")
        if not plan.steps:
            click.echo("  nothing to do")


def _row(host: RunHost) -> tuple[Any, ...]:
    error = host.error or {}
    return (
        host.host,
        host.wave or "",
        host.outcome or str(host.state),
        host.plan_hash[:12],
        host.attempts or "",
        f"{error.get('code')} {error.get('reason')}: {error.get('message')}" if error else "",
    )


@runs.command(
    epilog=examples(
        "hostler runs resume last",
        "hostler --plan runs resume 1a2b3c4d        what would be done",
        "hostler -H h3 --yes runs resume last       on one of the hosts that miss it",
        "hostler --batch 1,100% --max-failures 10% runs resume last",
    )
)
@_run
@pass_state
def resume(state: State, run: str) -> None:
    """Carry out what is missing of a run; hosts that have it are not asked again.

    Missing are hosts that failed, were not started or took it back, and those that were asked when
    nobody saw the answer: these are asked again with the same request, which is done once at the
    most. Waves, limits and gate are as before, unless given anew.
    """
    if state.no_record:
        raise click.UsageError("a run that is resumed is recorded where it is")
    with _open(state) as store:
        found = store.find(run)
        state = _in_context(state, found)
        rows = _chosen(state, missing(store.hosts(found.id)))
        if not rows:
            click.echo(f"Nothing is missing of run {found.id}.", err=True)
            if state.output != "table":
                show_records([], {}, state.output)
            return
        must_be_able_to_ask(state)
        change = Rebuilt.of(store, found, rows)
        _resume(state, store, found, rows, change)


def _resume(state: State, store: Runs, run: Run, rows: list[RunHost], change: Rebuilt) -> NoReturn:
    client = state.client
    options = state.rollout_as(Rollout.from_dict(run.options))
    hosts = _hosts(state, rows)
    plans = state.run(client.plan(change, hosts, options=options, run=run))
    if state.plan_only:
        rolling.show_plans_only(state, plans)
    uncertain = sum(map(may_have_it, rows))
    rolling.show_and_ask(state, plans, options, more=uncertain)
    claimed = store.claim(run, this_process())
    by_name = {row.host: row for row in rows}
    found = targets(run, options, by_name, store.plans(run.id), hosts, plans, change)
    rolled = rolling.roll(
        state,
        lambda halt, say: client.carry_out(
            claimed, found, change, options, halt=halt, say=say, fresh=False
        ),
    )
    rolling.finish(state, rolled, change_table())


def _in_context(state: State, run: Run) -> State:
    """The state for the run's own context, or for this machine alone if it had none."""
    if not run.context:
        return replace(state, selectors=(LOCAL,))
    if state.context_name not in (None, run.context):
        raise click.UsageError(f"the run is of context {run.context}")
    return replace(state, context_name=run.context)


def _chosen(state: State, rows: list[RunHost]) -> list[RunHost]:
    if not state.selectors:
        return rows
    names = {host.name for host in state.hosts}
    return [row for row in rows if row.host in names]


def _hosts(state: State, rows: list[RunHost]) -> list[Host]:
    fleet = Fleet() if state.local_only else state.fleet
    known = {host.name: host for host in fleet.hosts}
    if any(row.host == LOCAL for row in rows) and LOCAL not in known:
        known[LOCAL] = fleet.select([LOCAL])[0]
    gone = [row.host for row in rows if row.host not in known]
    if gone:
        raise SelectionError(
            f"no longer in the fleet: {shortened(gone)}; choose among the others with -H"
        )
    return [known[row.host] for row in rows]


@runs.command(
    epilog=examples(
        "hostler runs diff last                     what its hosts would do now",
        "hostler runs diff 1a2b3c4d 5e6f7a8b        how the plans of two runs differ",
    )
)
@_run
@click.argument("other", metavar="[RUN]", required=False)
@pass_state
def diff(state: State, run: str, other: str | None) -> None:
    """Show what the hosts of a run would do now to have its change, or compare two runs' plans.

    Changes nothing.
    """
    with _open(state) as store:
        found = store.find(run)
        if other is None:
            _diff_now(state, store, found)
        second = store.find(other)
        groups = compare(
            store.hosts(found.id),
            store.hosts(second.id),
            store.plans(found.id),
            store.plans(second.id),
        )
    if state.output != "table":
        show_records([group.as_dict() for group in groups], {}, state.output)
        return
    for group in groups:
        click.secho(f"{group}{': same plan' if group.same else ''}", bold=True)
        if not group.same:
            for line in group.lines() or ["  no plan"]:
                click.echo(f"  {printable(line)}")


def _diff_now(state: State, store: Runs, run: Run) -> NoReturn:
    state = _in_context(state, run)
    rows = _chosen(state, store.hosts(run.id))
    change = Rebuilt.of(store, run, rows)
    plans = state.run(state.client.plan(change, _hosts(state, rows)))
    if state.output != "table":
        state.finish(plans)
    show_plans(group_plans(plans), sys.stdout)
    state.end(plans)


@runs.command(
    epilog=examples("hostler runs prune --days 90", "hostler runs prune --keep 1000 --days 30")
)
@click.option("--keep", type=click.IntRange(0), help="Keep the newest so many, whatever their age.")
@click.option("--days", type=click.FloatRange(0), help="Keep those of so many days.")
@pass_state
def prune(state: State, keep: int | None, days: float | None) -> None:
    """Forget old runs. The newest place in each host's audit log that is known stays known."""
    if keep is None and days is None:
        raise click.UsageError("say what to keep: --keep N, --days D or both")
    with _open(state) as store:
        before = "" if days is None else started_before(days)
        count = store.prune(keep, before)
    show_record({"forgotten": count}, state.output)
