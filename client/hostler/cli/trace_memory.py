"""`hostler trace mem`: where the memory of hosts is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click

from hostler.api.tracing.v1 import memory_pb2
from hostler.channel import rpc
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.output import Table

_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


@click.command(epilog=examples("hostler -H all trace mem", "hostler -H h1 trace mem --unit GiB"))
@click.option(
    "--unit",
    type=click.Choice([*_UNITS, "%"]),
    default="MiB",
    show_default=True,
    help="Of the amounts; % is of all memory.",
)
@pass_state
def mem(state: State, unit: str) -> None:
    """Say where the memory of hosts is: parts that share nothing and add up to the total.

    What is in /dev/shm and other tmpfs is told as what it is: it is in use, though free(1) counts
    it as cache. "other" is what the kernel does not account for.
    """
    method = rpc(memory_pb2, "MemoryService", "GetMemory")
    results = state.read(method, memory_pb2.GetMemoryRequest())

    def rows(answer: Any) -> Iterable[Sequence[Any]]:
        shown = _shown(unit, answer.total_bytes)
        yield "total", shown(answer.total_bytes), ""
        yield "used", shown(answer.used_bytes), ""
        word = "estimated" if answer.available_is_estimate else ""
        yield "available", shown(answer.available_bytes), word
        for part in answer.parts:
            left = shown(part.reclaimable_bytes) if part.reclaimable_bytes else ""
            yield f"  {part.name.replace('_', ' ')}", shown(part.bytes), left
        if answer.swap_total_bytes:
            yield "swap used", shown(answer.swap_used_bytes), ""

    state.finish(results, Table(("WHAT", unit.upper(), "RECLAIMABLE"), rows))


def _shown(unit: str, total_bytes: int) -> Callable[[int], str]:
    if unit == "%":
        return lambda amount: f"{100 * amount / max(1, total_bytes):.1f}"
    return lambda amount: f"{amount / _UNITS[unit]:.{0 if unit == 'B' else 1}f}"
