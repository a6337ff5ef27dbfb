"""`hostler storage btrfs`: filesystems that look after copies themselves, and their subvolumes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import click

from hostler.api.storage.v1 import btrfs_pb2 as pb
from hostler.channel import rpc
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.output import Table, moment
from hostler.cli.storage_graph import size
from hostler.plans import RpcChange

_SERVICE = "BtrfsService"
_TITLES = ("LABEL", "UUID", "DATA", "METADATA", "DEVICES", "ERRORS", "DOES", "MOUNTED")
_SUBVOLUME_TITLES = ("PATH", "ID", "READ-ONLY", "SNAPSHOT OF", "CREATED", "UUID")
_PROFILES = click.Choice(
    ("single", "dup", "raid0", "raid1", "raid1c3", "raid1c4", "raid10", "raid5", "raid6")
)
_filesystem = click.argument("filesystem")


def _rows(answer: Any) -> Iterable[Sequence[Any]]:
    found = answer.filesystems if hasattr(answer, "filesystems") else [answer.filesystem]
    for one in found:
        yield (
            one.label,
            one.uuid,
            _allocated(one, "data"),
            _allocated(one, "metadata"),
            ", ".join(_device(each) for each in one.devices),
            "; ".join(filter(None, map(_errors, one.devices))) or "none",
            one.exclusive_operation.replace("none", ""),
            ", ".join(one.mounts),
        )


def _allocated(filesystem: Any, kind: str) -> str:
    of = [one for one in filesystem.allocations if one.kind == kind]
    return ", ".join(f"{one.profile} {size(one.used_bytes)}" for one in of)


def _device(device: Any) -> str:
    return f"{device.device_id} missing" if device.missing else device.id


def _errors(device: Any) -> str:
    counts = [(each.name, value) for each, value in device.errors.ListFields() if value]
    told = ", ".join(f"{name} {value}" for name, value in counts)
    return f"{device.name or device.device_id}: {told}" if told else ""


def _subvolume_rows(answer: Any) -> Iterable[Sequence[Any]]:
    paths = {one.uuid: one.path for one in answer.subvolumes}
    for one in answer.subvolumes:
        source = paths.get(one.source_uuid, one.source_uuid)
        yield (
            one.path,
            str(one.id),
            "yes" if one.read_only else "",
            source,
            moment(one, "create_time"),
            one.uuid,
        )


_TABLE = Table(_TITLES, _rows)


@click.group()
def btrfs() -> None:
    """Filesystems of btrfs: scrubbed, mended, balanced; their subvolumes and snapshots.

    FILESYSTEM is its UUID, its label or its ID in `hostler storage show`, and it must be mounted; a
    disk is named by its ID, WWN, serial number or a link below /dev/disk/by-id. A subvolume is its
    path from the top of the filesystem, wherever that is mounted.

    What lasts (scrub, replace, remove, balance) goes on by itself; with --background the change is
    a job, which ends when that does: watch it with `hostler jobs watch`.
    """


@btrfs.command(name="list", epilog=examples("hostler -H all storage btrfs list"))
@pass_state
def list_btrfs(state: State) -> None:
    """List what is mounted: profiles, devices, error counters, what goes on."""
    state.tell(rpc(pb, _SERVICE, "ListBtrfs"), pb.ListBtrfsRequest(), _TABLE)


@btrfs.command(epilog=examples("hostler -H h1 -o yaml storage btrfs get data"))
@_filesystem
@pass_state
def get(state: State, filesystem: str) -> None:
    """Show a filesystem as the kernel has it."""
    request = pb.GetBtrfsRequest(filesystem=filesystem)
    state.tell(rpc(pb, _SERVICE, "GetBtrfs"), request, _TABLE)


@btrfs.command(epilog=examples("hostler -H h1 storage btrfs subvolumes data"))
@_filesystem
@pass_state
def subvolumes(state: State, filesystem: str) -> None:
    """List subvolumes and snapshots by their paths from the top."""
    request = pb.ListSubvolumesRequest(filesystem=filesystem)
    state.tell(
        rpc(pb, _SERVICE, "ListSubvolumes"), request, Table(_SUBVOLUME_TITLES, _subvolume_rows)
    )


@btrfs.command(
    epilog=examples(
        "hostler -H all --background storage btrfs scrub data",
        "hostler -H h1 --background storage btrfs scrub data --read-only",
    )
)
@_filesystem
@click.option("--read-only", is_flag=True, help="Put nothing right: only count.")
@pass_state
def scrub(state: State, filesystem: str, read_only: bool) -> None:
    """Read and compare all copies, and put right what is wrong from one that is not.

    As a job it says, for each device, how many errors there were and what became of them.
    """
    request = pb.ScrubBtrfsRequest(filesystem=filesystem, read_only=read_only)
    state.change(RpcChange(rpc(pb, _SERVICE, "ScrubBtrfs"), request))


@btrfs.command(
    name="reset-errors", epilog=examples("hostler -H h1 storage btrfs reset-errors data")
)
@_filesystem
@click.argument("device", default="")
@pass_state
def reset_errors(state: State, filesystem: str, device: str) -> None:
    """Set the error counters of a device to zero, or of all; says what they were."""
    request = pb.ResetErrorCountersRequest(filesystem=filesystem, device=device)
    state.change(RpcChange(rpc(pb, _SERVICE, "ResetErrorCounters"), request))


@btrfs.command(epilog=examples("hostler -H h1 storage btrfs add data wwn-0x5000c5003"))
@_filesystem
@click.argument("device")
@pass_state
def add(state: State, filesystem: str, device: str) -> None:
    """Add a device. What it holds is lost. `balance` spreads what is there over it."""
    request = pb.AddDeviceRequest(filesystem=filesystem, device=device)
    state.change(RpcChange(rpc(pb, _SERVICE, "AddDevice"), request))


@btrfs.command(
    epilog=examples(
        "hostler -H h1 --background storage btrfs remove data wwn-0x5000c5002",
        "hostler -H h1 --background storage btrfs remove data",
    )
)
@_filesystem
@click.argument("device", default="")
@pass_state
def remove(state: State, filesystem: str, device: str) -> None:
    """Move all from a device to the others and take it out; without DEVICE the missing one."""
    request = pb.RemoveDeviceRequest(filesystem=filesystem, device=device)
    state.change(RpcChange(rpc(pb, _SERVICE, "RemoveDevice"), request))


@btrfs.command(
    epilog=examples(
        "hostler -H h1 --background storage btrfs replace data --old OLD NEW",
        "hostler -H h1 --background storage btrfs replace data wwn-0x5000c5004",
    )
)
@_filesystem
@click.argument("new")
@click.option("--old", default="", metavar="DEVICE", help="[default: the one that is missing]")
@pass_state
def replace(state: State, filesystem: str, new: str, old: str) -> None:
    """Have NEW take the place of a device, which stays in use until all of it is copied."""
    request = pb.ReplaceDeviceRequest(filesystem=filesystem, old=old, new=new)
    state.change(RpcChange(rpc(pb, _SERVICE, "ReplaceDevice"), request))


@btrfs.command(
    epilog=examples(
        "hostler -H h1 --background storage btrfs balance data --data raid1 --metadata raid1",
        "hostler -H h1 --background storage btrfs balance data --usage 50",
    )
)
@_filesystem
@click.option("--data", type=_PROFILES, default="", help="[default: as it is]")
@click.option("--metadata", type=_PROFILES, default="", help="[default: as it is]")
@click.option("--usage", type=click.IntRange(1, 100), help="Chunks less used than this percentage.")
@click.option("--less-redundancy", is_flag=True, help="Though fewer losses will be survived.")
@pass_state
def balance(
    state: State,
    filesystem: str,
    data: str,
    metadata: str,
    usage: int | None,
    less_redundancy: bool,
) -> None:
    """Write what is allocated anew: in other profiles, or spread over all devices."""
    request = pb.BalanceBtrfsRequest(
        filesystem=filesystem,
        data=data,
        metadata=metadata,
        usage_percent=usage or 0,
        less_redundancy=less_redundancy,
    )
    state.change(RpcChange(rpc(pb, _SERVICE, "BalanceBtrfs"), request))


@btrfs.command(epilog=examples("hostler -H h1 storage btrfs create data srv/www"))
@_filesystem
@click.argument("path")
@pass_state
def create(state: State, filesystem: str, path: str) -> None:
    """Create a subvolume, empty."""
    request = pb.CreateSubvolumeRequest(filesystem=filesystem, path=path)
    state.change(RpcChange(rpc(pb, _SERVICE, "CreateSubvolume"), request))


@btrfs.command(
    epilog=examples("hostler -H h1 storage btrfs snapshot data srv/www srv/www.monday --read-only")
)
@_filesystem
@click.argument("source")
@click.argument("path")
@click.option("--read-only", is_flag=True, help="Nobody may write to it.")
@pass_state
def snapshot(state: State, filesystem: str, source: str, path: str, read_only: bool) -> None:
    """Create a snapshot of the subvolume SOURCE at PATH; "" is the top."""
    request = pb.CreateSnapshotRequest(
        filesystem=filesystem, source=source, path=path, read_only=read_only
    )
    state.change(RpcChange(rpc(pb, _SERVICE, "CreateSnapshot"), request))


@btrfs.command(epilog=examples("hostler -H h1 --plan storage btrfs delete data srv/www.monday"))
@_filesystem
@click.argument("path")
@pass_state
def delete(state: State, filesystem: str, path: str) -> None:
    """Delete a subvolume or a snapshot. What it alone holds is lost."""
    request = pb.DeleteSubvolumeRequest(filesystem=filesystem, path=path)
    state.change(RpcChange(rpc(pb, _SERVICE, "DeleteSubvolume"), request))
