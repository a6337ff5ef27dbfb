"""`hostler retire`: a host is taken out of the fleet for good."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hostler.cli.asking import ask, must_be_able_to_ask
from hostler.cli.authority import open_authority, telling_failures
from hostler.cli.context import State, command_line, pass_state
from hostler.cli.examples import examples
from hostler.cli.records import show_record
from hostler.cli.ssh_options import OpenSsh, with_ssh

if TYPE_CHECKING:
    from hostler.enrolment.retire import Retirement
    from hostler.fleet import Host
    from hostler.pki import Authority
    from hostler.rollout import Rolled


@click.command(
    epilog=examples(
        "hostler --plan retire web1 --purge",
        "hostler retire web1 --purge             by ssh, remove what Hostler has there, too",
        "hostler --yes retire web1               one that is gone, or was stolen",
    )
)
@click.argument("name")
@click.option("--purge", is_flag=True, help="Remove Hostler from the host, with key and state.")
@with_ssh
@pass_state
@telling_failures
def retire(state: State, name: str, purge: bool, open_ssh: OpenSsh) -> None:
    """Revoke a host's certificates, tell all other hosts, and take it out of the fleet.

    That cannot be taken back; the host can be enrolled again, with another key. Namespaces, rules
    and mounts that Hostler has made there stay. What is cut off is gone on with by the same
    command; hosts that were not reached are named, with what to do. Exit 1 if there were any.
    """
    from hostler.enrolment.errors import EnrolmentError
    from hostler.enrolment.retire import plan
    from hostler.enrolment.retire import purge as purge_host
    from hostler.fleet_file import remove_host

    must_be_able_to_ask(state)
    authority = open_authority(state, None)
    planned = plan(authority, state.fleet, name)
    if purge and planned.host is None:
        words = f"{name} is not in the fleet: where it is is not known"
        advice = f"hostler fleet add {name} ADDRESS, then the same command again"
        raise EnrolmentError("NOT_IN_FLEET", words, advice)
    _show_plan(state, planned, purge=purge)
    if state.plan_only:
        return
    ask(state, f"Retire {name}, for good?")
    if planned.revoking:
        authority.revoke(f"host/{name}")
    missed = _push(state, authority, planned.others)
    if purge and planned.host is not None:
        state.run(purge_host(name, open_ssh(planned.host.address)))
    if planned.host is not None:
        remove_host(state.context.fleet, name)
    _finish(state, planned, missed, purge=purge)


def _push(state: State, authority: Authority, others: tuple[Host, ...]) -> list[str]:
    """Put the bundle in force at the other hosts; answers whom that has missed."""
    from hostler.cli import rolling
    from hostler.core.bundle import MAX_BUNDLE_BYTES
    from hostler.core.files import read_bounded
    from hostler.enrolment.retire import EVERYWHERE
    from hostler.push import PushBundle

    if not others:
        return []
    change = PushBundle(read_bounded(authority.bundle_path, MAX_BUNDLE_BYTES))
    client = state.client
    run = client.new_run(command_line(), ())
    plans = state.run(client.plan(change, others, options=EVERYWHERE, run=run))
    rolled: Rolled = rolling.roll(
        state,
        lambda halt, say: client.roll_out(
            change, others, plans, options=EVERYWHERE, run=run, halt=halt, say=say
        ),
    )
    for result in rolled.results:
        if result.error is not None:
            click.echo(f"{result.host}: {result.error}", err=True)
    return [result.host for result in rolled.results if not result.ok]


def _show_plan(state: State, planned: Retirement, *, purge: bool) -> None:
    words = list(planned.describe(purge=purge))
    if state.plan_only and state.output != "table":
        show_record({"host": planned.name, "plan": words}, state.output)
        return
    if state.yes:
        return
    for line in (f"{planned.name}:", *(f"  {word}" for word in words)):
        click.echo(line, err=not state.plan_only)


def _finish(state: State, planned: Retirement, missed: list[str], *, purge: bool) -> None:
    record = {
        "host": planned.name,
        "revoked": [one.certificate.serial for one in planned.revoking],
        "told": [one.name for one in planned.others if one.name not in missed],
        "missed": missed,
        "purged": purge,
    }
    if state.output == "table":
        told = len(planned.others) - len(missed)
        gone = ", and nothing of Hostler is left on it" if purge else ""
        click.echo(f"{planned.name} is retired; {told} hosts refuse it{gone}")
    else:
        show_record(record, state.output)
    if missed:
        selected = " ".join(f"-H {name}" for name in missed)
        words = f"Not told: {', '.join(missed)}. Once they can be reached:"
        click.echo(f"{words} hostler {selected} policy push", err=True)
        click.get_current_context().exit(1)
