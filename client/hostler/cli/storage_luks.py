"""`hostler storage luks`: what is enciphered."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import click

from hostler.api.storage.v1 import luks_pb2 as pb
from hostler.channel import rpc
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.output import Table
from hostler.plans import RpcChange

_SERVICE = "LuksService"


def _rows(answer: Any) -> Iterable[Sequence[Any]]:
    for one in answer.items if hasattr(answer, "items") else [answer.luks]:
        state = f"open as {one.name}" if one.open else "closed"
        yield (one.device_name, state, one.label, one.uuid, one.id)


_TABLE = Table(("DEVICE", "STATE", "LABEL", "UUID", "ID"), _rows)


def _after(answer: Any) -> str:
    return "; ".join(" ".join(map(str, row)) for row in _rows(answer))


def _saved(answer: Any) -> str:
    return f"kept as {answer.saved}"


@click.group()
def luks() -> None:
    """What is enciphered with LUKS: opened, closed, its header kept.

    The key never passes through here: say which file of root's on the host has it.
    """


@luks.command(name="list", epilog=examples("hostler -H all storage luks list"))
@pass_state
def list_luks(state: State) -> None:
    """List what is enciphered, and whether it is open."""
    state.tell(rpc(pb, _SERVICE, "ListLuks"), pb.ListLuksRequest(), _TABLE)


@luks.command(
    name="open",
    epilog=examples(
        "hostler -H h1 storage luks open wwn-0x5000c5001 secret --key-file /etc/keys/secret",
        "hostler -H h1 storage luks open wwn-0x5000c5001 secret --credential secret-key",
    ),
)
@click.argument("device")
@click.argument("name")
@click.option("--key-file", default="", metavar="PATH", help="On the host; all of it is the key.")
@click.option("--credential", default="", metavar="NAME", help="In /etc/credstore of the host.")
@click.option("--read-only", is_flag=True, help="For reading alone.")
@pass_state
def open_luks(state: State, /, device: str, name: str, **options: Any) -> None:
    """Open what is enciphered on DEVICE as /dev/mapper/NAME."""
    request = pb.OpenLuksRequest(device=device, name=name, **options)
    state.change(RpcChange(rpc(pb, _SERVICE, "OpenLuks"), request), _after)


@luks.command(name="close", epilog=examples("hostler -H h1 storage luks close wwn-0x5000c5001"))
@click.argument("device")
@pass_state
def close_luks(state: State, device: str) -> None:
    """Close what is open on DEVICE and nobody uses."""
    request = pb.CloseLuksRequest(device=device)
    state.change(RpcChange(rpc(pb, _SERVICE, "CloseLuks"), request), _after)


@luks.command(epilog=examples("hostler -H h1 storage luks backup-header wwn-0x5000c5001"))
@click.argument("device")
@pass_state
def backup_header(state: State, device: str) -> None:
    """Keep the header with all its keys; `hostler storage saved` lists and restores it."""
    request = pb.BackupLuksHeaderRequest(device=device)
    state.change(RpcChange(rpc(pb, _SERVICE, "BackupLuksHeader"), request), _saved)
