"""`hostler storage burn-in`: whether a filesystem keeps what it is given."""

from __future__ import annotations

from typing import Any

import click

from hostler.api.storage.v1 import copy_pb2 as pb
from hostler.channel import rpc
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.storage_graph import size as shown
from hostler.plans import RpcChange

_UNITS = {"M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class Bytes(click.ParamType[Any]):
    """An amount such as 500M, 20G or 1T; in bytes."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it; a usage error if it is none."""
        text = str(value)
        unit, digits = _UNITS.get(text[-1:]), text[:-1]
        if unit is None or not (digits.isascii() and digits.isdigit()):
            self.fail(f"{value!r} is no amount such as 500M, 20G or 1T", param, ctx)
        return int(digits) * unit


def _after(answer: Any) -> str:
    if not answer.HasField("outcome"):
        return ""
    done = answer.outcome
    return f"{done.files} files, {shown(done.written_bytes)} written and read, all as they were"


@click.command(
    name="burn-in",
    epilog=examples(
        "hostler -H h1 --background storage burn-in /srv/new --size 200G --rounds 20",
        "hostler -H h1 jobs watch",
    ),
)
@click.argument("folder")
@click.option("--size", type=Bytes(), required=True, help="How much to keep there: 500M, 20G, 1T.")
@click.option("--rounds", type=click.IntRange(1, 10_000), default=3, show_default=True)
@pass_state
def burn_in(state: State, folder: str, size: int, rounds: int) -> None:
    """Put the filesystem of FOLDER to work, below what root has named for copies.

    Files are written, found, read from the disk, and their hashes checked; in each round some are
    removed, renamed and written anew. All of it is gone at the end.
    """
    request = pb.BurnInRequest(folder=folder, size_bytes=size, rounds=rounds)
    state.change(RpcChange(rpc(pb, "CopyService", "BurnIn"), request), _after)
