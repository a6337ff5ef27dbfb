"""`hostler ca renew`: certificates of hosts and users, before they end."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from hostler.cli.asking import ask, must_be_able_to_ask
from hostler.cli.authority import folder_option, open_authority
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.records import show_records
from hostler.cli.ssh_options import OpenSsh, with_fleet_ssh

if TYPE_CHECKING:
    from hostler.enrolment.renew import Renewal
    from hostler.pki import Authority

_COLUMNS = {"NAME": "name", "CERTIFICATE": "fate", "UNTIL": "until", "PROBLEM": "problem"}


@click.command(
    epilog=examples(
        "hostler --plan ca renew                 what is due",
        "hostler --yes ca renew                  by a timer: systemctl --user enable --now"
        " hostler-renew.timer",
        "hostler -H web1 ca renew --force        at once",
    )
)
@click.option("--force", is_flag=True, help="Renew what is not due, too.")
@folder_option
@with_fleet_ssh
@pass_state
def renew(state: State, force: bool, folder: Path | None, open_ssh: OpenSsh) -> None:
    """Renew certificates that have lived for two thirds of their time, of hosts and users here.

    Of the selected hosts, or all. Each makes a new key, by ssh as `hostler enroll`; what is then
    shown at every one of its doors has to be the new certificate, else the host takes up the one
    before. One host goes first. Users' pairs are replaced in their places in the CA's folder, when
    no host is selected. Exit 1 if anything has failed.
    """
    from hostler.enrolment.certify import Certifying
    from hostler.enrolment.renew import Fate, Renewing

    must_be_able_to_ask(state)
    authority = open_authority(state, folder)
    hosts = tuple(host for host in state.hosts_or_all if not host.is_local)

    def say(words: str) -> None:
        if state.output == "table":
            click.echo(words, err=True)

    certifying = Certifying(authority, authority.ca_pem)
    renewing = Renewing(certifying, state.context, open_ssh, say, force=force)
    users = [] if state.selectors else _users(authority, force=force)
    looked: list[Renewal] = [*users, *state.run(renewing.look(hosts))]
    due = sum(each.fate is Fate.DUE for each in looked)
    if state.plan_only or not due:
        _finish(state, looked)
    if not state.yes:
        _show(state, looked)
    ask(state, f"Renew {due} certificate{'s' if due != 1 else ''}?")
    done = [_renewed(authority, each) if each.fate is Fate.DUE else each for each in users]
    _finish(state, [*done, *state.run(renewing.renew(hosts))])


def _users(authority: Authority, *, force: bool) -> list[Renewal]:
    """The users whose keys are here."""
    from hostler.enrolment.renew import Fate, Renewal

    now = datetime.now(UTC)
    found = []
    for entry in authority.list():
        told = entry.certificate
        if told.kind != "user" or entry.state not in ("current", "expired") or entry.path is None:
            continue
        is_newest = entry.path == authority.certificate_path("user", told.name)
        if is_newest and entry.path.with_suffix(".key").exists():
            fate = Fate.DUE if force or told.renew_time <= now else Fate.GOOD
            found.append(Renewal(f"user/{told.name}", fate, told.not_after))
    return found


def _renewed(authority: Authority, one: Renewal) -> Renewal:
    from hostler.enrolment.renew import Fate, Renewal

    entry = authority.issue_user(one.name.removeprefix("user/"), renew=True)
    return Renewal(one.name, Fate.RENEWED, entry.certificate.not_after)


def _show(state: State, renewals: Sequence[Renewal]) -> None:
    records = [
        {
            "name": each.name,
            "fate": str(each.fate),
            "until": f"{each.until:%Y-%m-%dT%H:%M:%SZ}" if each.until else "",
            "problem": each.problem,
        }
        for each in renewals
    ]
    show_records(records, _COLUMNS, state.output)


def _finish(state: State, renewals: Sequence[Renewal]) -> NoReturn:
    from hostler.enrolment.renew import Fate

    _show(state, renewals)
    failed = any(each.fate is Fate.FAILED for each in renewals)
    click.get_current_context().exit(1 if failed else 0)
