"""`hostler storage table backup` and `verify`; and tables as hosts show them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from hostler.api.storage.v1 import partition_pb2 as pb
from hostler.channel import rpc
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.output import Table, printable
from hostler.cli.output import show as show_results
from hostler.config import HostlerError
from hostler.core import files
from hostler.core.partition.backup import (
    MOST_BYTES,
    Backup,
    BackupInvalid,
    differences,
    pack,
    take,
    unpack,
)
from hostler.core.partition.decode import SECTOR_SIZES_BYTES, decode
from hostler.core.partition.source import of_descriptor

_SERVICE = "PartitionService"
_FREE_LEAST_BYTES = 1 << 20
_FILE = click.Path(path_type=Path, dir_okay=False)


def show_of_hosts(state: State, device: str, titles: Sequence[str]) -> NoReturn:
    """Show a device's table of each host; an error in one is exit status 1."""
    method = rpc(pb, _SERVICE, "GetTable")
    results = state.read(method, pb.GetTableRequest(device=device))
    table = Table(tuple(titles), _rows)
    told = (one.result.table.findings for one in results if one.result is not None)
    if not any(each.severity == "error" for findings in told for each in findings):
        state.finish(results, table)
    show_results(results, state.output, table)
    click.get_current_context().exit(1)
    raise AssertionError


def _rows(answer: Any) -> Iterable[Sequence[Any]]:
    table = answer.table
    for one in table.partitions:
        end = one.start_sector + one.size_sectors - 1
        flags = "active" if one.bootable else ""
        sizes = (one.start_sector, end, one.size_sectors, one.size_bytes)
        yield (one.number, *sizes, one.type, one.type_name, printable(one.name), flags)
    for gap in table.gaps:
        if gap.size_bytes >= _FREE_LEAST_BYTES:
            sectors = gap.last_sector - gap.first_sector + 1
            sizes = (gap.first_sector, gap.last_sector, sectors, gap.size_bytes)
            yield ("free", *sizes, "", "", "", "")
    for each in table.findings:
        yield (each.severity, "", "", "", "", each.code, each.message, "", "")
    if table.kind == pb.TABLE_KIND_NONE:
        yield ("none", "", "", "", table.size_bytes, "", "no partition table", "", "")


@click.command(
    epilog=examples(
        "hostler -H h1 storage table backup wwn-0x5000c500a1b2c3d4 sda.table",
        "hostler storage table backup disk.img disk.table",
    )
)
@click.argument("device")
@click.argument("file", type=_FILE)
@pass_state
def backup(state: State, device: str, file: Path) -> None:
    """Keep the bytes of DEVICE's table in FILE, which must not be there yet.

    That is the master boot record, the extended ones, and both headers of a GPT with their entries,
    with a checksum; nothing of what is in partitions, and no boot loader outside of these.
    """
    kept = found(state, device)
    try:
        files.write_new(file, pack(kept), mode=0o600)
    except OSError as error:
        raise HostlerError(f"{file}: {error.strerror}") from error
    table = kept.table
    click.echo(f"{len(table.partitions)} partitions of {device} are in {file}")
    if any(one.severity == "error" for one in table.findings):
        click.echo("The table is damaged, and so is its backup: see 'storage table'.", err=True)


@click.command(
    epilog=examples(
        "hostler -H h1 storage table verify sda.table wwn-0x5000c500a1b2c3d4",
        "hostler storage table verify disk.table disk.img",
    )
)
@click.argument("file", type=_FILE)
@click.argument("device")
@pass_state
def verify(state: State, file: Path, device: str) -> None:
    """Compare the table of DEVICE with the backup in FILE. A difference is exit status 1."""
    told = differences(unpacked(read(file)), found(state, device))
    for words in told:
        click.echo(printable(words))
    if told:
        click.get_current_context().exit(1)
    click.echo(f"{device} has the table of {file}")


def read(file: Path) -> bytes:
    """Read a file of a backup. Raises HostlerError."""
    try:
        return files.read_bounded(file, MOST_BYTES)
    except OSError as error:
        raise HostlerError(f"{file}: {error.strerror}") from error


def unpacked(content: bytes) -> Backup:
    """Read a backup. Raises HostlerError."""
    try:
        return unpack(content)
    except BackupInvalid as error:
        raise HostlerError(str(error)) from error


def found(state: State, device: str) -> Backup:
    """The table of a device: of the one selected host, or of this machine. Raises HostlerError."""
    if not state.selectors:
        return _here(Path(device))
    state.one_host()
    method = rpc(pb, _SERVICE, "BackupTable")
    results = state.read(method, pb.BackupTableRequest(device=device))
    (result,) = results
    if result.result is None:
        state.finish(results)
    return unpacked(result.result.backup)


def _here(path: Path) -> Backup:
    try:
        with path.open("rb") as opened:
            source = of_descriptor(opened.fileno())
            size = _sector_bytes(path) or decode(source).sector_bytes
            return take(source, size, {"id": str(path)})
    except OSError as error:
        raise HostlerError(f"{path}: {error.strerror}") from error


def _sector_bytes(path: Path) -> int | None:
    """The logical sector of a device; None for a file, where the table may show it."""
    if not path.is_block_device():
        return None
    number = path.stat().st_rdev
    folder = Path("/sys/dev/block") / f"{os.major(number)}:{os.minor(number)}"
    for queue in (folder / "queue", folder / "../queue"):
        try:
            size = int((queue / "logical_block_size").read_text())
        except OSError:
            continue
        return size if size in SECTOR_SIZES_BYTES else None
    return None
