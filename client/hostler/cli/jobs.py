"""`hostler jobs`: work that hosts go on with by themselves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import click

from hostler.api.common.v1 import job_pb2
from hostler.cli.asking import refuse_terms
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.job_display import Display, display_for, progress_words
from hostler.cli.options import with_doors
from hostler.cli.output import Table, moment
from hostler.doors import at_doors
from hostler.fanout import fan_out
from hostler.fleet import Host
from hostler.jobs import (
    LIST_JOBS,
    CancelJob,
    error_of,
    find_job,
    full_name,
    method_word,
    state_word,
    watch_job,
)
from hostler.limits import shortened
from hostler.results import HostResult, exit_code

Target = tuple[Host, str, Any]


@click.group(
    epilog=examples(
        "hostler -H all --background netns apply -f networks.toml     starts one on each host",
        "hostler -H all jobs list --active",
        "hostler -H all jobs watch",
        "hostler -H h1 jobs cancel 1c6f8d8e5f0c4a39",
    )
)
def jobs() -> None:
    """Work that hosts go on with by themselves, whoever asked for it and is gone."""


def _rows(answer: Any) -> Iterable[Sequence[Any]]:
    for job in answer.jobs:
        yield (
            job.name.removeprefix("jobs/"),
            state_word(job),
            method_word(job.method),
            shortened(job.resources) or "-",
            job.identity,
            moment(job, "create_time"),
            progress_words(job) or moment(job, "end_time"),
        )


_TITLES = ("JOB", "STATE", "METHOD", "RESOURCES", "BY", "SINCE", "HOW FAR")


@jobs.command(
    name="list",
    epilog=examples("hostler -H all jobs list", "hostler -H all -o json jobs list --active"),
)
@click.option("--active", is_flag=True, help="Only those that have not ended.")
@with_doors
@pass_state
def list_jobs(state: State, active: bool, doors: tuple[str, ...]) -> None:
    """List jobs, newest first, of every door of the selected hosts."""
    request = job_pb2.ListJobsRequest(active_only=active)
    asked = at_doors(state.client, state.hosts, doors, LIST_JOBS, request)
    state.finish(state.run(asked), Table(_TITLES, _rows))


@jobs.command(epilog=examples("hostler -H h1 jobs show 1c6f8d8e5f0c4a39"))
@click.argument("name")
@pass_state
def show(state: State, name: str) -> None:
    """Show all there is to know about a job: how far, what failed, what cancelling would leave."""
    _finish_found(state, _holders(state, name))


def _holders(state: State, name: str) -> list[HostResult[Any]]:
    """What each selected host says of a job; only those that have it, if any has."""

    async def one(session: Any) -> Any:
        _, job = await find_job(session, name)
        return job

    results = state.run(state.client.each(state.hosts, one))
    return [result for result in results if result.ok] or results


def _finish_found(state: State, results: Sequence[HostResult[Any]]) -> NoReturn:
    def rows(job: Any) -> Iterable[Sequence[Any]]:
        yield "name", job.name
        yield "state", state_word(job)
        yield "method", method_word(job.method)
        yield "resources", " ".join(job.resources) or "-"
        yield "by", job.identity
        yield "since", moment(job, "create_time")
        yield "ended", moment(job, "end_time")
        yield "how far", progress_words(job) or "-"
        yield "if cancelled", job.cancel_leaves or "leaves nothing behind"
        if job.resume:
            yield "to go on", job.resume
        if error := error_of(job):
            yield "failed", str(error)

    state.finish(results, Table(("FIELD", "VALUE"), rows))


@jobs.command(
    epilog=examples(
        "hostler -H all jobs watch                        all that go on",
        "hostler -H h1 jobs watch 1c6f8d8e5f0c4a39",
        "hostler -H all -o ndjson jobs watch              a line for each step of progress",
    )
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@pass_state
def watch(state: State, names: tuple[str, ...]) -> None:
    """Follow jobs to their end: those named, or all that go on now.

    An interrupt ends the watching, never a job. Exit status 1 if one of them did not succeed.
    """
    listed = state.run(_list(state, active=not names))
    targets = _targets(state, listed, names)
    failed = [] if names else [result for result in listed if not result.ok]
    if not targets:
        if not failed:
            click.echo("No job is going on.", err=True)
        state.end(failed) if failed else click.get_current_context().exit(0)
    try:
        with display_for(state.output) as display:
            results = state.run(_watch(state, targets, display))
    except KeyboardInterrupt:
        click.echo("The jobs go on: hostler jobs list --active", err=True)
        raise
    if state.output in ("json", "yaml"):
        state.finish([*results, *failed])
    if state.output == "table":
        state.end([*results, *failed])
    click.get_current_context().exit(exit_code([*results, *failed]))


async def _list(state: State, *, active: bool) -> list[HostResult[Any]]:
    request = job_pb2.ListJobsRequest(active_only=active)
    return await at_doors(state.client, state.hosts, (), LIST_JOBS, request)


def _targets(state: State, listed: Sequence[HostResult[Any]], names: Sequence[str]) -> list[Target]:
    """The jobs to follow, with their hosts and doors. ClickException if a name is nowhere."""
    wanted = {full_name(name) for name in names}
    hosts = {host.name: host for host in state.hosts}
    found = [
        (hosts[result.host], result.domain, job)
        for result in listed
        if result.result is not None
        for job in result.result.jobs
        if not wanted or job.name in wanted
    ]
    missing = wanted - {job.name for _, _, job in found}
    if missing:
        errors = [f"{r.host} {r.domain}: {r.error}" for r in listed if not r.ok]
        words = f"no selected host has {', '.join(sorted(missing))}"
        raise click.ClickException("; ".join([words, *errors]))
    return found


async def _watch(
    state: State, targets: Sequence[Target], display: Display
) -> list[HostResult[Any]]:
    async def one(target: Target) -> Any:
        host, domain, job = target
        last = job
        async with state.client.session(host) as session:
            async for answer in watch_job(session, domain, job.name):
                last = answer.job
                display.say(host.name, domain, answer)
        return last

    results = await fan_out(targets, lambda t: t[0].name, one, window=state.parallel)
    judged = []
    for result, (_, domain, _) in zip(results, targets, strict=True):
        error = result.error or error_of(result.result)
        kept = None if error else result.result
        judged.append(HostResult(result.host, kept, error, domain))
    return judged


@jobs.command(epilog=examples("hostler -H h1 --yes jobs cancel 1c6f8d8e5f0c4a39"))
@click.argument("name")
@pass_state
def cancel(state: State, name: str) -> None:
    """Ask a job to stop. Shows first what that would leave behind."""
    refuse_terms(state)
    holders = _holders(state, name)
    if not any(result.ok for result in holders):
        state.finish(holders)
    named = {result.host for result in holders}
    hosts = [host for host in state.hosts if host.name in named]
    state.change(CancelJob(name), lambda answer: state_word(answer.job), hosts)
