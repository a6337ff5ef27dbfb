"""`hostler audit verify` and `replay`: whether a log is whole, and what it tells of a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hostler.cli.audit_doors import each_door, words_of
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.options import with_doors
from hostler.cli.output import Table, print_table, printable, show
from hostler.doors import doors_of
from hostler.limits import shortened
from hostler.results import HostResult

if TYPE_CHECKING:
    from hostler.core.audit import Anchor
    from hostler.replay import Event, Told
    from hostler.runs_model import Run, RunHost
    from hostler.session import Session
    from hostler.verify import Checked, Heads

_SKEW_S = 0.5
_MOST_TOLD = 20


@click.command(
    name="verify",
    epilog=examples(
        "hostler -H all audit verify",
        "hostler -H h1 -o json audit verify --domain netns --anchors anchors.json",
        "hostler -H h1 audit verify --forget     h1 was set up again: its log is a new one",
    ),
)
@with_doors
@click.option(
    "--anchors",
    "anchors_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="More anchors to compare with: JSON, a list of {host, domain, seq, head}.",
)
@click.option("--forget", is_flag=True, help="Take the logs as new: forget what was seen of them.")
@pass_state
def verify_logs(
    state: State, doors: tuple[str, ...], anchors_file: Path | None, forget: bool
) -> None:
    """Fetch whole logs, compute every hash here, and compare with what was seen before.

    Compared are the anchors that hosts answered to changes of recorded runs, and the ends of logs
    as earlier verifications saw them. Exit status 1 if a log was edited, cut, reordered or
    rewritten; every finding is named.
    """
    from hostler.verify import Heads, from_file, verify

    heads = Heads("" if state.local_only else state.context.name)
    extra = from_file(anchors_file) if anchors_file is not None else {}
    if forget:
        for host in state.hosts:
            for door in doors_of(host, doors):
                heads.forget(host.name, door)

    async def work(session: Session, door: str) -> Checked:
        name = session.host.name
        known = _known(state, heads, name, door)
        checked = await verify(session, door, [*known, *extra.get((name, door), ())])
        if checked.verdict.ok and checked.verdict.end.seq:
            heads.remember(name, door, checked.verdict.end)
        return checked

    results = state.run(each_door(state, doors, work))
    show(results, state.output, Table(_TITLES, _rows))
    if state.output == "table":
        _tell(results)
    bad = not results or any(not r.ok or not r.value().verdict.ok for r in results)
    click.get_current_context().exit(int(bad))


def _known(state: State, heads: Heads, host: str, door: str) -> list[Anchor]:
    """What this client has seen of a log, by its runs and by earlier verifications."""
    from hostler.verify import from_runs

    seen = heads.seen(host, door)
    client = state.client
    context = "" if client.context is None else client.context.name
    return [*seen.heads, *from_runs(client.runs_url, context, host, door, seen.since)]


_TITLES = ("VERDICT", "RECORDS", "FROM", "TO", "ANCHORS", "TOOK", "FINDINGS")


def _rows(checked: Checked) -> Iterable[Sequence[Any]]:
    verdict = checked.verdict
    yield (
        "whole" if verdict.ok else "TAMPERED",
        verdict.records,
        verdict.first_seq,
        verdict.end.seq,
        verdict.anchors,
        f"{checked.seconds:.1f} s",
        ", ".join(dict.fromkeys(each.flaw.value for each in verdict.findings)) or "-",
    )


def _tell(results: Sequence[HostResult[Checked]]) -> None:
    """Name the findings of each log, and what keeps it from being written."""
    for result in results:
        if result.result is None:
            continue
        where, checked = f"{result.host} {result.domain}", result.result
        findings = checked.verdict.findings
        for finding in findings[:_MOST_TOLD]:
            colour = "yellow" if finding.harmless else "red"
            words = f"{where}: {finding.flaw.value}: {printable(finding.message)}"
            click.secho(words, fg=colour, err=True)
        if len(findings) > _MOST_TOLD:
            more = len(findings) - _MOST_TOLD
            click.echo(f"{where}: {more} more; -o json names them all", err=True)
        if checked.problem:
            click.secho(f"{where}: degraded: {printable(checked.problem)}", fg="yellow", err=True)


@click.command(
    name="replay",
    epilog=examples(
        "hostler audit replay last",
        "hostler audit replay 1a2b3c4d",
        "hostler -H all audit replay 1a2b3c4d-…     a run that was recorded elsewhere",
    ),
)
@click.argument("run", metavar="RUN")
@with_doors
@pass_state
def replay_run(state: State, run: str, doors: tuple[str, ...]) -> None:
    """Show a run as it happened, by the hosts' own logs: who, where, what, with which answer.

    RUN is a run's id, the beginning of one, or "last". Hosts are those of the run, or those that
    are selected. Times are put right by how far each host's clock is off.
    """
    from hostler.replay import in_order, replay
    from hostler.runs_model import RunNotFound

    try:
        found, told = _recorded(state, run)
    except RunNotFound:
        if not state.selectors:
            raise
        found, told = None, []
    wanted = found.id if found is not None else run
    hosts = state.hosts if state.selectors else state.fleet.select([each.host for each in told])
    request_ids = [each.request_id for each in told if each.request_id]
    groups = [each.group for each in told if each.group]
    results = state.run(replay(state.client, wanted, hosts, doors, request_ids, groups))
    if state.output != "table":
        state.finish(results)
    if found is not None:
        click.echo(f"run {found.id}: {printable(' '.join(found.argv) or found.kind)}")
        click.echo(f"by {printable(found.who)}, {found.started} to {found.ended or 'now'}\n")
    print_table(_EVENT_TITLES, map(_event_row, in_order(results)))
    _tell_clocks(results)
    state.end(results)


def _recorded(state: State, text: str) -> tuple[Run, list[RunHost]]:
    """A run of this client's records, and its hosts. Raises RunNotFound."""
    from hostler.runs import open_runs

    with open_runs(state.client.runs_url) as runs:
        run = runs.find(text)
        return run, runs.hosts(run.id)


_EVENT_TITLES = ("TIME", "HOST", "DOMAIN", "WHO", "WHAT", "ABOUT", "ANSWER", "TOOK", "STEPS")


def _event_row(event: Event) -> tuple[Any, ...]:
    record = event.record
    answer = record.outcome.removeprefix("OUTCOME_") or record.reason or record.status
    return (
        event.time.strftime("%H:%M:%S.%f")[:-3],
        event.host,
        event.domain,
        record.identity,
        record.method.rpartition(".")[2],
        shortened([name for name in record.resources if name]),
        answer if record.kind in ("outcome", "revert", "recovery") else record.kind,
        _took(record) if record.kind != "intent" else "",
        words_of(record),
    )


def _took(record: Any) -> str:
    seconds: float = record.duration.ToNanoseconds() / 1e9
    return f"{seconds:.3f} s" if seconds else ""


def _tell_clocks(results: Sequence[HostResult[Told]]) -> None:
    """Say which hosts' clocks are off: their logs name other times."""
    told: dict[str, float] = {
        result.host: result.result.ahead_s
        for result in results
        if result.result is not None and abs(result.result.ahead_s) > _SKEW_S
    }
    for host, ahead_s in told.items():
        way = "ahead" if ahead_s > 0 else "behind"
        click.secho(f"{host}: its clock is {abs(ahead_s):.1f} s {way}", fg="yellow", err=True)
