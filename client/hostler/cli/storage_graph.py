"""`hostler storage show`, `space` and `health`: what hosts store things on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from hostler.api.storage.v1 import graph_pb2 as pb
from hostler.channel import rpc
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.output import Table
from hostler.cli.output import show as show_results
from hostler.config import HostlerError
from hostler.skew import word

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_SHOWN = ("DEVICE", "KIND", "SIZE", "STATE", "WHAT", "ID")
_SPACES = ("MOUNT", "TYPE", "SIZE", "USED", "ON DISK", "RATIO", "FREE AT LEAST", "AT MOST", "DF")


def size(amount: float) -> str:
    """A size in bytes for people."""
    for unit in _UNITS:
        if abs(amount) < 1024 or unit == _UNITS[-1]:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    raise AssertionError


@click.command(
    epilog=examples(
        "hostler -H all storage show",
        "hostler -H h1 -o json storage show",
        "hostler -H h1 storage show --svg disks.svg",
    )
)
@click.option(
    "--svg",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw the graph into this file too; of several hosts, one picture below the other.",
)
@pass_state
def show(state: State, svg: Path | None) -> None:
    """Show disks, and what lies on what, down to where it is mounted.

    What lies on several devices is shown below each of them. IDs are the same after a boot, names
    need not be.
    """
    method = rpc(pb, "GraphService", "GetGraph")
    results = state.read(method, pb.GetGraphRequest())
    if svg is not None:
        from hostler.storage_svg import drawn

        graphs = [(each.host, each.result) for each in results if each.ok]
        try:
            svg.write_text(drawn(graphs))
        except OSError as error:
            raise HostlerError(f"{svg}: {error.strerror}") from error
    state.finish(results, Table(_SHOWN, _tree))


def _tree(answer: Any) -> Iterator[Sequence[Any]]:
    nodes = {node.id: node for node in answer.nodes}
    uppers: dict[str, list[tuple[str, str]]] = {}
    carried = set()
    for edge in answer.edges:
        uppers.setdefault(edge.lower, []).append((edge.upper, edge.role))
        carried.add(edge.upper)

    def below(node_id: str, role: str, depth: int, path: frozenset[str]) -> Iterator[Sequence[Any]]:
        node = nodes[node_id]
        yield _row(node, role, depth)
        for upper, its_role in uppers.get(node_id, ()):
            if upper not in path:
                yield from below(upper, its_role, depth + 1, path | {upper})

    for node in answer.nodes:
        if node.id not in carried:
            yield from below(node.id, "", 0, frozenset({node.id}))


def _row(node: Any, role: str, depth: int) -> Sequence[Any]:
    kind = word(pb.NodeKind, node.kind)
    return (
        f"{'  ' * depth}{node.name}",
        f"{kind}, {role}" if role else kind,
        size(node.size_bytes) if node.size_bytes else "",
        node.state or ("read-only" if node.read_only else ""),
        _what(node),
        node.id,
    )


def _what(node: Any) -> str:
    facts: Mapping[str, str] = node.facts
    words = [
        node.label,
        " ".join(filter(None, (node.model, node.serial))),
        facts.get("level", ""),
        facts.get("backing_file", ""),
        facts.get("dm_name", ""),
        f"{facts['sync_action']} {facts['sync_percent']} %" if "sync_percent" in facts else "",
        *(one.type for one in node.signatures if one.usage != "filesystem"),
    ]
    return ", ".join(word for word in words if word)


@click.command(
    epilog=examples("hostler -H all storage space", "hostler -H h1 -o json storage space")
)
@pass_state
def space(state: State) -> None:
    """Say how much room there is: what is stored, what it takes of the disks, what will fit.

    Where a filesystem spreads copies over disks, what fits depends on where it puts the next byte:
    so there are two numbers. DF is what df(1) calls available.
    """
    method = rpc(pb, "GraphService", "GetSpace")
    results = state.read(method, pb.GetSpaceRequest())

    def rows(answer: Any) -> Iterable[Sequence[Any]]:
        for one in answer.spaces:
            yield (
                one.mount,
                one.type,
                size(one.physical_bytes),
                size(one.used_bytes),
                size(one.physical_used_bytes),
                f"{one.ratio:.1f}" if one.ratio else "varies",
                size(one.free_least_bytes),
                size(one.free_most_bytes),
                size(one.df_available_bytes),
            )

    state.finish(results, Table(_SPACES, rows))


@click.command(epilog=examples("hostler -H all storage health"))
@pass_state
def health(state: State) -> None:
    """Say whether all is well with what hosts store things on, and what is not.

    Exit status 1 if it is critical anywhere.
    """
    method = rpc(pb, "GraphService", "GetHealth")
    results = state.read(method, pb.GetHealthRequest())

    def rows(answer: Any) -> Iterable[Sequence[Any]]:
        if not answer.reasons:
            yield "good", "", ""
        for one in answer.reasons:
            level = word(pb.HealthLevel, one.level)
            yield level, one.code, one.message

    critical = any(
        result.result is not None and result.result.level == pb.HEALTH_LEVEL_CRITICAL
        for result in results
    )
    table = Table(("HEALTH", "CODE", "WHY"), rows)
    if not critical:
        state.finish(results, table)
    show_results(results, state.output, table)
    click.get_current_context().exit(1)
