"""`hostler storage copy` and `verify`: files of this machine or of hosts, and copies proven."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

import click

from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.output import printable
from hostler.cli.records import show_record
from hostler.cli.storage_copy_hosts import copy_on_hosts, verify_on_host
from hostler.config import HostlerError
from hostler.core.copying.copy import copy as copy_verified
from hostler.core.copying.manifest import BadManifest
from hostler.core.copying.refused import CopyRefused
from hostler.core.copying.verify import load
from hostler.core.copying.verify import verify as compare

_PATH = click.Path(path_type=Path)
_ON_HOST = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]*):(/.*)", re.DOTALL)


def _host_of(place: str) -> tuple[str, str] | None:
    """The host and the path that HOST:/PATH names; None for a path of this machine."""
    named = _ON_HOST.fullmatch(place)
    return (named[1], named[2]) if named else None


@click.command(
    epilog=examples(
        "hostler storage copy disk.img /backup/disk.img",
        "hostler storage copy --manifest /srv/guests /mnt/new/guests",
        "hostler storage copy h1:/srv/guests h1:/mnt/new/guests      a job of h1",
        "hostler storage copy h1:/srv/guests h2:/srv/guests --resume",
    )
)
@click.argument("source")
@click.argument("target")
@click.option("--manifest", is_flag=True, help="Write TARGET.manifest, for `storage verify`.")
@click.option("--resume", is_flag=True, help="From host to host: go on by itself where it is cut.")
@pass_state
def copy(state: State, source: str, target: str, manifest: bool, resume: bool) -> None:
    """Copy a file or a tree, read the copy from the disk and compare.

    SOURCE and TARGET are paths of this machine, or HOST:/PATH of a host, below the folders that
    root has named there for copies; what is copied within a host is a job of it, what is copied
    from host to host goes through this machine. One that was cut off is gone on with by the same
    command.

    Kept: holes, owners, modes, times, xattrs, ACLs, hard links, symlinks, FIFOs, device nodes. The
    TARGET must not exist, and does so only when all of it is there, equal and on the disk.
    """
    if (on := _host_of(source)) or _host_of(target):
        copy_on_hosts(state, on, _host_of(target), manifest, resume)
    try:
        copied = copy_verified(Path(source), Path(target), with_manifest=manifest)
    except CopyRefused as refused:
        message = f"{printable(refused)}; nothing was changed [{refused.reason}]"
        raise HostlerError(message) from refused
    show_record(asdict(copied), state.output)


@click.command(
    epilog=examples(
        "hostler storage verify /backup/disk.img.manifest",
        "hostler storage verify guests.manifest --root /mnt/new/guests",
        "hostler storage verify h1:/mnt/new/guests.manifest          a job of h1",
    )
)
@click.argument("manifest")
@click.option("--root", type=_PATH, help="The copy. Default: beside the manifest, as it names it.")
@click.option(
    "--redundancy", is_flag=True, help="On a host: check md arrays, scrub btrfs below it."
)
@pass_state
def verify(state: State, manifest: str, root: Path | None, redundancy: bool) -> None:
    """Read a copy again and compare it with the MANIFEST that was made of it.

    With --redundancy every copy of the redundant data below it is read, too: jobs of the host.

    Anything that is not as it was is exit status 1.
    """
    if on := _host_of(manifest):
        verify_on_host(state, on, str(root or ""), redundancy)
    if redundancy:
        raise click.UsageError("--redundancy is for copies on hosts, HOST:/PATH")
    try:
        wanted = load(Path(manifest))
        found = compare(wanted, root or Path(manifest).absolute().parent / wanted.root)
    except BadManifest as error:
        raise HostlerError(f"{printable(manifest)}: {error}") from error
    except OSError as error:
        where = error.filename or manifest
        raise HostlerError(f"{printable(where)}: {error.strerror}") from error
    if state.output == "table":
        for one in found:
            click.echo(f"{printable(one.path or wanted.root)}: {one.message} [{one.code}]")
        click.echo(f"{len(wanted.entries)} entries, {len(found)} findings")
    else:
        findings = [asdict(one) for one in found]
        show_record({"entries": len(wanted.entries), "findings": findings}, state.output)
    if found:
        click.get_current_context().exit(1)
