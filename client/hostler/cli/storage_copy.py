"""`hostler storage copy` and `verify`: files of this machine, copied so that the copy is proven."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.output import printable
from hostler.cli.records import show_record
from hostler.config import HostlerError
from hostler.core.copying.copy import copy as copy_verified
from hostler.core.copying.manifest import BadManifest
from hostler.core.copying.refused import CopyRefused
from hostler.core.copying.verify import load
from hostler.core.copying.verify import verify as compare

_PATH = click.Path(path_type=Path)


@click.command(
    epilog=examples(
        "hostler storage copy disk.img /backup/disk.img",
        "hostler storage copy --manifest /srv/guests /mnt/new/guests",
    )
)
@click.argument("source", type=_PATH)
@click.argument("target", type=_PATH)
@click.option("--manifest", is_flag=True, help="Write TARGET.manifest, for `storage verify`.")
@pass_state
def copy(state: State, source: Path, target: Path, manifest: bool) -> None:
    """Copy a file or a tree on this machine, read the copy from the disk and compare.

    Kept: holes, owners, modes, times, xattrs, ACLs, hard links, symlinks, FIFOs, device nodes. The
    TARGET must not exist, and does so only when all of it is there, equal and on the disk.
    """
    try:
        copied = copy_verified(source, target, with_manifest=manifest)
    except CopyRefused as refused:
        message = f"{printable(refused)}; nothing was changed [{refused.reason}]"
        raise HostlerError(message) from refused
    show_record(asdict(copied), state.output)


@click.command(
    epilog=examples(
        "hostler storage verify /backup/disk.img.manifest",
        "hostler storage verify guests.manifest --root /mnt/new/guests",
    )
)
@click.argument("manifest", type=_PATH)
@click.option("--root", type=_PATH, help="The copy. Default: beside the manifest, as it names it.")
@pass_state
def verify(state: State, manifest: Path, root: Path | None) -> None:
    """Read a copy again and compare it with the MANIFEST that was made of it.

    Anything that is not as it was is exit status 1.
    """
    try:
        wanted = load(manifest)
        found = compare(wanted, root or manifest.absolute().parent / wanted.root)
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
