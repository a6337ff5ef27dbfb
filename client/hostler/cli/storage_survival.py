"""`hostler storage survival`: the loss of what each volume survives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import click

from hostler.api.storage.v1 import graph_pb2 as pb
from hostler.channel import rpc
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.output import Table
from hostler.skew import word

_TITLES = ("VOLUME", "KIND", "SURVIVES", "LOST WITH", "NOT LOST WITH")


@click.command(
    epilog=examples("hostler -H all storage survival", "hostler -H h1 -o json storage survival")
)
@pass_state
def survival(state: State) -> None:
    """Say the loss of which disk, controller or other host each volume survives.

    SURVIVES counts disks, whichever they are. What has lost legs already is told as it is now.
    """
    method = rpc(pb, "GraphService", "GetSurvival")
    state.tell(method, pb.GetSurvivalRequest(), Table(_TITLES, _rows))


def _rows(answer: Any) -> Iterator[Sequence[Any]]:
    for one in answer.volumes:
        kind = word(pb.NodeKind, one.kind)
        where = f"{one.name} at {', '.join(one.mounts)}" if one.mounts else one.name
        if not one.there:
            yield where, kind, "not there: too much is lost", "", ""
            continue
        yield (
            where,
            kind,
            ("no disk", "any one disk", "any two disks")[one.any_disks],
            _named(each for each in one.losses if not each.survived),
            _named(each for each in one.losses if each.survived),
        )


def _named(losses: Iterable[Any]) -> str:
    words = []
    for one in losses:
        unit = word(pb.LossUnit, one.unit)
        words.append(one.name if unit == "disk" and one.name else f"{unit} {one.id}")
    return ", ".join(words)
