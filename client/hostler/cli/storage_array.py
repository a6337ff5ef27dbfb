"""`hostler storage array`: arrays of md, which Linux makes of disks by itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import click

from hostler.api.storage.v1 import array_pb2 as pb
from hostler.channel import rpc
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.output import Table
from hostler.cli.storage_graph import size
from hostler.plans import RpcChange
from hostler.skew import word

_SERVICE = "ArrayService"
_TITLES = ("NAME", "LEVEL", "SIZE", "STATE", "CAN LOSE", "DOES", "MEMBERS", "ID")
_LEVELS = ("raid0", "raid1", "raid5", "raid6", "raid10")
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class Bytes(click.ParamType[Any]):
    """A size such as 512K, 64M or 4096; in bytes."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it; a usage error if it is none."""
        text = str(value).upper()
        unit = _UNITS.get(text[-1:], 1)
        digits = text[:-1] if unit > 1 else text
        if not (digits.isascii() and digits.isdigit()):
            self.fail(f"{value!r} is not a size such as 512K, 64M or 4096", param, ctx)
        return int(digits) * unit


def _rows(answer: Any) -> Iterable[Sequence[Any]]:
    for one in answer.arrays if hasattr(answer, "arrays") else [answer.array]:
        yield (
            one.name or one.kernel_name,
            f"{one.level} {one.layout}".strip(),
            size(one.size_bytes),
            f"{one.state}, lacks {one.degraded}" if one.degraded else one.state,
            str(one.spare_losses) if one.spare_losses >= 0 else "data lost",
            _sync(one),
            ", ".join(_member(each) for each in one.members),
            one.id,
        )


def _sync(array: Any) -> str:
    sync = array.sync
    if sync.action in ("idle", ""):
        return f"{array.mismatch_sectors} sectors differ" if array.mismatch_sectors else ""
    percent = 100 * sync.done_bytes / sync.total_bytes if sync.total_bytes else 0
    words = f"{sync.action} {percent:.1f} %"
    if sync.HasField("remaining"):
        words += f", {sync.remaining.seconds} s left"
    return words


def _member(member: Any) -> str:
    role = word(pb.MemberRole, member.role)
    name = member.id or f"{member.name} (unplugged)"
    return name if role == "active" else f"{name} {role}"


_TABLE = Table(_TITLES, _rows)


def _after(answer: Any) -> str:
    return "; ".join(" ".join(map(str, row[:6])).strip() for row in _rows(answer))


@click.group()
def array() -> None:
    """Arrays of md: made, mended, compared, grown, ended.

    An array is named by its own name, UUID or ID; a disk by its ID, WWN, serial number or a link
    below /dev/disk/by-id, as `hostler storage show` has them.

    What md does for hours (rebuild, check, reshape) goes on by itself; with --background the change
    is a job, which ends when md is done: watch it with `hostler jobs watch`.
    """


@array.command(
    name="list", epilog=examples("hostler -H all storage array list", "hostler storage array list")
)
@pass_state
def list_arrays(state: State) -> None:
    """List arrays: what they are made of, how many more disks they can lose, what md does."""
    state.tell(rpc(pb, _SERVICE, "ListArrays"), pb.ListArraysRequest(), _TABLE)


@array.command(epilog=examples("hostler -H h1 -o yaml storage array get data"))
@click.argument("name")
@pass_state
def get(state: State, name: str) -> None:
    """Show an array as the kernel has it."""
    request = pb.GetArrayRequest(array=name)
    state.tell(rpc(pb, _SERVICE, "GetArray"), request, _TABLE)


@array.command(
    epilog=examples(
        "hostler -H h1 storage array create data --level raid1 wwn-0x5000c5001 wwn-0x5000c5002",
        "hostler -H h1 storage array create fast --level raid10 --layout o3 DISK DISK DISK",
        "hostler -H h1 storage array create big --level raid6 --spare DISK DISK DISK DISK DISK",
    )
)
@click.argument("name")
@click.argument("devices", nargs=-1, required=True)
@click.option("--level", type=click.Choice(_LEVELS), required=True)
@click.option("--layout", default="", help="n2, f2, o3 and so on of raid10; left-symmetric … of 5.")
@click.option("--chunk", type=Bytes(), default=0, help="Such as 512K.")
@click.option("--spare", "spares", multiple=True, metavar="DEVICE", help="Waits for a failure.")
@click.option("--no-bitmap", is_flag=True, help="Copy all after a crash; a little faster before.")
@click.option(
    "--assume-clean", is_flag=True, help="The disks are known to be alike: do not synchronise them."
)
@click.option(
    "--write-mostly",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="Of raid1: read the last N devices only when the others cannot be.",
)
@pass_state
def create(state: State, /, name: str, devices: Sequence[str], **options: Any) -> None:
    """Create an array of devices, or of arrays. What they hold is lost."""
    request = pb.CreateArrayRequest(
        name=name,
        level=options["level"],
        devices=devices,
        spares=options["spares"],
        layout=options["layout"],
        chunk_bytes=options["chunk"],
        assume_clean=options["assume_clean"],
        write_mostly_count=options["write_mostly"],
    )
    if options["no_bitmap"]:
        request.bitmap = False
    state.change(RpcChange(rpc(pb, _SERVICE, "CreateArray"), request), _after)


@array.command(epilog=examples("hostler -H h1 storage array add data wwn-0x5000c5003"))
@click.argument("name")
@click.argument("device")
@click.option("--as-new", is_flag=True, help="Though it was of this array before.")
@pass_state
def add(state: State, name: str, device: str, as_new: bool) -> None:
    """Add a device where one lacks, or as a spare. What it holds is lost.

    One that was of this array before is added back.
    """
    request = pb.AddMemberRequest(array=name, device=device, as_new=as_new)
    state.change(RpcChange(rpc(pb, _SERVICE, "AddMember"), request), _after)


@array.command(epilog=examples("hostler -H h1 storage array fail data wwn-0x5000c5002"))
@click.argument("name")
@click.argument("device")
@pass_state
def fail(state: State, name: str, device: str) -> None:
    """Mark a member as failed. Refused for the last copy of anything."""
    request = pb.FailMemberRequest(array=name, device=device)
    state.change(RpcChange(rpc(pb, _SERVICE, "FailMember"), request), _after)


@array.command(
    epilog=examples(
        "hostler -H h1 storage array remove data wwn-0x5000c5002",
        "hostler -H h1 storage array remove data",
    )
)
@click.argument("name")
@click.argument("device", default="")
@pass_state
def remove(state: State, name: str, device: str) -> None:
    """Take out a spare or a member that has failed; without DEVICE all that are unplugged."""
    request = pb.RemoveMemberRequest(array=name, device=device)
    state.change(RpcChange(rpc(pb, _SERVICE, "RemoveMember"), request), _after)


@array.command(
    epilog=examples(
        "hostler -H h1 --background storage array replace data --old OLD NEW",
        "hostler -H h1 storage array replace data wwn-0x5000c5004",
    )
)
@click.argument("name")
@click.argument("new")
@click.option("--old", default="", metavar="DEVICE", help="[default: the one that lacks]")
@pass_state
def replace(state: State, name: str, new: str, old: str) -> None:
    """Have NEW take the place of a member, which stays in use until all of it is copied."""
    request = pb.ReplaceMemberRequest(array=name, old=old, new=new)
    state.change(RpcChange(rpc(pb, _SERVICE, "ReplaceMember"), request), _after)


@array.command(
    epilog=examples(
        "hostler -H h1 storage array grow data --raid-disks 3 wwn-0x5000c5004",
        "hostler -H h1 storage array grow data --whole-size",
    )
)
@click.argument("name")
@click.argument("devices", nargs=-1)
@click.option("--raid-disks", type=click.IntRange(1, 128), default=0)
@click.option("--whole-size", is_flag=True, help="Use all that the smallest member has.")
@pass_state
def grow(
    state: State, name: str, devices: Sequence[str], raid_disks: int, whole_size: bool
) -> None:
    """Use more devices, adding DEVICES before, or more of each. Nothing is shrunk."""
    request = pb.GrowArrayRequest(
        array=name, raid_disks=raid_disks, devices=devices, whole_size=whole_size
    )
    state.change(RpcChange(rpc(pb, _SERVICE, "GrowArray"), request), _after)


@array.command(epilog=examples("hostler -H all --background storage array check data"))
@click.argument("name")
@pass_state
def check(state: State, name: str) -> None:
    """Compare all copies, or the parity. As a job it says how many sectors differ."""
    request = pb.CheckArrayRequest(array=name)
    state.change(RpcChange(rpc(pb, _SERVICE, "CheckArray"), request), _after)


@array.command(epilog=examples("hostler -H h1 --background storage array repair data"))
@click.argument("name")
@pass_state
def repair(state: State, name: str) -> None:
    """Make copies that differ alike. md cannot tell which was right: it takes the first."""
    request = pb.RepairArrayRequest(array=name)
    state.change(RpcChange(rpc(pb, _SERVICE, "RepairArray"), request), _after)


@array.command(epilog=examples("hostler -H h1 storage array speed data --most 50M"))
@click.argument("name")
@click.option(
    "--least", type=Bytes(), default=0, help="Each second, of each member, whoever waits."
)
@click.option("--most", type=Bytes(), default=0, help="[default of both: the host's]")
@pass_state
def speed(state: State, name: str, least: int, most: int) -> None:
    """Bound how fast an array is synchronised, until it is stopped."""
    request = pb.SetSyncSpeedRequest(
        array=name, least_bytes_per_second=least, most_bytes_per_second=most
    )
    state.change(RpcChange(rpc(pb, _SERVICE, "SetSyncSpeed"), request), _after)


@array.command(epilog=examples("hostler -H h1 storage array stop data"))
@click.argument("name")
@pass_state
def stop(state: State, name: str) -> None:
    """Stop an array that nobody uses. Its members keep all that is on them."""
    request = pb.StopArrayRequest(array=name)
    state.change(RpcChange(rpc(pb, _SERVICE, "StopArray"), request))


@array.command(epilog=examples("hostler -H h1 storage array assemble data"))
@click.argument("name")
@click.option("--degraded", is_flag=True, help="Though members lack.")
@pass_state
def assemble(state: State, name: str, degraded: bool) -> None:
    """Start the array of this name or UUID of the devices that are of it."""
    request = pb.AssembleArrayRequest(array=name, degraded=degraded)
    state.change(RpcChange(rpc(pb, _SERVICE, "AssembleArray"), request), _after)


@array.command(epilog=examples("hostler -H h1 storage array delete data"))
@click.argument("name")
@pass_state
def delete(state: State, name: str) -> None:
    """Stop an array for good and zero its members' superblocks. What it holds is lost."""
    request = pb.DeleteArrayRequest(array=name)
    state.change(RpcChange(rpc(pb, _SERVICE, "DeleteArray"), request))
