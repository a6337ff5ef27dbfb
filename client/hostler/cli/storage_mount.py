"""`hostler storage mount` and `hostler storage swap`: units of systemd for what lies on disks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import click

from hostler.api.storage.v1 import mount_pb2 as pb
from hostler.channel import rpc
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.output import Table
from hostler.cli.storage_graph import size
from hostler.plans import RpcChange

_SERVICE = "MountService"
_until_boot = click.option("--until-boot", is_flag=True, help="Only until the next boot.")


@click.group()
def mount() -> None:
    """Mount filesystems by units of systemd, and unmount them.

    What Hostler has not made, in units, in fstab or by hand, is listed and never touched.
    """


@mount.command(
    name="list",
    epilog=examples("hostler -H all storage mount list"),
)
@pass_state
def list_mounts(state: State) -> None:
    """List what is mounted, what units and fstab declare, and what differs."""
    state.tell(rpc(pb, _SERVICE, "ListMounts"), pb.ListMountsRequest(), _MOUNTS)


def _mounts(answer: Any) -> Iterable[Sequence[Any]]:
    for one in answer.mounts:
        lasts = ", until the next boot" if one.until_boot else ""
        yield (
            one.where,
            one.mounted_device or "not mounted",
            one.mounted_type or one.type or "-",
            one.what or "-",
            (one.declared_by + lasts) or "-",
            ", ".join(one.differs) or "-",
        )


_MOUNTS = Table(("MOUNT", "DEVICE", "TYPE", "DECLARED AS", "BY", "DIFFERS"), _mounts)


@mount.command(
    epilog=examples(
        "hostler -H h1 --plan storage mount apply /srv/data serial-WD-WX11A1234567-part1",
        "hostler -H h1 storage mount apply /srv/data WD-WX11A1234567 -o noatime -o commit=30",
        "hostler -H h1 storage mount apply /mnt/old 0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0 -o ro "
        "--until-boot",
    )
)
@click.argument("where")
@click.argument("device")
@click.option("-o", "--option", "options", multiple=True, help="An option of mount(8).")
@_until_boot
@click.option("--required", is_flag=True, help="A boot waits for it, and fails without it.")
@click.option("--timeout", default=0, help="Seconds that mounting may take. Default: systemd's.")
@pass_state
def apply(
    state: State,
    where: str,
    device: str,
    options: tuple[str, ...],
    until_boot: bool,
    required: bool,
    timeout: int,
) -> None:
    """Mount the filesystem on DEVICE at WHERE, now and at each boot; or change how it is.

    "nosuid" and "nodev" go with the options unless "suid" or "dev" is said. DEVICE is what stays
    the same, as in `hostler storage filesystem`.
    """
    request = pb.ApplyMountRequest(
        where=where,
        device=device,
        options=[one for each in options for one in each.split(",")],
        until_boot=until_boot,
        required=required,
        timeout_seconds=timeout,
    )
    state.change(RpcChange(rpc(pb, _SERVICE, "ApplyMount"), request))


@mount.command(epilog=examples("hostler -H h1 storage mount delete /srv/data"))
@click.argument("where")
@pass_state
def delete(state: State, where: str) -> None:
    """Unmount WHERE, if nobody uses it, and remove its unit and the folders made for it."""
    request = pb.DeleteMountRequest(where=where)
    state.change(RpcChange(rpc(pb, _SERVICE, "DeleteMount"), request))


@click.group()
def swap() -> None:
    """Swap to areas that `hostler storage filesystem make DEVICE swap` has made."""


@swap.command(name="list", epilog=examples("hostler -H all storage swap list"))
@pass_state
def list_swaps(state: State) -> None:
    """List which swap areas are used, how much, and what declares them."""
    state.tell(rpc(pb, _SERVICE, "ListSwaps"), pb.ListSwapsRequest(), _SWAPS)


def _swaps(answer: Any) -> Iterable[Sequence[Any]]:
    for one in answer.swaps:
        yield (
            one.device or one.path or one.what,
            "in use" if one.active else "not in use",
            size(one.size_bytes) if one.active else "-",
            size(one.used_bytes) if one.active else "-",
            one.priority if one.active else "-",
            one.declared_by or "-",
        )


_SWAPS = Table(("SWAP", "STATE", "SIZE", "USED", "PRIORITY", "BY"), _swaps)


@swap.command(
    name="apply",
    epilog=examples(
        "hostler -H h1 storage swap apply serial-WD-WX11A1234567-part2",
        "hostler -H h1 storage swap apply WD-WX11A1234567 --priority 10 --until-boot",
    ),
)
@click.argument("device")
@click.option("--priority", type=click.IntRange(0, 32767), help="Higher ones are used first.")
@click.option("--discard", is_flag=True, help="Tell the disk which pages are free.")
@_until_boot
@pass_state
def apply_swap(
    state: State, device: str, priority: int | None, discard: bool, until_boot: bool
) -> None:
    """Swap to the area on DEVICE, now and at each boot; or change how."""
    request = pb.ApplySwapRequest(
        device=device, priority=priority, discard=discard, until_boot=until_boot
    )
    state.change(RpcChange(rpc(pb, _SERVICE, "ApplySwap"), request))


@swap.command(name="delete", epilog=examples("hostler -H h1 storage swap delete WD-WX11A1234567"))
@click.argument("device")
@pass_state
def delete_swap(state: State, device: str) -> None:
    """Swap to DEVICE no more, if memory holds what is there, and remove its unit."""
    request = pb.DeleteSwapRequest(device=device)
    state.change(RpcChange(rpc(pb, _SERVICE, "DeleteSwap"), request))
