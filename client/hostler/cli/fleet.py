"""`hostler fleet`: which hosts there are, and who of them answers."""

from __future__ import annotations

from typing import Any

import click

from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.kinds import Pair
from hostler.cli.options import with_doors
from hostler.fleet import PORTS, Host, add_host, load_fleet, remove_host
from hostler.results import HostResult


@click.group()
def fleet() -> None:
    """The hosts of the context's fleet file."""


def _show(state: State, hosts: tuple[Host, ...]) -> None:
    from hostler.cli.output import Table

    def rows(host: Any) -> Any:
        labels = ",".join(f"{key}={value}" for key, value in host["labels"].items())
        ports = ",".join(f"{key}={value}" for key, value in host["ports"].items())
        yield host["address"], labels, ports

    results = [
        HostResult(
            host.name,
            {"address": host.address, "labels": dict(host.labels), "ports": dict(host.ports)},
        )
        for host in hosts
    ]
    state.finish(results, Table(("ADDRESS", "LABELS", "PORTS"), rows))


@fleet.command(
    name="list", epilog=examples("hostler fleet list", "hostler -H role=web -o json fleet list")
)
@pass_state
def list_hosts(state: State) -> None:
    """List the selected hosts, or all. Asks nobody."""
    _show(state, state.hosts_or_all)


@fleet.command(epilog=examples("hostler fleet show h1"))
@click.argument("name")
@pass_state
def show(state: State, name: str) -> None:
    """Show one host's entry. Asks nobody."""
    _show(state, state.fleet.select([name]))


@fleet.command(
    epilog=examples("hostler fleet check", "hostler -H role=web fleet check --domain netns")
)
@with_doors
@pass_state
def check(state: State, doors: tuple[str, ...]) -> None:
    """Ask the selected hosts, or all, at every door: version, bundle, what is missing and why."""
    from hostler.cli.host import check as check_hosts

    check_hosts(state, state.hosts_or_all, doors)


@fleet.command(
    epilog=examples(
        "hostler fleet add h4 10.77.0.14 --label role=web",
        "hostler fleet add db1 db1.example.net --port netns=17441",
    )
)
@click.argument("name")
@click.argument("address")
@click.option("--label", "labels", type=Pair(), multiple=True)
@click.option(
    "--port",
    "ports",
    type=Pair(),
    multiple=True,
    metavar="DOMAIN=PORT",
    help="Where a domain's door is elsewhere than by default.",
)
@pass_state
def add(state: State, name: str, address: str, labels: Any, ports: Any) -> None:
    """Add a host. NAME must be a name in its certificate."""
    numbers = {}
    for domain, port in ports:
        if domain not in PORTS or not port.isascii() or not port.isdigit():
            raise click.UsageError(f"--port {domain}={port}: not DOMAIN=PORT")
        numbers[domain] = int(port)
    host = Host(name, address, dict(labels), numbers)
    add_host(state.context.fleet, host)
    _show(state, (host,))


@fleet.command(epilog=examples("hostler fleet remove h4"))
@click.argument("name")
@pass_state
def remove(state: State, name: str) -> None:
    """Take a host out of the fleet file. The host itself is left as it is."""
    host = load_fleet(state.context.fleet).select([name])
    remove_host(state.context.fleet, name)
    _show(state, host)
