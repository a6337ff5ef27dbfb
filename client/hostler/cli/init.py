"""`hostler init`: this machine becomes a CA, and its user the first who may do everything."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hostler.cli.authority import key_passphrase, telling_failures
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.pki import user_name, write_configuration
from hostler.cli.records import show_record
from hostler.config import ConfigError, config_path, load_context
from hostler.core.names import check_name

if TYPE_CHECKING:
    from hostler.pki import Authority

DEFAULT_TRUST_DOMAIN = "hostler.internal"
ADMINS = "admins"


@click.command(
    epilog=examples(
        "hostler init --trust-domain prod.example.org",
        "hostler init                            again: says what is there, makes what is missing",
    )
)
@click.option(
    "--trust-domain",
    help=f"Begins every identity, and stays: spiffe://TRUST-DOMAIN/user/alice. "
    f"[default: {DEFAULT_TRUST_DOMAIN}]",
)
@click.option("--user", help="Your name in certificates.  [default: your login]")
@pass_state
@telling_failures
def init(state: State, trust_domain: str | None, user: str | None) -> None:
    """Make a CA, a configuration, a fleet without hosts, and a certificate for you, as admin.

    What is there already is never overwritten: a second time only what is missing is made. Back up
    the CA afterwards: who loses it has to enroll every host again.
    """
    from hostler.pki import Authority, PkiExists

    configuration = config_path()
    folder, found_user = _places(state, configuration)
    user = check_name("user", user or found_user)
    made: list[str] = []
    if (folder / "ca.pem").exists():
        authority = Authority.open(folder, key_passphrase)
        if trust_domain not in (None, authority.trust_domain):
            raise PkiExists(
                f"{folder} is a CA already, of the trust domain {authority.trust_domain}; "
                "for another one set HOSTLER_CONFIG to another file"
            )
    else:
        authority = Authority.create(folder, trust_domain or DEFAULT_TRUST_DOMAIN)
        made.append(f"the CA: {authority.folder}")
    made += _make_user(authority, user)
    if write_configuration(configuration, authority, user):
        made.append(f"the configuration: {configuration}, and the fleet beside it")
    record = {
        "trust_domain": authority.trust_domain,
        "ca": str(authority.ca_path),
        "ca_fingerprint": authority.ca.fingerprint,
        "user": user,
        "certificate": str(authority.certificate_path("user", user)),
        "configuration": str(configuration),
        "made": made,
    }
    if state.output != "table":
        show_record(record, state.output)
        return
    for line in made or ["nothing: all was there"]:
        click.echo(f"made {line}")
    click.echo(
        f"The key of the CA is {folder / 'ca.key'}: who has it owns the fleet. Back it up:\n"
        "  hostler ca backup FILE\n"
        "Next, for each host that you reach by ssh as root:\n"
        "  hostler enroll web1 192.0.2.11"
    )


def _places(state: State, configuration: Path) -> tuple[Path, str]:
    """The folder of the CA and the user's name, as the configuration has them if there is one."""
    if not configuration.exists():
        return (configuration.parent / "pki").absolute(), user_name()
    context = load_context(state.context_name)
    if context.pki is None:
        raise ConfigError(
            f"{configuration}: context {context.name!r} is of a CA on another machine; for a CA "
            "here set HOSTLER_CONFIG to another file"
        )
    return context.pki.absolute(), context.certificate.stem


def _make_user(authority: Authority, user: str) -> list[str]:
    """Issue the user's certificate and grant what it needs, unless it has both."""
    made = []
    path = authority.certificate_path("user", user)
    if not path.exists():
        authority.issue_user(user)
        made.append(f"a certificate for {user}, good for 7 days: {path}")
    if authority.grant(user, ADMINS) is not None:
        made.append(f"{user} a member of {ADMINS}: {authority.bundle_path}")
    elif authority.read_bundle() is None:
        authority.write_bundle()
        made.append(f"the bundle: {authority.bundle_path}")
    return made
