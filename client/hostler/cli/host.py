"""`hostler host`, and the check of `hostler fleet`: what hosts are and what they can do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

import click

import hostler.doors
from hostler.api.common.v1 import host_pb2
from hostler.channel import Rpc, rpc
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.options import with_doors
from hostler.cli.output import Table
from hostler.fleet import Host
from hostler.results import HostResult

_GET_HOST = rpc(host_pb2, "HostService", "GetHost")


def at_doors(
    state: State,
    hosts: Sequence[Host],
    doors: Sequence[str],
    method: Rpc,
    request: Any,
    heard: Callable[[HostResult[Any]], None] | None = None,
) -> list[HostResult[Any]]:
    """Call a method that every daemon has at several doors of each host, or all."""
    return state.run(
        hostler.doors.at_doors(state.client, hosts, doors, method, request, heard=heard)
    )


def _tell(state: State, hosts: Sequence[Host], doors: Sequence[str], table: Table) -> NoReturn:
    heard = state.as_heard
    results = at_doors(state, hosts, doors, _GET_HOST, host_pb2.GetHostRequest(), heard)
    state.finish(results, table, told=heard is not None)


def _rows(answer: Any) -> Iterable[Sequence[Any]]:
    host = answer.host
    missing = [f"{c.name} ({c.reason})" for c in host.capabilities if not c.available]
    yield (
        host.version,
        host.hostname,
        host.kernel_release,
        host.bundle_version or f"none: {host.bundle_problem}",
        _day(host, "certificate_expire_time"),
        host.caller,
        "; ".join(missing) or "-",
    )


def _day(message: Any, field: str) -> str:
    if not message.HasField(field):
        return "-"
    return str(getattr(message, field).ToDatetime().strftime("%Y-%m-%d"))


TABLE = Table(
    ("VERSION", "HOSTNAME", "KERNEL", "BUNDLE", "CERTIFICATE UNTIL", "YOU ARE", "MISSING"), _rows
)


def check(state: State, hosts: Sequence[Host], doors: Sequence[str]) -> NoReturn:
    """Ask every door of hosts what it is and what works; print and leave."""
    _tell(state, hosts, doors, TABLE)


@click.group()
def host() -> None:
    """What hosts are, and what they can do."""


@host.command(
    epilog=examples("hostler -H h1 host get", "hostler -H all -o json host get --domain netns")
)
@with_doors
@pass_state
def get(state: State, doors: tuple[str, ...]) -> None:
    """Ask each door of a host for version, capabilities, bundle and clock."""
    check(state, state.hosts, doors)


@host.command(epilog=examples("hostler -H h1 host capabilities"))
@with_doors
@pass_state
def capabilities(state: State, doors: tuple[str, ...]) -> None:
    """List what was probed on a host: what works, and why the rest does not."""

    def rows(answer: Any) -> Iterable[Sequence[Any]]:
        for each in answer.host.capabilities:
            yield each.name, "yes" if each.available else "no", each.reason

    _tell(state, state.hosts, doors, Table(("CAPABILITY", "WORKS", "WHY NOT"), rows))
