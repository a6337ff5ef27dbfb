"""`hostler firewall apply`: rulesets of files on the hosts that they are for, or on none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, TextIO

import click

from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.kinds import Seconds
from hostler.cli.output import printable, show
from hostler.firewall_apply import ApplyFiles, Files, ending, findings, refusals, touching
from hostler.firewall_files import for_hosts, load_rulesets
from hostler.fleet import Host
from hostler.limits import shortened
from hostler.plans import Planned
from hostler.results import HostError, HostResult
from hostler.rollout import Rollout

CONFIRM_S = 60.0
_MOST_FINDINGS = 50

_FILE = examples(
    'name = "base"',
    'hosts = ["role=web", "db*"]     # only these of the selected hosts; absent: all of them',
    "priority = 10                   # lower ones are asked first; absent: 0",
    'input_policy = "drop"',
    "[[rules]]",
    'id = "ssh"',
    'hook = "input"',
    'action = "accept"',
    'protocol = "tcp"',
    'sources = ["192.0.2.0/24"]',
    'destination_ports = [22, "8000-8010"]',
    "[[masquerades]]",
    'source = "10.1.0.0/24"',
    "[[forwards]]",
    'protocol = "tcp"',
    "port = 8080",
    'target_address = "10.1.0.2"',
    "target_port = 80",
    title="A file is one ruleset, in the names of the API, and `hosts`:",
)


def with_files(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option that names files of rulesets, as `paths`."""
    return click.option(
        "-f",
        "--file",
        "paths",
        required=True,
        multiple=True,
        type=click.Path(path_type=Path),
        help="A ruleset as TOML, or a folder of them. May be given several times.",
    )(command)


def files_of(
    state: State, paths: Sequence[Path], for_s: float | None = None
) -> tuple[Files, tuple[Host, ...]]:
    """The files of each selected host, and the hosts that have any; what is left out is named.

    Raises ConfigError that lists every mistake, SelectionError.
    """
    files = load_rulesets(paths)
    if for_s is not None:
        files = ending(files, for_s)
    hosts = state.hosts
    chosen = for_hosts(files, hosts, None if state.local_only else state.fleet)
    for each in files:
        if not any(each.is_for(host) for host in hosts):
            click.echo(f"{each.document.path}: for none of the selected hosts", err=True)
    left = [host.name for host in hosts if host.name not in chosen]
    if left and chosen:
        click.echo(f"No file is for them, they stay as they are: {shortened(left)}", err=True)
    return chosen, tuple(host for host in hosts if host.name in chosen)


@click.command(
    epilog=_FILE
    + "\n\n"
    + examples(
        "hostler -H h1 --plan firewall apply -f base.toml",
        "hostler -H all --max-failures 5% firewall apply -f base.toml -f roles/",
        "hostler -H all firewall apply -f rulesets/ --prune",
        "hostler -H h1 firewall apply -f debug.toml --for 10m",
    )
)
@with_files
@click.option(
    "--prune",
    is_flag=True,
    help="Delete every other ruleset of these hosts, whoever made it: also those of 'isolate'. A "
    "host that no file is for stays as it is.",
)
@click.option(
    "--for",
    "for_s",
    type=Seconds(),
    help="Rules without an expire_time end by themselves after this time.",
)
@click.option(
    "--force",
    is_flag=True,
    help="Also do what hosts refuse, such as closing Hostler's own ports; always under confirm.",
)
@click.option(
    "--cut-established", is_flag=True, help="Cut connections that new drop and reject rules match."
)
@click.option(
    "--no-confirm", is_flag=True, help="Keep the change even if it may cut this machine off."
)
@pass_state
def apply(
    state: State,
    paths: tuple[Path, ...],
    prune: bool,
    for_s: float | None,
    force: bool,
    cut_established: bool,
    no_confirm: bool,
) -> None:
    """Make hosts have rulesets, new or instead of those of their names.

    All rulesets of a host go in one transaction. If any file is wrong, or any host refuses its
    plan, no host is changed; hosts that cannot be reached count as failed, see --max-failures.

    A change that may touch the path between this machine and a host is taken back after 60s unless
    the host can still be reached then; --confirm-within sets another time.
    """
    if no_confirm and (force or state.confirm_within_s is not None):
        other = "--force" if force else "--confirm-within"
        raise click.UsageError(f"{other} needs what --no-confirm leaves out")
    chosen, hosts = files_of(state, paths, for_s)
    if not hosts:
        raise click.UsageError("no file is for any of the selected hosts")
    change = ApplyFiles(chosen, force=force, cut_established=cut_established, prune=prune)
    review = _Review(state, chosen, hosts, no_confirm=no_confirm)
    state.change(change, _described, hosts, review, review.before(force=force))


def _described(answer: Any) -> str:
    return ", ".join(each.name for each in answer.rulesets)


class _Review:
    """Nothing goes out if a host refuses; what may cut the caller off goes out under confirm."""

    def __init__(
        self, state: State, files: Files, hosts: Sequence[Host], *, no_confirm: bool
    ) -> None:
        self._state = state
        self._files = files
        self._local = {host.name for host in hosts if host.is_local}
        self._remote = any(not host.is_local for host in hosts)
        self._no_confirm = no_confirm
        self._why = ""

    def before(self, *, force: bool) -> Rollout:
        """How the change goes out, as far as that is known before the plans."""
        options = self._state.rollout
        if force and options.confirm_within_s is None and self._remote:
            return self._under_confirm(options, "--force is taken under confirm only")
        return options

    def judge(self, plans: Sequence[HostResult[Planned]], options: Rollout) -> Rollout:
        """Leave if any host has refused; put the change under confirm if it touches the caller."""
        if refusals(plans):
            self._leave(plans)
        if options.confirm_within_s is not None or self._no_confirm:
            return options
        touched = [name for name in touching(plans) if name not in self._local]
        if not touched:
            return options
        why = f"it may touch the path between here and {shortened(touched)}"
        return self._under_confirm(options, why)

    def show(self, plans: Sequence[HostResult[Planned]], file: TextIO) -> None:
        """Print the findings, each text once, and what becomes of the change unconfirmed."""
        found = findings(plans, self._files)
        if found:
            click.secho("findings", bold=True, file=file)
        for each in found[:_MOST_FINDINGS]:
            told = f"  {each.words} ({shortened(each.hosts)})"
            refused = each.refused and "; refused without --force"
            click.secho(printable(told + (refused or "")), fg="yellow", file=file)
        if len(found) > _MOST_FINDINGS:
            click.echo(f"  … and {len(found) - _MOST_FINDINGS} more; -o json has all", file=file)
        if self._why:
            click.secho(printable(self._why), bold=True, file=file)
        elif self._state.plan_only and not self._no_confirm:
            self._foretell(plans, file)

    def _foretell(self, plans: Sequence[HostResult[Planned]], file: TextIO) -> None:
        touched = [name for name in touching(plans) if name not in self._local]
        if touched and self._state.confirm_within_s is None:
            words = f"It may touch the path between here and {shortened(touched)}"
            click.echo(printable(f"{words}: it would go out under confirm."), file=file)

    def _under_confirm(self, options: Rollout, why: str) -> Rollout:
        if self._state.background:
            raise click.UsageError(
                f"{why}, and --background leaves nobody to confirm: leave it out, or give "
                "--no-confirm"
            )
        if self._local and self._remote:
            raise click.UsageError(
                f"{why}, and nobody can confirm through local doors: change this machine by "
                "itself, or give --no-confirm"
            )
        self._why = (
            f"{why[0].upper()}{why[1:]}: hosts take the change back after {CONFIRM_S:.0f}s unless "
            "they can still be reached."
        )
        return replace(options, confirm_within_s=CONFIRM_S)

    def _leave(self, plans: Sequence[HostResult[Planned]]) -> NoReturn:
        """Show who refused, and leave. Not even those that would have done it are asked to."""
        refused = shortened([plan.host for plan in refusals(plans)])
        spared = HostError("ABORTED", "NOT_STARTED", f"not started: {refused} refused the plan")
        results: list[HostResult[Any]] = list(_with_spared(plans, spared))
        if self._state.output == "table":
            results = [result for result in results if result.error is not spared]
        show(results, self._state.output)
        click.echo(printable(f"Nothing was changed: {refused} refused the plan."), err=True)
        click.get_current_context().exit(1)


def _with_spared(
    plans: Sequence[HostResult[Planned]], spared: HostError
) -> Iterable[HostResult[Any]]:
    for plan in plans:
        yield plan if plan.error is not None else HostResult(plan.host, error=spared)
