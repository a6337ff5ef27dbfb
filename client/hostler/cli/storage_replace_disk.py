"""`hostler storage replace-disk` and `locate`: disks that are replaced, and found."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click

from hostler.api.storage.v1 import disk_pb2 as pb
from hostler.channel import rpc
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.job_display import Bars, Display, Lines
from hostler.cli.output import Table
from hostler.job_change import JobChange
from hostler.plans import RpcChange
from hostler.skew import word

_SERVICE = "DiskService"
_TITLES = ("WHAT", "OF", "HOW")
_PULL = "PULL"


class _Shown:
    """Shows how far the job is, from the first word of it on: nobody is asked anything then."""

    def __init__(self, output: str) -> None:
        self._output = output
        self._display: Display | None = None

    def say(self, host: str, domain: str, answer: Any) -> None:
        """Show a WatchJobResponse."""
        if self._output != "table":
            return
        if self._display is None:
            self._display = (
                Bars() if sys.stderr.isatty() and sys.stdout.isatty() else Lines(err=True)
            )
            self._display.__enter__()
        self._display.say(host, domain, answer)

    def close(self) -> None:
        """Leave what was shown as it is."""
        if self._display is not None:
            self._display.__exit__(None, None, None)


def _rows(answer: Any) -> Iterable[Sequence[Any]]:
    found = answer.replacement
    for one in found.contents:
        fate = word(pb.ContentFate, one.fate)
        where = f"partition {one.number}" if one.number else "whole disk"
        yield fate, where, one.message
    for one in found.findings:
        yield word(pb.FindingWeight, one.weight), one.code, one.message
    for one in found.boot:
        yield "boot loader", one.code, f"{one.message}; run: {one.command}"
    yield "pull", found.pull.id, found.pull.words


def _after(answer: Any) -> str:
    """What came of it, and which disk to pull: what was said last, when all was done."""
    told = [one.message for one in answer.change.warnings if one.code == _PULL]
    others = [one.message for one in answer.change.warnings if one.code == "NOT_BROUGHT_BACK"]
    return "; ".join([*dict.fromkeys(others), *told[-1:]])


def _watched(
    state: State, method: str, request: Any, describe: Callable[[Any], str] | None = None
) -> None:
    """Have a change made as a job, and show how far it is."""
    if len(tuple(state.hosts)) != 1:
        raise click.UsageError("a disk is in one host: name it with -H")
    shown = _Shown(state.output)
    try:
        state.change(JobChange(rpc(pb, _SERVICE, method), request, shown.say), describe)
    finally:
        shown.close()


@click.command(
    name="replace-disk",
    epilog=examples(
        "hostler -H h1 storage replace-disk wwn-0x5000c5001 wwn-0x5000c5009",
        "hostler -H h1 storage replace-disk ZA1B2C3D wwn-0x5000c5009     one that is gone",
        "hostler -H h1 storage replace-disk OLD NEW --check              what speaks against it",
    ),
)
@click.argument("old")
@click.argument("new")
@click.option("--check", is_flag=True, help="Only show what is known of both disks.")
@click.option(
    "--table-from",
    default="",
    metavar="DISK",
    help="Copy this disk's partition table. [default: OLD's, or one with the other halves]",
)
@click.option(
    "--only",
    multiple=True,
    metavar="ID",
    help="Bring back this array, btrfs or group, and no others.",
)
@click.option("--erase", is_flag=True, help="What NEW holds may be lost.")
@pass_state
def replace_disk(state: State, /, old: str, new: str, **options: Any) -> None:
    """Have NEW take the place of OLD: partition table, arrays, btrfs, LVM and swap.

    OLD may be gone: say the serial number it had. It is named for whoever pulls it, and is not to
    be pulled before this is over. It is read from only where nothing else has what is on it.

    Cut off by whatever, the same command goes on where it was. With --background it is left to the
    host: see hostler jobs watch.
    """
    fields = {
        "old": old,
        "new": new,
        "table_from": options["table_from"],
        "only": options["only"],
        "erase": options["erase"],
    }
    if options["check"]:
        asked = pb.PlanReplacementRequest(**fields)
        state.tell(rpc(pb, _SERVICE, "PlanReplacement"), asked, Table(_TITLES, _rows))
    _watched(state, "ReplaceDisk", pb.ReplaceDiskRequest(**fields), _after)


@click.command(
    epilog=examples(
        "hostler -H h1 storage locate wwn-0x5000c5001", "hostler -H h1 storage locate DISK --off"
    )
)
@click.argument("disk")
@click.option("--off", is_flag=True, help="Cease.")
@pass_state
def locate(state: State, disk: str, off: bool) -> None:
    """Have its enclosure blink at a disk, so that whoever goes there finds it."""
    state.change(
        RpcChange(rpc(pb, _SERVICE, "LocateDisk"), pb.LocateDiskRequest(disk=disk, off=off))
    )


@click.command(
    name="burn-in-disk",
    epilog=examples("hostler -H h1 storage burn-in-disk wwn-0x5000c5009"),
)
@click.argument("disk")
@pass_state
def burn_in(state: State, disk: str) -> None:
    """Write all of a disk and read it back, before it is trusted with anything. Takes hours.

    What it holds is lost. It ends well if all of it was read as it was written.
    """
    _watched(state, "BurnInDisk", pb.BurnInDiskRequest(disk=disk))
