"""`hostler ca`: the CA in a file to be kept elsewhere, and back; its key under a passphrase."""

from __future__ import annotations

from pathlib import Path

import click

from hostler.cli.authority import (
    AuthorityGroup,
    folder_option,
    key_passphrase,
    open_authority,
    read_passphrase,
)
from hostler.cli.ca_renew import renew
from hostler.cli.ca_rotate import rotate
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.records import show_record
from hostler.config import config_path

_NEW_FILE = click.Path(dir_okay=False, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group(
    cls=AuthorityGroup,
    epilog=examples(
        "hostler ca backup /media/stick/ca.backup",
        "hostler ca restore /media/stick/ca.backup",
        "hostler ca renew",
        "hostler ca rotate",
    ),
)
def ca() -> None:
    """Keep the CA: back it up, restore it where it was lost, lock its key, replace it.

    A CA that is lost without a backup takes the fleet with it: every host has to be enrolled again.
    """


_passphrase_option = click.option(
    "--passphrase-file",
    type=_FILE,
    help="Holds the passphrase in its first line. [default: ask for it]",
)


ca.add_command(renew)
ca.add_command(rotate)


@ca.command(epilog=examples("hostler ca backup ca.backup --passphrase-file ~/.ca-passphrase"))
@click.argument("file", type=_NEW_FILE)
@_passphrase_option
@folder_option
@pass_state
def backup(state: State, file: Path, passphrase_file: Path | None, folder: Path | None) -> None:
    """Write the CA to FILE, encrypted with a passphrase of 12 bytes or more.

    In it are the CA's key, what it has issued and revoked, policies and bundle; no other keys. Who
    has the file and the passphrase owns the fleet. A file that is there is not overwritten.
    """
    from hostler.ca_backup import back_up

    authority = open_authority(state, folder)
    count = back_up(authority, file, read_passphrase(passphrase_file, "Passphrase", twice=True))
    bundle = authority.read_bundle()
    record = {
        "file": str(file),
        "files": count,
        "size_bytes": file.stat().st_size,
        "trust_domain": authority.trust_domain,
        "ca_fingerprint": authority.ca.fingerprint,
        "bundle_version": bundle.version if bundle else 0,
    }
    show_record(record, state.output)


@ca.command(epilog=examples("hostler ca restore ca.backup, then: hostler init"))
@click.argument("file", type=_FILE)
@_passphrase_option
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the CA. Default: `pki` beside the configuration.",
)
@pass_state
def restore(state: State, file: Path, passphrase_file: Path | None, folder: Path | None) -> None:
    """Put the CA of FILE in place where there is none.

    What was granted or revoked after the backup has to be granted and revoked again, and then
    pushed; `hostler init` makes the configuration and your certificate if they were lost, too.
    """
    from hostler.ca_backup import restore as put_back

    folder = (folder or config_path().parent / "pki").absolute()
    passphrase = read_passphrase(passphrase_file, "Passphrase")
    restored = put_back(file, folder, passphrase, key_passphrase)
    record = {
        "folder": str(folder),
        "files": restored.files,
        "trust_domain": restored.authority.trust_domain,
        "ca_fingerprint": restored.authority.ca.fingerprint,
        "bundle_version": restored.bundle_version,
    }
    show_record(record, state.output)
    if state.output == "table":
        click.echo(
            "Next: hostler init, then revoke again what was revoked after the backup, and\n"
            "  hostler -H all policy push"
        )


@ca.command(epilog=examples("hostler ca lock", "hostler ca lock --passphrase-file ~/.ca-key"))
@_passphrase_option
@folder_option
@pass_state
def lock(state: State, passphrase_file: Path | None, folder: Path | None) -> None:
    """Encrypt the CA's key on disk with a passphrase of 12 bytes or more.

    From then on whatever signs asks for it, or reads it from the first line of the file that
    HOSTLER_CA_PASSPHRASE_FILE names. A key that is locked gets the new passphrase. Copies of the
    key that were made before stay as they are, those that a disk keeps of its own accord too.
    """
    authority = open_authority(state, folder)
    authority.encrypt_key(read_passphrase(passphrase_file, "New passphrase", twice=True))
    click.echo(f"{authority.folder / 'ca.key'} is encrypted", err=True)


@ca.command(epilog=examples("hostler ca unlock"))
@folder_option
@pass_state
def unlock(state: State, folder: Path | None) -> None:
    """Have the CA's key on disk in the clear again, readable by you alone."""
    authority = open_authority(state, folder)
    authority.encrypt_key(b"")
    click.echo(f"{authority.folder / 'ca.key'} is not encrypted", err=True)
