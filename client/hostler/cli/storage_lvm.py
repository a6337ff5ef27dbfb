"""`hostler storage lvm`: volume groups of LVM."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import click

from hostler.api.storage.v1 import lvm_pb2 as pb
from hostler.channel import rpc
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.output import Table
from hostler.cli.storage_array import Bytes
from hostler.cli.storage_graph import size
from hostler.cli.storage_lvm_volume import VOLUME_COMMANDS
from hostler.plans import RpcChange

_SERVICE = "LvmService"
_TITLES = ("GROUP", "VOLUME", "KIND", "SIZE", "STATE", "COPIES", "FULL", "ON", "ID")
_BACKUP_TITLES = ("NAME", "GROUP", "CHANGES", "WHEN", "UUID")


def _groups(answer: Any) -> Iterable[Any]:
    return answer.groups if hasattr(answer, "groups") else [answer.group]


def _rows(answer: Any) -> Iterable[Sequence[Any]]:
    for group in _groups(answer):
        missing = f", {group.missing} missing" if group.missing else ""
        busy = f", {group.busy}" if group.busy else ""
        free = f"{size(group.free_bytes)} free{missing}{busy}"
        on = ", ".join(one.id or f"{one.uuid} (missing)" for one in group.physical_volumes)
        yield (group.name, "", "", size(group.size_bytes), free, "", "", on, group.id)
        for one in group.volumes:
            yield (
                group.name,
                one.name,
                one.segment_type,
                size(one.size_bytes),
                _state(one),
                _percent(one, "sync_percent"),
                _percent(one, "data_percent"),
                ", ".join(one.devices),
                one.id,
            )


def _state(volume: Any) -> str:
    words = ["open" if volume.open else "active" if volume.active else "inactive"]
    words += [volume.health] if volume.health else []
    words += [f"snapshot of {volume.origin}"] if volume.origin else []
    words += ["merging"] if volume.merging else []
    return ", ".join(words)


def _percent(volume: Any, name: str) -> str:
    return f"{getattr(volume, name):.1f} %" if volume.HasField(name) else ""


def _backup_rows(answer: Any) -> Iterable[Sequence[Any]]:
    for one in answer.backups:
        when = one.create_time.ToJsonString()
        yield (one.name, one.group, str(one.seqno), when, one.group_uuid)


_TABLE = Table(_TITLES, _rows)
_BACKUPS = Table(_BACKUP_TITLES, _backup_rows)


def _after(answer: Any) -> str:
    return "; ".join(" ".join(map(str, row[:5])).strip() for row in _rows(answer))


@click.group(commands=dict(VOLUME_COMMANDS))
def lvm() -> None:
    """Groups of LVM and what is in them: made, grown, moved, mended, merged, ended.

    A group is named by its name, UUID or ID; a volume as GROUP/NAME; a disk by its ID, WWN, serial
    number or a link below /dev/disk/by-id, as `hostler storage show` has them.

    What LVM does for long (copy, move, merge) goes on by itself; with --background the change is a
    job, which ends when that is done: watch it with `hostler jobs watch`.
    """


@lvm.command(
    name="list", epilog=examples("hostler -H all storage lvm list", "hostler storage lvm list")
)
@pass_state
def list_groups(state: State) -> None:
    """List groups and their volumes."""
    request = pb.ListVolumeGroupsRequest()
    state.tell(rpc(pb, _SERVICE, "ListVolumeGroups"), request, _TABLE)


@lvm.command(epilog=examples("hostler -H h1 -o yaml storage lvm get vg0"))
@click.argument("group")
@pass_state
def get(state: State, group: str) -> None:
    """Show a group and its volumes."""
    request = pb.GetVolumeGroupRequest(group=group)
    state.tell(rpc(pb, _SERVICE, "GetVolumeGroup"), request, _TABLE)


@lvm.command(
    name="create-group",
    epilog=examples("hostler -H h1 storage lvm create-group vg0 wwn-0x5000c5001 wwn-0x5000c5002"),
)
@click.argument("name")
@click.argument("devices", nargs=-1, required=True)
@click.option("--extent", type=Bytes(), default=0, help="Such as 16M; a power of 2. [default: 4M]")
@pass_state
def create_group(state: State, name: str, devices: Sequence[str], extent: int) -> None:
    """Create a group of devices. What they hold is lost."""
    request = pb.CreateVolumeGroupRequest(name=name, devices=devices, extent_bytes=extent)
    state.change(RpcChange(rpc(pb, _SERVICE, "CreateVolumeGroup"), request), _after)


@lvm.command(epilog=examples("hostler -H h1 storage lvm extend vg0 wwn-0x5000c5003"))
@click.argument("group")
@click.argument("device")
@pass_state
def extend(state: State, group: str, device: str) -> None:
    """Add a device to a group. What it holds is lost."""
    request = pb.ExtendVolumeGroupRequest(group=group, device=device)
    state.change(RpcChange(rpc(pb, _SERVICE, "ExtendVolumeGroup"), request), _after)


@lvm.command(
    epilog=examples(
        "hostler -H h1 storage lvm reduce vg0 wwn-0x5000c5001",
        "hostler -H h1 storage lvm reduce vg0",
    )
)
@click.argument("group")
@click.argument("device", default="")
@pass_state
def reduce(state: State, group: str, device: str) -> None:
    """Take out a device that nothing lies on; without DEVICE all that are missing."""
    request = pb.ReduceVolumeGroupRequest(group=group, device=device)
    state.change(RpcChange(rpc(pb, _SERVICE, "ReduceVolumeGroup"), request), _after)


@lvm.command(
    epilog=examples(
        "hostler -H h1 --background storage lvm move vg0 wwn-0x5000c5001",
        "hostler -H h1 storage lvm move vg0 wwn-0x5000c5001 wwn-0x5000c5003",
    )
)
@click.argument("group")
@click.argument("device")
@click.argument("to", nargs=-1)
@pass_state
def move(state: State, group: str, device: str, to: Sequence[str]) -> None:
    """Move what lies on DEVICE to others of its group, while it is in use."""
    request = pb.MovePhysicalVolumeRequest(group=group, device=device, to=to)
    state.change(RpcChange(rpc(pb, _SERVICE, "MovePhysicalVolume"), request), _after)


@lvm.command(name="delete-group", epilog=examples("hostler -H h1 storage lvm delete-group vg0"))
@click.argument("group")
@pass_state
def delete_group(state: State, group: str) -> None:
    """End a group that has no volumes, and wipe its devices."""
    request = pb.DeleteVolumeGroupRequest(group=group)
    state.change(RpcChange(rpc(pb, _SERVICE, "DeleteVolumeGroup"), request))


@lvm.command(epilog=examples("hostler -H h1 storage lvm backups"))
@pass_state
def backups(state: State) -> None:
    """List the descriptions of groups that were kept before changes."""
    request = pb.ListGroupBackupsRequest()
    state.tell(rpc(pb, _SERVICE, "ListGroupBackups"), request, _BACKUPS)


@lvm.command(
    epilog=examples("hostler -H h1 storage lvm restore vg0 20260101T120000Z-0011aabb"),
)
@click.argument("group")
@click.argument("backup")
@pass_state
def restore(state: State, group: str, backup: str) -> None:
    """Put back a description of a group, of which no volume may be active."""
    request = pb.RestoreGroupRequest(group=group, backup=backup)
    state.change(RpcChange(rpc(pb, _SERVICE, "RestoreGroup"), request), _after)
