"""`hostler storage filesystem` and `hostler storage saved`: what lies on devices, changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import click

from hostler.api.storage.v1 import filesystem_pb2 as pb
from hostler.channel import rpc
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.output import Table, moment
from hostler.cli.output import show as show_results
from hostler.cli.storage_graph import size
from hostler.plans import RpcChange

_SERVICE = "FilesystemService"
_TYPES = ("ext4", "btrfs", "xfs", "vfat", "swap")
_device = click.argument("device")


@click.group()
def filesystem() -> None:
    """Make, wipe, label, grow and check filesystems and swap areas.

    DEVICE is what stays the same: an ID of `hostler storage show`, a link below /dev/disk/by-id, a
    WWN, a serial number, or the UUID of what lies on it; never the kernel's name alone, as sdb. An
    ID that is made of that name takes the disk sequence behind it: name-vda#7.
    """


@filesystem.command(
    epilog=examples(
        "hostler -H h1 --plan storage filesystem make wwn-0x5000c500a1b2c3d4-part1 ext4",
        "hostler -H h1 storage filesystem make name-vdb#7 xfs --label srv",
    )
)
@_device
@click.argument("type", type=click.Choice(_TYPES))
@click.option("--label", default="", help="Its label. Default: none.")
@click.option("--uuid", default="", help="Its UUID. Default: a new one.")
@pass_state
def make(state: State, device: str, type: str, label: str, uuid: str) -> None:
    """Make a filesystem or a swap area on DEVICE. What it holds is lost.

    What tells what it holds is saved first: see `hostler storage saved`.
    """
    request = pb.MakeFilesystemRequest(device=device, type=type, label=label, uuid=uuid)
    state.change(RpcChange(rpc(pb, _SERVICE, "MakeFilesystem"), request))


@filesystem.command(epilog=examples("hostler -H h1 storage filesystem wipe WD-WX11A1234567"))
@_device
@pass_state
def wipe(state: State, device: str) -> None:
    """Wipe all signatures of DEVICE, so that what it holds is found no more."""
    request = pb.WipeSignaturesRequest(device=device)
    state.change(RpcChange(rpc(pb, _SERVICE, "WipeSignatures"), request))


@filesystem.command(
    epilog=examples(
        "hostler -H h1 storage filesystem label 0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0 srv"
    )
)
@_device
@click.argument("label")
@pass_state
def label(state: State, device: str, label: str) -> None:
    """Set the label of what lies on DEVICE; "" removes it. ext4, btrfs and xfs may be mounted."""
    request = pb.SetLabelRequest(device=device, label=label)
    state.change(RpcChange(rpc(pb, _SERVICE, "SetLabel"), request))


@filesystem.command(
    epilog=examples(
        "hostler -H h1 storage filesystem grow filesystem-0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
    )
)
@_device
@pass_state
def grow(state: State, device: str) -> None:
    """Grow the filesystem on DEVICE to its end: ext4, and btrfs or xfs while they are mounted."""
    request = pb.GrowFilesystemRequest(device=device)
    state.change(RpcChange(rpc(pb, _SERVICE, "GrowFilesystem"), request))


@filesystem.command(
    epilog=examples("hostler -H h1 storage filesystem check wwn-0x5000c500a1b2c3d4-part1")
)
@_device
@pass_state
def check(state: State, device: str) -> None:
    """Check a filesystem that is not mounted, and repair nothing. Faults are exit status 1."""
    method = rpc(pb, _SERVICE, "CheckFilesystem")
    results = state.read(method, pb.CheckFilesystemRequest(device=device))

    def rows(answer: Any) -> Iterable[Sequence[Any]]:
        yield answer.type, "clean" if answer.clean else "FAULTS", answer.said

    table = Table(("TYPE", "FOUND", "SAID"), rows)
    if all(one.result is None or one.result.clean for one in results):
        state.finish(results, table)
    show_results(results, state.output, table)
    click.get_current_context().exit(1)


@click.group()
def saved() -> None:
    """What was saved of devices before they were overwritten: list it, put it back."""


def _rows(answer: Any) -> Iterable[Sequence[Any]]:
    for one in answer.saved:
        yield (
            one.name,
            moment(one, "create_time"),
            one.operation,
            one.device,
            one.serial or "-",
            size(one.size_bytes),
            ", ".join(one.signatures) or "-",
        )


_SAVED = Table(("NAME", "SAVED (UTC)", "BEFORE", "DEVICE", "SERIAL", "SIZE", "HELD"), _rows)


@saved.command(name="list", epilog=examples("hostler -H all storage saved list"))
@pass_state
def list_saved(state: State) -> None:
    """List what is kept: the first and last MiB of each device, and signatures elsewhere."""
    state.tell(rpc(pb, _SERVICE, "ListSaved"), pb.ListSavedRequest(), _SAVED)


@saved.command(
    epilog=examples("hostler -H h1 storage saved restore WD-WX11A1234567 20260131T120000Z-0123abcd")
)
@_device
@click.argument("name")
@pass_state
def restore(state: State, device: str, name: str) -> None:
    """Put back on DEVICE what is kept as NAME; what is there now is saved too."""
    request = pb.RestoreSavedRequest(device=device, saved=name)
    state.change(RpcChange(rpc(pb, _SERVICE, "RestoreSaved"), request))
