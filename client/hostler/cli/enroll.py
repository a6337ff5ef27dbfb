"""`hostler enroll`: a host that has Debian and sshd becomes one of the fleet."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hostler.cli.asking import ask, must_be_able_to_ask
from hostler.cli.authority import open_authority, telling_failures
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.kinds import Pair
from hostler.cli.output import printable
from hostler.cli.records import show_record
from hostler.cli.ssh_options import OpenSsh, with_ssh
from hostler.core.names import InvalidAddress, check_address, check_dns_name, check_name
from hostler.fleet import PORTS
from hostler.fleet import check_name as check_fleet_name

if TYPE_CHECKING:
    from hostler.enrolment.enrol import Enrolled, Planned
    from hostler.enrolment.plan import Wanted

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


def _domains(_ctx: click.Context, _param: click.Parameter, text: str) -> tuple[str, ...]:
    chosen = {word.strip() for word in text.split(",")}
    if odd := sorted(chosen - set(PORTS)):
        raise click.BadParameter(f"{odd[0]!r} is not one of {', '.join(PORTS)}")
    return tuple(domain for domain in PORTS if domain in chosen)


@click.command(
    epilog=examples(
        "hostler enroll web1 192.0.2.11 --label role=web",
        "hostler --plan enroll web1 192.0.2.11          what would be done",
        "hostler --yes enroll web1.example.net --domains netns,firewall",
        "hostler enroll db1 192.0.2.12 --user debian --sudo --identity ~/.ssh/db",
    )
)
@click.argument("name")
@click.argument("address", required=False)
@click.option(
    "--domains",
    default=",".join(PORTS),
    callback=_domains,
    help="Which doors the host is to have, joined by commas.  [default: all five]",
)
@click.option("--dns", "dns_names", multiple=True, help="A DNS name beside NAME and ADDRESS.")
@click.option("--ip", "ip_addresses", multiple=True, help="An address beside ADDRESS.")
@click.option("--label", "labels", type=Pair(), multiple=True, help="A label in the fleet file.")
@click.option(
    "--packages",
    type=_FOLDER,
    help="Folder of the Debian packages. Default: those of the checkout, built when needed.",
)
@click.option(
    "--replace",
    is_flag=True,
    help="Also where another host had the name, or the host belonged to another CA.",
)
@with_ssh
@pass_state
@telling_failures
def enroll(
    state: State, /, name: str, address: str | None, packages: Path | None, **options: Any
) -> None:
    """Make a host one of the fleet, over ssh: NAME in the fleet, ADDRESS of its doors.

    Copies and installs the packages, has the host make its key, which never leaves it, signs the
    certificate, opens the doors, and asks at each of them who it is. What is there already is left
    as it is; after a cut the same command goes on where it stopped. The ssh key of the host must
    be in your known_hosts.
    """
    from hostler.enrolment.enrol import Enrolment

    open_ssh: OpenSsh = options.pop("open_ssh")
    wanted = _wanted(name, address or name, packages, **options)
    _must_be_ready(state)
    must_be_able_to_ask(state)
    started = time.monotonic()
    say = _Progress(name, quiet=state.output != "table")
    enrolment = Enrolment(
        wanted, open_ssh(wanted.address), open_authority(state, None), state.context, say
    )
    planned = state.run(enrolment.plan())
    if state.plan_only or not state.yes:
        _show_plan(state, name, planned)
    if state.plan_only:
        return
    if planned.steps and not state.yes:
        ask(state, f"Enroll {name}?")
        started = time.monotonic()
    enrolled = state.run(enrolment.carry_out(planned, state.client))
    _show(state, wanted, enrolled, time.monotonic() - started)


def _wanted(
    name: str,
    address: str,
    folder: Path | None,
    *,
    domains: tuple[str, ...],
    dns_names: tuple[str, ...],
    ip_addresses: tuple[str, ...],
    labels: tuple[tuple[str, str], ...],
    replace: bool,
) -> Wanted:
    """What was asked for. Raises InvalidField, ConfigError, PackagesMissing."""
    from hostler.enrolment.plan import Wanted
    from hostler.packages import Package, PackagesMissing, built, files_of

    check_fleet_name(check_name("host", name), "NAME")
    try:
        ip_addresses = (str(check_address(address)), *ip_addresses)
    except InvalidAddress:
        if check_dns_name(address) != name:
            dns_names = (address, *dns_names)
    folder = folder or built()
    if folder is None:
        raise PackagesMissing("give --packages: the folder of the packages that `make deb` made")
    packages = tuple(Package.read(path) for path in files_of(folder, domains))
    names = tuple(check_dns_name(one) for one in dns_names)
    addresses = tuple(str(check_address(one)) for one in ip_addresses)
    return Wanted(name, address, packages, domains, names, addresses, dict(labels), replace=replace)


def _must_be_ready(state: State) -> None:
    """Refuse where this machine itself could not ask the host afterwards."""
    from hostler.doctor.finding import Level
    from hostler.doctor.here import check_here
    from hostler.enrolment.errors import EnrolmentError

    for one in check_here(state.context_name):
        if one.level is Level.FAILED:
            raise EnrolmentError(one.code, one.message, one.advice)


class _Progress:
    """Says each step as it begins, with the time since the first."""

    def __init__(self, name: str, *, quiet: bool) -> None:
        self._name, self._quiet = name, quiet
        self._started: float | None = None

    def __call__(self, words: str) -> None:
        now = time.monotonic()
        self._started = self._started or now
        if not self._quiet:
            click.echo(f"{self._name}: {now - self._started:5.1f} s  {words}", err=True)


def _show_plan(state: State, name: str, planned: Planned) -> None:
    words = [step.describe() for step in planned.steps]
    if state.plan_only and state.output != "table":
        show_record({"host": name, "changed": bool(words), "plan": words}, state.output)
        return
    seen = printable(f"{planned.seen.hostname}, {planned.seen.os_name}")
    click.echo(f"{name} ({seen}):", err=not state.plan_only)
    for line in words or ["nothing is missing"]:
        click.echo(f"  {line}", err=not state.plan_only)


def _show(state: State, wanted: Wanted, enrolled: Enrolled, seconds: float) -> None:
    certificate = enrolled.certificate
    if state.output != "table":
        record = {
            "host": wanted.name,
            "address": wanted.address,
            "changed": enrolled.changed,
            "identity": certificate.identity,
            "serial": certificate.serial,
            "not_after": f"{certificate.not_after:%Y-%m-%dT%H:%M:%SZ}",
            "domains": list(wanted.domains),
            "findings": [one.as_dict() for one in enrolled.findings],
            "seconds": round(seconds, 1),
        }
        show_record(record, state.output)
        return
    count = len(enrolled.findings)
    more = f"; {count} things to know: hostler -H {wanted.name} doctor" if count else ""
    verb = "is enrolled" if enrolled.changed else "was enrolled already"
    click.echo(
        f"{wanted.name} {verb}: {len(wanted.domains)} doors answer as {certificate.identity}, "
        f"in {seconds:.1f} s{more}"
    )
