"""The commands of `hostler storage lvm` for volumes: made, grown, kept, mended, ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from hostler.api.storage.v1 import lvm_pb2 as pb
from hostler.channel import rpc
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.storage_array import Bytes
from hostler.cli.storage_graph import size
from hostler.plans import RpcChange

_SERVICE = "LvmService"
_KINDS = {
    "linear": pb.VOLUME_KIND_LINEAR,
    "striped": pb.VOLUME_KIND_STRIPED,
    "mirror": pb.VOLUME_KIND_MIRROR,
    "thin-pool": pb.VOLUME_KIND_THIN_POOL,
    "thin": pb.VOLUME_KIND_THIN,
}


def _after(answer: Any) -> str:
    fields = ("snapshot", "clone", "volume")
    one = next(getattr(answer, field) for field in fields if hasattr(answer, field))
    state = "active" if one.active else "inactive"
    return f"{one.name} {one.segment_type} {size(one.size_bytes)} {state} {one.id}"


@click.command(
    epilog=examples(
        "hostler -H h1 storage lvm create vg0/data --size 10G",
        "hostler -H h1 --background storage lvm create vg0/safe --kind mirror --size 10G",
        "hostler -H h1 storage lvm create vg0/pool --kind thin-pool --size 100G",
        "hostler -H h1 storage lvm create vg0/vm1 --kind thin --pool pool --size 20G",
    )
)
@click.argument("volume", metavar="GROUP/NAME")
@click.option("--kind", type=click.Choice(tuple(_KINDS)), default="linear", show_default=True)
@click.option("--size", "size_bytes", type=Bytes(), required=True, help="Such as 10G.")
@click.option("--on", "devices", multiple=True, metavar="DEVICE", help="One for each part.")
@click.option("--parts", type=click.IntRange(2, 10), help="Copies or stripes. [default: 2]")
@click.option("--stripe", type=Bytes(), default=0, help="[default: 64K]")
@click.option("--pool", default="", help="Of a thin volume.")
@pass_state
def create(state: State, /, volume: str, **options: Any) -> None:
    """Create a volume in the free room of a group."""
    group, _, name = volume.partition("/")
    request = pb.CreateVolumeRequest(
        group=group,
        name=name,
        kind=_KINDS[options["kind"]],
        size_bytes=options["size_bytes"],
        devices=options["devices"],
        parts=options["parts"] or 0,
        stripe_bytes=options["stripe"],
        pool=options["pool"],
    )
    state.change(RpcChange(rpc(pb, _SERVICE, "CreateVolume"), request), _after)


@click.command(epilog=examples("hostler -H h1 storage lvm grow vg0/data --size 20G --filesystem"))
@click.argument("volume", metavar="GROUP/NAME")
@click.option("--size", "size_bytes", type=Bytes(), required=True, help="In all, such as 20G.")
@click.option("--filesystem", is_flag=True, help="Grow what is on it, too.")
@pass_state
def grow(state: State, volume: str, size_bytes: int, filesystem: bool) -> None:
    """Give a volume more room. Nothing is shrunk."""
    request = pb.GrowVolumeRequest(volume=volume, size_bytes=size_bytes, with_filesystem=filesystem)
    state.change(RpcChange(rpc(pb, _SERVICE, "GrowVolume"), request), _after)


@click.command(epilog=examples("hostler -H h1 storage lvm rename vg0/data old"))
@click.argument("volume", metavar="GROUP/NAME")
@click.argument("name")
@pass_state
def rename(state: State, volume: str, name: str) -> None:
    """Give a volume another name."""
    request = pb.RenameVolumeRequest(volume=volume, name=name)
    state.change(RpcChange(rpc(pb, _SERVICE, "RenameVolume"), request), _after)


@click.command(epilog=examples("hostler -H h1 storage lvm activate vg0/data"))
@click.argument("volume", metavar="GROUP/NAME")
@pass_state
def activate(state: State, volume: str) -> None:
    """Have a volume be a device."""
    request = pb.ActivateVolumeRequest(volume=volume)
    state.change(RpcChange(rpc(pb, _SERVICE, "ActivateVolume"), request), _after)


@click.command(epilog=examples("hostler -H h1 storage lvm deactivate vg0/data"))
@click.argument("volume", metavar="GROUP/NAME")
@pass_state
def deactivate(state: State, volume: str) -> None:
    """Have a volume that nobody uses be no device."""
    request = pb.DeactivateVolumeRequest(volume=volume)
    state.change(RpcChange(rpc(pb, _SERVICE, "DeactivateVolume"), request), _after)


@click.command(
    epilog=examples(
        "hostler -H h1 storage lvm snapshot vg0/data before --size 2G",
        "hostler -H h1 storage lvm snapshot vg0/vm1 vm1-before",
    )
)
@click.argument("volume", metavar="GROUP/NAME")
@click.argument("name")
@click.option("--size", "size_bytes", type=Bytes(), default=0, help="Room for changes; not thin.")
@pass_state
def snapshot(state: State, volume: str, name: str, size_bytes: int) -> None:
    """Keep what a volume is like now, as a volume of its own."""
    request = pb.CreateVolumeSnapshotRequest(volume=volume, name=name, size_bytes=size_bytes)
    state.change(RpcChange(rpc(pb, _SERVICE, "CreateVolumeSnapshot"), request), _after)


@click.command(
    epilog=examples("hostler -H h1 storage lvm clone vg0/debian vm1 --size 20G --hostname vm1")
)
@click.argument("volume", metavar="GROUP/TEMPLATE")
@click.argument("name")
@click.option("--size", "size_bytes", type=Bytes(), default=0, help="[default: the template's]")
@click.option("--hostname", default="", help="What the host is called that it is for.")
@pass_state
def clone(state: State, volume: str, name: str, size_bytes: int, hostname: str) -> None:
    """Make a volume of a template: a host's root (ext4) on a thin volume.

    It has an empty machine id and no host keys of ssh: `ssh-keygen -A` makes some.
    """
    request = pb.CloneVolumeRequest(
        volume=volume, name=name, size_bytes=size_bytes, hostname=hostname
    )
    state.change(RpcChange(rpc(pb, _SERVICE, "CloneVolume"), request), _after)


@click.command(epilog=examples("hostler -H h1 --background storage lvm merge vg0/before"))
@click.argument("volume", metavar="GROUP/SNAPSHOT")
@click.option("--later", is_flag=True, help="At the next activation, if the volume is in use.")
@pass_state
def merge(state: State, volume: str, later: bool) -> None:
    """Have a volume be again what its snapshot is. What was written since is lost."""
    request = pb.MergeVolumeSnapshotRequest(volume=volume, later=later)
    state.change(RpcChange(rpc(pb, _SERVICE, "MergeVolumeSnapshot"), request))


@click.command(epilog=examples("hostler -H h1 storage lvm delete vg0/old"))
@click.argument("volume", metavar="GROUP/NAME")
@pass_state
def delete(state: State, volume: str) -> None:
    """Delete a volume that nobody uses. What it holds is lost."""
    request = pb.DeleteVolumeRequest(volume=volume)
    state.change(RpcChange(rpc(pb, _SERVICE, "DeleteVolume"), request))


@click.command(
    epilog=examples(
        "hostler -H h1 --background storage lvm replace vg0/safe NEW",
        "hostler -H h1 --background storage lvm replace vg0/safe --old OLD NEW",
    )
)
@click.argument("volume", metavar="GROUP/NAME")
@click.argument("new")
@click.option("--old", default="", metavar="DEVICE", help="[default: the one that is missing]")
@pass_state
def replace(state: State, volume: str, new: str, old: str) -> None:
    """Have NEW take the place of a device of a mirror. What a new one holds is lost."""
    request = pb.ReplaceVolumeDeviceRequest(volume=volume, old=old, new=new)
    state.change(RpcChange(rpc(pb, _SERVICE, "ReplaceVolumeDevice"), request), _after)


_ALL: Sequence[click.Command] = (
    *(create, grow, rename, activate, deactivate, snapshot, clone, merge, delete, replace),
)
VOLUME_COMMANDS: Mapping[str, click.Command] = {str(one.name): one for one in _ALL}
