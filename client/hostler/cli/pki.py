"""`hostler pki`: the internal CA, and the certificates of hosts and users."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hostler.cli.authority import AuthorityGroup, folder_option, open_authority
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.records import show_record, show_records
from hostler.config import config_path
from hostler.core.names import InvalidName, check_name

if TYPE_CHECKING:
    from hostler.core.certificates import Certificate
    from hostler.pki import Authority, Entry

CONTEXT = "default"

_COLUMNS = {
    "KIND": "kind",
    "NAME": "name",
    "STATE": "state",
    "ENDS": "not_after",
    "SERIAL": "serial",
    "DNS NAMES": "dns_names",
    "ADDRESSES": "ip_addresses",
}


@click.group(
    cls=AuthorityGroup,
    epilog=examples(
        "hostler pki init --trust-domain prod.example.org",
        "hostler pki issue host web1 --dns web1.example.org --ip 10.0.0.11",
        "hostler pki issue user alice",
        "hostler -o json pki list",
    ),
)
def pki() -> None:
    """The internal CA: certificates say who a host or a user is.

    What they may do is said by `hostler policy`. Keys are made here, readable by you alone, and
    never overwritten.
    """


@pki.command(epilog=examples("hostler pki init --trust-domain prod.example.org"))
@click.option(
    "--trust-domain",
    default="hostler.internal",
    show_default=True,
    help="Begins every identity: spiffe://TRUST-DOMAIN/user/alice.",
)
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the CA. Default: `pki` beside the configuration.",
)
@pass_state
def init(state: State, trust_domain: str, folder: Path | None) -> None:
    """Make a CA, and a configuration and an empty fleet if there are none."""
    from hostler.pki import Authority

    configuration = config_path()
    authority = Authority.create((folder or configuration.parent / "pki").absolute(), trust_domain)
    authority.write_bundle()
    user = user_name()
    made = write_configuration(configuration, authority, user)
    record = {
        "folder": str(authority.folder),
        "trust_domain": trust_domain,
        "not_after": _moment(authority.ca.not_after),
        "configuration": str(configuration),
    }
    show_record(record, state.output)
    if state.output == "table":
        click.echo(_next_steps(user, configuration, authority, made=made), nl=False)


@pki.group()
def issue() -> None:
    """Issue certificates."""


def _renew_option(command: Any) -> Any:
    return click.option(
        "--renew", is_flag=True, help="Put the pair that is there into archive/ and make a new one."
    )(command)


@issue.command(
    name="host",
    epilog=examples(
        "hostler pki issue host web1 --dns web1.example.org --ip 10.0.0.11 --ip fd00::11",
        "hostler pki issue host web1 --renew        names and addresses stay",
    ),
)
@click.argument("name")
@click.option("--dns", "dns_names", multiple=True, help="A DNS name beside NAME itself.")
@click.option("--ip", "ip_addresses", multiple=True, help="An IPv4 or IPv6 address.")
@_renew_option
@folder_option
@pass_state
def issue_host(
    state: State,
    name: str,
    dns_names: tuple[str, ...],
    ip_addresses: tuple[str, ...],
    renew: bool,
    folder: Path | None,
) -> None:
    """Issue a host's certificate, good for 30 days.

    NAME is that of the host in the fleet; clients expect it in the certificate.
    """
    authority = open_authority(state, folder)
    entry = authority.issue_host(name, dns_names, ip_addresses, renew=renew)
    show_record(to_record(entry), state.output)


@issue.command(name="user", epilog=examples("hostler pki issue user alice"))
@click.argument("name")
@_renew_option
@folder_option
@pass_state
def issue_user(state: State, name: str, renew: bool, folder: Path | None) -> None:
    """Issue a user's certificate, good for 7 days."""
    entry = open_authority(state, folder).issue_user(name, renew=renew)
    show_record(to_record(entry), state.output)


@pki.command(
    name="list", epilog=examples("hostler pki list", "hostler -o json pki list --state current")
)
@click.option(
    "--state",
    "wanted",
    type=click.Choice(["current", "replaced", "absent", "expired", "revoked"]),
    multiple=True,
    help="Only these.",
)
@folder_option
@pass_state
def list_certificates(state: State, wanted: tuple[str, ...], folder: Path | None) -> None:
    """List all that was ever issued, oldest first, with what has become of it."""
    entries = open_authority(state, folder).list()
    records = [to_record(e) for e in entries if not wanted or e.state in wanted]
    show_records(records, _COLUMNS, state.output)


@pki.command(
    epilog=examples("hostler pki show", "hostler pki show host/web1", "hostler pki show 4F:9A:…")
)
@click.argument("name_or_serial", metavar="[NAME|SERIAL]", required=False)
@folder_option
@pass_state
def show(state: State, name_or_serial: str | None, folder: Path | None) -> None:
    """Show the last certificate of a name, or one by its serial number; else the CA's."""
    authority = open_authority(state, folder)
    if name_or_serial is None:
        record = _describe(authority.ca) | {"path": str(authority.ca_path)}
    else:
        record = to_record(authority.show(name_or_serial))
    show_record(record, state.output)


def to_record(entry: Entry) -> dict[str, Any]:
    """Answer an issued certificate as it is printed."""
    path = str(entry.path) if entry.path else None
    return _describe(entry.certificate) | {"state": entry.state, "path": path}


def _describe(certificate: Certificate) -> dict[str, Any]:
    return {
        "kind": certificate.kind,
        "name": certificate.name,
        "identity": certificate.identity,
        "serial": certificate.serial,
        "not_before": _moment(certificate.not_before),
        "not_after": _moment(certificate.not_after),
        "dns_names": list(certificate.dns_names),
        "ip_addresses": list(certificate.ip_addresses),
        "fingerprint": certificate.fingerprint,
    }


def _moment(moment: Any) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def user_name() -> str:
    """The login name if it can be in a certificate, else "admin"."""
    try:
        name = check_name("user", getpass.getuser())
    except (InvalidName, KeyError, OSError):
        return "admin"
    return "admin" if name == "root" else name


def write_configuration(path: Path, authority: Authority, user: str) -> bool:
    """Write configuration and fleet beside each other, unless they are there already."""
    import tomlkit

    from hostler.core import files

    def relative(target: Path) -> str:
        base = path.absolute().parent
        return str(target.relative_to(base) if target.is_relative_to(base) else target)

    certificate = authority.certificate_path("user", user)
    context = {
        "trust_domain": authority.trust_domain,
        "ca": relative(authority.ca_path),
        "certificate": relative(certificate),
        "key": relative(certificate.with_suffix(".key")),
        "fleet": "fleet.toml",
        "pki": relative(authority.folder),
    }
    document = {"current": CONTEXT, "contexts": {CONTEXT: context}}
    fleet = '# [hosts.web1]\n# address = "10.0.0.11"\n# labels = {role = "web"}\n'
    if path.exists():
        return False
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    files.write_new(path, tomlkit.dumps(document).encode(), mode=0o600)
    if not (path.parent / "fleet.toml").exists():
        files.write_new(path.parent / "fleet.toml", fleet.encode(), mode=0o644)
    return True


def _next_steps(user: str, configuration: Path, authority: Authority, *, made: bool) -> str:
    first = (
        f"Written: {configuration} and the fleet beside it."
        if made
        else f"{configuration} was there and stays; in the context that is to use this CA, set\n"
        f'  ca = "{authority.ca_path}"\n  pki = "{authority.folder}"'
    )
    return f"""
{first}
Next:
  hostler pki issue user {user}
  hostler policy grant {user} admins
  hostler pki issue host web1 --ip 10.0.0.11      for each host, under its name in the fleet
"""
