"""`hostler doctor`: what keeps this machine from its hosts, and hosts from their work."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.options import with_doors
from hostler.cli.records import show_records

if TYPE_CHECKING:
    from hostler.doctor.finding import Finding
    from hostler.fleet import Host

_COLUMNS = {
    name.upper(): name for name in ("host", "domain", "check", "level", "message", "advice")
}


@click.command(
    epilog=examples(
        "hostler doctor                          this machine, and every host of the fleet",
        "hostler -H web1 doctor --domain netns",
        "hostler -H local doctor                 on a host, by its sockets",
        "hostler -H all -o json doctor",
    )
)
@click.option("--all", "everything", is_flag=True, help="Show what is well, too.")
@with_doors
@pass_state
def doctor(state: State, everything: bool, doors: tuple[str, ...]) -> None:
    """Check in order what has to be right: this machine, then each door of the selected hosts.

    Configuration, CA, certificate, key and fleet file here; then name, port, TLS, answer, clock,
    certificate, bundle, audit log and capabilities of each door, and what else on the host manages
    the same things. What failed keeps what depends on it from being asked. Exit 1 if any failed.
    """
    from hostler.doctor.finding import Level
    from hostler.doctor.here import check_here

    findings = [] if state.local_only else list(check_here(state.context_name))
    if not any(one.level is Level.FAILED for one in findings):
        hosts = state.hosts_or_all
        findings += _ask(state, hosts, doors)
    shown = findings
    if state.output == "table" and not everything:
        shown = [one for one in findings if one.level is not Level.OK]
    if shown:
        show_records([one.as_dict() for one in shown], _COLUMNS, state.output)
    if state.output == "table":
        counts = {level: sum(one.level is level for one in findings) for level in Level}
        click.echo(", ".join(f"{count} {level}" for level, count in counts.items() if count))
    failed = any(one.level is Level.FAILED for one in findings)
    click.get_current_context().exit(1 if failed else 0)


def _ask(state: State, hosts: tuple[Host, ...], doors: tuple[str, ...]) -> list[Finding]:
    from hostler.doctor.door import check_door
    from hostler.doors import doors_of
    from hostler.fanout import fan_out

    context = None if state.local_only else state.context
    places = [(host, domain) for host in hosts for domain in doors_of(host, doors)]
    bundle = _signed(state)

    async def one(place: tuple[Host, str]) -> list[Finding]:
        return await check_door(state.client, context, *place, bundle)

    told = state.run(fan_out(places, lambda place: place[0].name, one, window=state.client.window))
    return [finding for result in told for finding in result.value()]


def _signed(state: State) -> int:
    """The version of the bundle last signed here, 0 where there is no CA or no bundle."""
    from hostler.pki import Authority, PkiError

    if state.local_only or state.context.pki is None:
        return 0
    try:
        bundle = Authority.open(state.context.pki).read_bundle()
    except (PkiError, OSError):
        return 0
    return bundle.version if bundle else 0
