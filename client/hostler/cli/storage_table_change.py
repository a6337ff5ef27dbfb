"""`hostler storage table apply`, `restore` and `copy`: partition tables of hosts, changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from hostler.api.storage.v1 import partition_pb2 as pb
from hostler.channel import rpc
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.kinds import Bytes
from hostler.cli.storage_table_backup import read, unpacked
from hostler.desired import load_message
from hostler.plans import RpcChange

_SERVICE = "PartitionService"
_FILE = click.Path(path_type=Path, dir_okay=False)
_TEXTS = ("type", "name", "uuid")
_TOML = examples(
    'kind = "gpt"',
    "[[partitions]]",
    "number = 1",
    "size_bytes = 536_870_912",
    'type = "efi"',
    "[[partitions]]                  # without size_bytes: the rest of the gap",
    "number = 2",
    'type = "linux"                  # or swap, lvm, raid, home, extended, 0x83, a GUID',
    'name = "root"',
    title="A file is a whole table, in the names of the API:",
)


def _size(said: str) -> int:
    return 0 if said == "max" else Bytes().convert(said, None, None)


def _added(said: str) -> Any:
    """A partition by words such as size=8GiB,type=linux,name=root,bootable."""
    wanted = pb.WantedPartition()
    for word in said.split(","):
        key, equals, value = word.partition("=")
        if key in ("size", "start") and equals:
            setattr(wanted, f"{key}_bytes", _size(value))
        elif key == "number" and value.isascii() and value.isdigit() and len(value) < 6:
            wanted.number = int(value)
        elif key in _TEXTS and equals:
            setattr(wanted, key, value)
        elif word == "bootable":
            wanted.bootable = True
        else:
            known = "number, start, size, type, name, uuid, bootable"
            raise click.UsageError(f"--add {said}: {word!r} is none of {known}")
    return wanted


def _number(said: str) -> int:
    if not (said.isascii() and said.isdigit()) or len(said) > 5:
        raise click.UsageError(f"{said!r} is no number of a partition")
    return int(said)


class _Edits:
    """The edits that options ask for: one for each partition that is changed."""

    def __init__(self) -> None:
        self._updates: dict[int, Any] = {}

    def update(self, options: tuple[str, ...], put: Callable[[Any, str], None]) -> None:
        """Take options such as NUMBER=VALUE."""
        for said in options:
            number, equals, value = said.partition("=")
            if not equals:
                raise click.UsageError(f"{said!r} is not NUMBER=VALUE")
            put(self.of(_number(number)), value)

    def of(self, number: int) -> Any:
        """What is wanted of the partition of a number."""
        return self._updates.setdefault(number, pb.WantedPartition(number=number))

    def all(self, deleted: tuple[int, ...], added: tuple[str, ...]) -> list[Any]:
        """All of them: deletions first, so that others have their room."""
        return [
            *(pb.TableEdit(delete=number) for number in deleted),
            *(pb.TableEdit(update=one) for one in self._updates.values()),
            *(pb.TableEdit(add=_added(said)) for said in added),
        ]


def _resize(one: Any, said: str) -> None:
    one.size_bytes = _size(said)


def _set(field: str) -> Callable[[Any, str], None]:
    return lambda one, said: setattr(one, field, said)


@click.command(
    epilog=_TOML
    + "\n\n"
    + examples(
        "hostler -H h1 --plan storage table apply wwn-0x5000c500a1b2c3d4 -f disk.toml",
        "hostler -H h1 storage table apply ID --delete 3 --resize 2=max",
        "hostler -H h1 storage table apply ID --add size=8GiB,type=swap,name=swap",
        "hostler -H h1 storage table apply ID --name 2=root --type 2=lvm --bootable 1",
    )
)
@click.argument("device")
@click.option("-f", "--file", type=_FILE, help="The whole table as TOML; others go.")
@click.option("--add", multiple=True, metavar="SIZE…", help="As size=8GiB,type=linux,name=root.")
@click.option("--delete", multiple=True, type=int, metavar="NUMBER", help="Delete a partition.")
@click.option("--resize", multiple=True, metavar="NUMBER=SIZE", help="To a size, or to max.")
@click.option("--type", "types", multiple=True, metavar="NUMBER=TYPE", help="Set the type.")
@click.option("--name", "names", multiple=True, metavar="NUMBER=NAME", help="Set the name.")
@click.option("--bootable", multiple=True, type=int, metavar="NUMBER", help="Boot from it.")
@click.option("--not-bootable", multiple=True, type=int, metavar="NUMBER", help="Do not.")
@pass_state
def apply(
    state: State,
    /,
    device: str,
    file: Path | None,
    add: tuple[str, ...],
    delete: tuple[int, ...],
    resize: tuple[str, ...],
    types: tuple[str, ...],
    names: tuple[str, ...],
    **flags: tuple[int, ...],
) -> None:
    """Change the table of DEVICE: by a file that has all of it, or by edits.

    What is in a partition stays as long as the partition begins where it did. Partitions that stay
    may be in use; those that go, shrink or get another number may not. See --plan first.
    """
    edits = _Edits()
    edits.update(resize, _resize)
    edits.update(types, _set("type"))
    edits.update(names, _set("name"))
    _bootable(edits, flags)
    asked = edits.all(delete, add)
    if (file is None) == (not asked):
        raise click.UsageError("give either a file, or what to add, delete or change")
    request = pb.ApplyTableRequest(device=device, edits=asked)
    if file is not None:
        request.table.CopyFrom(load_message(file, pb.WantedTable()))
    _change(state, "ApplyTable", request)


def _bootable(edits: _Edits, flags: Mapping[str, tuple[int, ...]]) -> None:
    for word, value in (("bootable", True), ("not_bootable", False)):
        for number in flags[word]:
            edits.of(number).bootable = value


@click.command(
    epilog=examples("hostler -H h1 storage table restore sda.table wwn-0x5000c500a1b2c3d4")
)
@click.argument("file", type=_FILE)
@click.argument("device")
@pass_state
def restore(state: State, file: Path, device: str) -> None:
    """Put the backup in FILE back on DEVICE, byte for byte; the disk is as large as it was then."""
    content = read(file)
    unpacked(content)
    _change(state, "RestoreTable", pb.RestoreTableRequest(device=device, backup=content))


@click.command(
    epilog=examples(
        "hostler -H h1 storage table copy wwn-0x5000c500a1b2c3ff --from wwn-0x5000c500a1b2c3d4",
        "hostler -H h2 storage table copy ID --from-file sda.table",
    )
)
@click.argument("device")
@click.option("--from", "source", help="The disk of the same host that has the table.")
@click.option("--from-file", type=_FILE, help="A backup of it.")
@click.option("--keep-ids", is_flag=True, help="Keep all GUIDs: only if the original is gone.")
@pass_state
def copy(
    state: State, device: str, source: str | None, from_file: Path | None, keep_ids: bool
) -> None:
    """Give DEVICE, a replacement disk, the table of another one, with new GUIDs.

    It may be larger. A smaller one, or one with other sectors, is refused if the partitions do not
    fit.
    """
    if (source is None) == (from_file is None):
        raise click.UsageError("give either --from or --from-file")
    request = pb.CopyTableRequest(device=device, keep_ids=keep_ids)
    if from_file is not None:
        request.backup = read(from_file)
        unpacked(request.backup)
    else:
        request.source_device = source or ""
    _change(state, "CopyTable", request)


def _change(state: State, method: str, request: Any) -> None:
    state.change(RpcChange(rpc(pb, _SERVICE, method), request), _described)


def _described(answer: Any) -> str:
    return f"{len(answer.partitions)} partitions"
