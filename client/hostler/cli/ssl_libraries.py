"""`hostler ssl affected` and `hostler ssl stale`: which processes run which TLS libraries."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import click

from hostler.api.ssl.v1 import library_pb2
from hostler.channel import rpc
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.output import Table
from hostler.cli.ssl_findings import some, tell_apart

_TITLES = ("RESTART", "PROCESS", "PID", "USER", "USE", "NETWORK", "LIBRARY", "VERSION", "WHY")
_LINKAGES = {1: "", 2: "bundled", 3: "static"}
_USES = {1: "tls", 2: "crypto"}


def _rows(answer: Any) -> Iterable[Sequence[Any]]:
    for each in answer.users:
        where = f"{each.container}: " if each.container else ""
        yield (
            f"{where}{each.unit or '-'}",
            each.comm,
            each.pid,
            each.user,
            _USES.get(each.use, "-"),
            "yes" if each.network else "no",
            some(_library(library) for library in each.libraries),
            some(library.package_version or library.version for library in each.libraries),
            some(library.reason for library in each.libraries if library.reason),
        )


def _library(of: Any) -> str:
    how = _LINKAGES.get(of.linkage, "")
    return f"{of.library} ({how}: {of.path})" if how else str(of.library)


def _list(state: State, asked: library_pb2.ListLibraryUsersRequest) -> None:
    method = rpc(library_pb2, "LibraryService", "ListLibraryUsers")
    results = state.read(method, asked, pages=True)
    if state.output == "table":
        tell_apart(results)
    state.finish(results, Table(_TITLES, _rows))


@click.command(epilog=examples("hostler -H all ssl stale", "hostler -H all -o json ssl stale"))
@pass_state
def stale(state: State) -> None:
    """List the processes that still run a TLS or crypto library which has been replaced.

    Those of containers too. RESTART is the unit to restart, which takes the process off the list.
    """
    _list(state, library_pb2.ListLibraryUsersRequest(stale=True))


@click.command(
    epilog=examples(
        "hostler -H all ssl affected --library libssl --fixed-in 3.0.17",
        "hostler -H all ssl affected --library openssl --fixed-in 3.0.17-1~deb12u3 --static",
    )
)
@click.option("--library", default="", help="A library, such as libssl, or a family: openssl.")
@click.option("--fixed-in", default="", help="Only versions before this one, or not known.")
@click.option("--static", is_flag=True, help="Copies inside of programs, too.")
@pass_state
def affected(state: State, library: str, fixed_in: str, static: bool) -> None:
    """List the processes that a flaw in a TLS or crypto library touches, and what to restart.

    A version with a "-" in it is one of a Debian package and compared as such. USE tells those that
    speak TLS from those that use primitives alone.
    """
    _list(
        state,
        library_pb2.ListLibraryUsersRequest(
            library=library, fixed_in=fixed_in, static_copies=static
        ),
    )
