"""`hostler storage declare` and `drift`: what hosts are to have, written down and compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import click

from hostler import storage_declared as declared
from hostler.api.storage.v1 import graph_pb2 as pb
from hostler.channel import rpc
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.output import Table, show, show_errors
from hostler.results import HostResult, exit_code
from hostler.session import Session

_TITLES = ("DRIFT", "OF", "HOW")


@dataclass(frozen=True, slots=True)
class Compared:
    """What is not as declared on a host, and what the host could not see."""

    drifts: tuple[declared.Drift, ...]
    warnings: tuple[str, ...]


@click.command(epilog=examples("hostler -H all storage declare > storage.toml"))
@pass_state
def declare(state: State) -> None:
    """Print what hosts have now as TOML, for `storage drift` to compare with later.

    The room that a mount has is left out: write `free_bytes` where so much has to stay free.
    """
    import tomlkit

    results = _asked(state)
    hosts = tomlkit.table(is_super_table=True)
    for each in results:
        if each.result is not None:
            hosts[each.host] = _host(declared.found(*each.result))
    document = tomlkit.document()
    document["hosts"] = hosts
    click.echo(tomlkit.dumps(document), nl=False)
    show_errors(results)
    click.get_current_context().exit(exit_code(results))


def _host(found: declared.Found) -> dict[str, Any]:
    """The tables of a host; what is not known is not declared."""
    words = {"kernel": found.kernel, "loader_partition": found.loader_partition}
    mounts = {
        path: {key: one[key] for key in ("uuid", "type", "disks") if one[key]}
        for path, one in found.mounts.items()
    }
    arrays = {
        name: {key: one[key] for key in ("level", "disks")} for name, one in found.arrays.items()
    }
    tables = {"mounts": mounts, "arrays": arrays}
    return {key: value for key, value in {**words, **tables}.items() if value}


@click.command(
    epilog=examples(
        "hostler -H all storage drift storage.toml",
        "hostler -H h1 -o json storage drift storage.toml",
    )
)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@pass_state
def drift(state: State, file: Path) -> None:
    """Compare what hosts have with what FILE declares; `storage declare` prints such a file.

    A table [all] is for every host, [hosts.NAME] for one; where both say something, the host's
    own counts. Mounts and arrays that are there and not declared are told too, where any are.
    Exit status 1 if anything differs anywhere.
    """
    document = declared.load(file)
    results = [_compared(document, each) for each in _asked(state)]
    _finish(state, results)


def _asked(state: State) -> list[HostResult[Any]]:
    async def ask(session: Session) -> tuple[Any, Any]:
        graph = await session.call(rpc(pb, "GraphService", "GetGraph"), pb.GetGraphRequest())
        return graph, await session.call(rpc(pb, "GraphService", "GetSpace"), pb.GetSpaceRequest())

    hosts, client = state.hosts, state.client
    return state.run(client.each(hosts, ask, tolerance=state.tolerance))


def _compared(document: Any, each: HostResult[Any]) -> HostResult[Compared]:
    if each.result is None:
        return HostResult(each.host, error=each.error)
    graph, spaces = each.result
    wanted = declared.of_host(document, each.host)
    warnings = tuple(one.message for one in graph.warnings)
    if wanted is None:
        words = "the file has no table for this host, and none for all"
        found: tuple[declared.Drift, ...] = (declared.Drift("NOT_DECLARED", each.host, words),)
    else:
        found = tuple(declared.drift(wanted, declared.found(graph, spaces)))
    return HostResult(each.host, Compared(found, warnings))


def _finish(state: State, results: Sequence[HostResult[Compared]]) -> NoReturn:
    def rows(answer: Compared) -> list[Sequence[Any]]:
        found = [(one.code, one.subject, one.message) for one in answer.drifts]
        return [*(found or [("none", "", "")]), *(("", "not seen", w) for w in answer.warnings)]

    show(results, state.output, Table(_TITLES, rows))
    differs = any(each.result is not None and each.result.drifts for each in results)
    click.get_current_context().exit(1 if differs else exit_code(results))
