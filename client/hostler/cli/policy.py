"""`hostler policy`: who is in which group, what is revoked, and the signed bundle of both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hostler.cli.authority import AuthorityGroup, folder_option, open_authority
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.options import with_doors
from hostler.cli.policy_answers import explain, test
from hostler.cli.policy_starters import starters
from hostler.cli.records import show_record, show_records

if TYPE_CHECKING:
    from hostler.core.bundle import Bundle, Policy
    from hostler.pki import Authority
    from hostler.policy import PolicySource


@click.group(
    cls=AuthorityGroup,
    epilog=examples(
        "hostler policy grant alice operators",
        "hostler policy revoke alice",
        "hostler -H all --yes policy push",
    ),
)
def policy() -> None:
    """Who may do what: groups, revocations and Cedar policies, signed into one bundle.

    The default policies know the groups viewers, operators and admins. A change here signs a new
    bundle; hosts follow it after `hostler policy push`.
    """


policy.add_command(explain)
policy.add_command(starters)
policy.add_command(test)


@policy.command(
    epilog=examples("hostler policy grant alice admins", "hostler policy grant host/web1 viewers")
)
@click.argument("user")
@click.argument("group")
@folder_option
@pass_state
def grant(state: State, user: str, group: str, folder: Path | None) -> None:
    """Put USER into GROUP: alice, host/web1 or a whole identity."""
    authority = open_authority(state, folder)
    _tell(state, authority, authority.grant(user, group))
    if group in _unknown_groups(authority):
        click.secho(
            f"warning: no policy names group {group}: it permits nothing", fg="yellow", err=True
        )


@policy.command(epilog=examples("hostler policy ungrant alice admins"))
@click.argument("user")
@click.argument("group")
@folder_option
@pass_state
def ungrant(state: State, user: str, group: str, folder: Path | None) -> None:
    """Take USER off GROUP."""
    authority = open_authority(state, folder)
    _tell(state, authority, authority.ungrant(user, group))


@policy.command(epilog=examples("hostler policy revoke alice", "hostler policy revoke 4F:9A:…"))
@click.argument("serial_or_name", metavar="SERIAL|NAME")
@folder_option
@pass_state
def revoke(state: State, serial_or_name: str, folder: Path | None) -> None:
    """Revoke a certificate for good: by its serial number, or all of a name that have not ended."""
    authority = open_authority(state, folder)
    _tell(state, authority, authority.revoke(serial_or_name))


@policy.command(epilog=examples("$EDITOR ~/.config/hostler/pki/policy.toml; hostler policy sign"))
@folder_option
@pass_state
def sign(state: State, folder: Path | None) -> None:
    """Sign a new bundle of policy.toml and policies/*.cedar, after editing them by hand."""
    authority = open_authority(state, folder)
    _tell(state, authority, authority.write_bundle())


@policy.command(epilog=examples("hostler policy show", "hostler -o json policy show"))
@folder_option
@pass_state
def show(state: State, folder: Path | None) -> None:
    """Show the bundle last signed."""
    authority = open_authority(state, folder)
    bundle = authority.read_bundle()
    if bundle is None:
        raise click.ClickException("no bundle was signed yet; do it with: hostler policy sign")
    if state.output == "table":
        _show_tables(authority, bundle)
    else:
        show_record(_to_document(authority, bundle), state.output)


@policy.command(epilog=examples("hostler policy check"))
@folder_option
@pass_state
def check(state: State, folder: Path | None) -> None:
    """Check the source of the bundle, and whether the bundle is as the source. Exit 1 if not."""
    from hostler import cedar
    from hostler.policy import collect_policies

    authority = open_authority(state, folder)
    policies = collect_policies(authority.policy_source(), authority.folder)
    problems = []
    if cedar.is_available():
        problems += [*cedar.validate(policies), *cedar.too_wide(policies)]
        if not problems:
            problems += _locked_out(authority.policy_source(), policies)
    problems += [f"no policy names group {group}" for group in _unknown_groups(authority)]
    if not _is_signed(authority, authority.read_bundle()):
        problems.append("the bundle is not as its source: sign it with: hostler policy sign")
    record = {
        "policies": len(policies),
        "checked_by_cedar": cedar.is_available(),
        "problems": problems,
    }
    show_record(record, state.output)
    click.get_current_context().exit(1 if problems else 0)


@policy.command(
    epilog=examples(
        "hostler -H all --yes policy push",
        "hostler -H all --yes --max-failures 100% policy push     past hosts that are down",
        "hostler -H h1 --plan policy push",
    )
)
@click.option(
    "--bundle",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The signed bundle. Default: bundle.json of the CA's folder.",
)
@click.option("--force", is_flag=True, help="Even if nobody could push the next one afterwards.")
@with_doors
@folder_option
@pass_state
def push(
    state: State, file: Path | None, force: bool, doors: tuple[str, ...], folder: Path | None
) -> None:
    """Push the signed bundle to every door of the selected hosts.

    Each daemon verifies the CA's signature itself, and takes a newer version only. A bundle by
    which no user could push the next one is refused: only root at each host could put that right.
    """
    from hostler.cli.asking import refuse_background
    from hostler.core.bundle import MAX_BUNDLE_BYTES
    from hostler.core.files import read_bounded
    from hostler.push import PushBundle

    refuse_background(state)
    file = file or open_authority(state, folder).bundle_path
    if not file.exists():
        raise click.ClickException("no bundle was signed yet; do it with: hostler policy sign")
    try:
        signed = read_bounded(file, MAX_BUNDLE_BYTES)
    except ValueError as e:
        raise click.UsageError(str(e)) from e
    if state.hosts and not force:
        _refuse_lock_out(state, signed)
    state.change(PushBundle(signed, doors), lambda pushed: f"version {pushed.version}")


def _refuse_lock_out(state: State, signed: bytes) -> None:
    """Refuse a bundle by which nobody could push the next one; where Cedar is here to say so."""
    from hostler import cedar
    from hostler.core.bundle import BundleInvalid, verify

    if state.local_only or not cedar.is_available():
        return
    try:
        judge = cedar.Judge(verify(signed, state.context.ca.read_bytes()))
    except (BundleInvalid, ValueError, OSError):
        return  # Daemons say themselves what is wrong with it.
    if closed := judge.locked_out():
        raise click.ClickException(
            f"with this bundle no user could push the next one to {', '.join(closed)}: "
            "hostler policy grant USER admins, or --force"
        )


def _tell(state: State, authority: Authority, bundle: Bundle | None) -> None:
    record: dict[str, Any] = {"changed": bundle is not None}
    in_force = bundle or authority.read_bundle()
    record["version"] = in_force.version if in_force else None
    record["bundle"] = str(authority.bundle_path)
    if state.output != "table":
        show_record(record, state.output)
    elif bundle is None:
        click.echo("nothing to change")
    else:
        click.echo(f"signed version {bundle.version}: {authority.bundle_path}")


def _locked_out(source: PolicySource, policies: Iterable[Policy]) -> Iterator[str]:
    from datetime import UTC, datetime

    from hostler import cedar

    for domain in cedar.Judge(source.bundle(policies, datetime.now(UTC))).locked_out():
        yield f"no user could push the next bundle to {domain}"


def _unknown_groups(authority: Authority) -> list[str]:
    from hostler.policy import collect_policies, unknown_groups

    source = authority.policy_source()
    policies = collect_policies(source, authority.folder)
    return sorted(unknown_groups(source.members(), policies))


def _is_signed(authority: Authority, bundle: Bundle | None) -> bool:
    from hostler.core.bundle import compose
    from hostler.policy import collect_policies

    source = authority.policy_source()
    if bundle is None or bundle.version != source.version:
        return False
    policies = collect_policies(source, authority.folder)
    return compose(source.bundle(policies, bundle.created)) == compose(bundle)


def _to_document(authority: Authority, bundle: Bundle) -> dict[str, Any]:
    return {
        "version": bundle.version,
        "trust_domain": bundle.trust_domain,
        "created": f"{bundle.created:%Y-%m-%dT%H:%M:%SZ}",
        "sha256": bundle.sha256,
        "as_source": _is_signed(authority, bundle),
        "members": {identity: list(groups) for identity, groups in bundle.members.items()},
        "policies": [policy.id for policy in bundle.policies],
        "revoked": [
            {"serial": r.serial, "identity": r.identity, "time": r.time}
            for r in authority.policy_source().revocations()
            if r.serial in bundle.revoked
        ],
    }


def _show_tables(authority: Authority, bundle: Bundle) -> None:
    document = _to_document(authority, bundle)
    members = [{"identity": i, "groups": g} for i, g in document.pop("members").items()]
    revoked = document.pop("revoked")
    show_record(document, "table")
    for title, records, columns in (
        ("members", members, {"IDENTITY": "identity", "GROUPS": "groups"}),
        ("revoked", revoked, {"SERIAL": "serial", "IDENTITY": "identity", "SINCE": "time"}),
    ):
        if records:
            click.echo(f"\n{title}")
            show_records(records, columns, "table")
