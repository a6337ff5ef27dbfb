"""`hostler storage table`: a partition table of hosts, or of a dump, an image or a device here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.lazy import LazyGroup
from hostler.cli.output import print_table
from hostler.config import HostlerError
from hostler.core.partition.decode import SECTOR_SIZES_BYTES, decode
from hostler.core.partition.model import Chs, GptHeader, Partition, Table
from hostler.core.partition.source import of_descriptor

_TITLES = ("PARTITION", "START", "END", "SECTORS", "BYTES", "TYPE", "", "NAME", "FLAGS")


# Name, where it is, and what the list of commands says about it.
_CHANGES = "hostler.cli.storage_table_change"
_COMMANDS: Mapping[str, tuple[str, str]] = {
    "apply": (f"{_CHANGES}:apply", "Add, delete, resize and name partitions."),
    "backup": ("hostler.cli.storage_table_backup:backup", "Keep the bytes of a table in a file."),
    "copy": (f"{_CHANGES}:copy", "Give a replacement disk the table of another one."),
    "restore": (f"{_CHANGES}:restore", "Put a backup back."),
    "show": ("hostler.cli.storage_table:show", "Show a table; the default."),
    "verify": ("hostler.cli.storage_table_backup:verify", "Compare a table with a backup."),
}


class _ShowByDefault(LazyGroup):
    """A group whose command need not be named where it is `show`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `show` in front of what is no command."""
        if args and args[0] not in self.lazy and args[0] not in ctx.help_option_names:
            args.insert(0, "show")
        return super().parse_args(ctx, args)


@click.group(
    cls=_ShowByDefault,
    lazy=_COMMANDS,
    epilog=examples(
        "hostler -H h1 storage table wwn-0x5000c500a1b2c3d4",
        "hostler storage table disk.img",
        "hostler -H h1 storage table backup wwn-0x5000c500a1b2c3d4 sda.table",
        "hostler -H h1 --plan storage table copy NEW --from OLD",
    ),
)
def table() -> None:
    """Partition tables: shown, backed up, compared, put back, copied, changed.

    With -H a DEVICE is one of these hosts, and is called as `hostler storage show` does; without,
    it is a path on this machine.
    """


@click.command(
    epilog=examples(
        "hostler -H h1 storage table wwn-0x5000c500a1b2c3d4",
        "hostler storage table disk.img",
        "hostler storage table --dump first-sector.bin",
        "hostler -o json storage table /dev/sda",
    )
)
@click.argument("device")
@click.option(
    "--sector-bytes",
    type=click.Choice([str(size) for size in SECTOR_SIZES_BYTES]),
    help="The logical sector. Default: where the GPT shows it, else 512.",
)
@click.option(
    "--dump",
    "is_dump",
    is_flag=True,
    help="DEVICE is the beginning of one: say nothing about what lies beyond its end.",
)
@pass_state
def show(state: State, device: str, sector_bytes: str | None, is_dump: bool) -> None:
    """Read the MBR or GPT of DEVICE, and say what is wrong with it.

    START, END and SECTORS are in logical sectors. An error in the table is exit status 1.
    """
    if state.selectors:
        if sector_bytes or is_dump:
            raise click.UsageError("a host knows its sectors, and where its devices end")
        from hostler.cli.storage_table_backup import show_of_hosts

        show_of_hosts(state, device, _TITLES)
    file = Path(device)
    try:
        with file.open("rb") as opened:
            source = of_descriptor(opened.fileno())
            found = decode(source, int(sector_bytes) if sector_bytes else None, whole=not is_dump)
    except OSError as error:
        raise HostlerError(f"{file}: {error.strerror}") from error
    if state.output == "table":
        _show(found)
    else:
        _dump(found, state.output)
    if any(one.severity == "error" for one in found.findings):
        click.get_current_context().exit(1)


def _dump(found: Table, output: str) -> None:
    plain = {**asdict(found), "partitions": [_plain(one) for one in found.partitions]}
    if output == "yaml":
        import yaml

        click.echo(yaml.safe_dump(json.loads(json.dumps(plain)), sort_keys=False), nl=False)
    else:
        click.echo(json.dumps(plain, indent=2 if output == "json" else None))


def _plain(one: Partition) -> dict[str, Any]:
    return {**asdict(one), "start_bytes": one.start_bytes, "size_bytes": one.size_bytes}


def _show(found: Table) -> None:
    for line in _heading(found):
        click.echo(line)
    if found.partitions:
        click.echo()
        print_table(_TITLES, (_row(one) for one in found.partitions))
    free = [gap for gap in found.gaps if gap.size_sectors * found.sector_bytes >= 1 << 20]
    for gap in free:
        size = gap.size_sectors * found.sector_bytes
        click.echo(f"free: {gap.first_sector} to {gap.last_sector}, {size} bytes")
    for one in found.findings:
        click.echo(f"{one.severity}: {one.message} [{one.code}]")


def _heading(found: Table) -> Iterable[str]:
    kind = {"gpt": "GPT", "mbr": "MBR", "none": "no partition table"}[found.kind]
    kind += ", hybrid" if found.is_hybrid else ""
    yield f"{kind}, {found.size_bytes} bytes, sectors of {found.sector_bytes} bytes"
    if found.kind == "gpt":
        for which, header in (("primary", found.primary), ("backup", found.backup)):
            yield f"{which} header: {_header(header)}"
    if found.mbr is not None:
        code = "with" if found.mbr.boot_code else "without"
        yield f"MBR: signature {found.mbr.signature}, {code} boot code"


def _header(header: GptHeader | None) -> str:
    if header is None:
        return "not found"
    good = "good" if header.is_good else "damaged"
    entries = f"{header.entry_count} entries of {header.entry_bytes} bytes"
    return f"{good}, in sector {header.sector}, disk {header.disk_uuid}, {entries}"


def _row(one: Partition) -> tuple[Any, ...]:
    ends = f"{_chs(one.start_chs)} {_chs(one.end_chs)}".strip()
    flags = "active" if one.active else ""
    return (
        one.number,
        one.start_sector,
        one.end_sector,
        one.size_sectors,
        one.size_bytes,
        one.type,
        one.type_name,
        one.name or ends,
        flags,
    )


def _chs(address: Chs | None) -> str:
    return f"{address.cylinder}/{address.head}/{address.sector}" if address else ""
