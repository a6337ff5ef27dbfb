"""`hostler fleet`: which hosts there are, and who of them answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.kinds import Pair
from hostler.cli.options import with_doors
from hostler.fleet import PORTS, Fleet, Host, load_fleet
from hostler.fleet_file import add_host, remove_group, remove_host, set_group, take_over
from hostler.results import HostResult


@click.group()
def fleet() -> None:
    """The hosts of the context's fleet file."""


def _show(state: State, hosts: tuple[Host, ...]) -> None:
    from hostler.cli.output import Table

    def rows(host: Any) -> Any:
        labels = ",".join(f"{key}={value}" for key, value in host["labels"].items())
        ports = ",".join(f"{key}={value}" for key, value in host["ports"].items())
        domains = ",".join(host["domains"]) or "all"
        yield host["address"], labels, ",".join(host["groups"]) or "-", domains, ports

    results = []
    for host in hosts:
        entry = {**host.to_record(), "groups": sorted(host.groups)}
        results.append(HostResult(entry.pop("name"), entry))
    state.finish(results, Table(("ADDRESS", "LABELS", "GROUPS", "DOMAINS", "PORTS"), rows))


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
        "hostler fleet add mail1 192.0.2.9 --domain ssl --domain firewall",
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
@click.option(
    "--domain",
    "domains",
    type=click.Choice(list(PORTS)),
    multiple=True,
    help="A door that it has. [default: all]",
)
@pass_state
def add(
    state: State, name: str, address: str, labels: Any, ports: Any, domains: tuple[str, ...]
) -> None:
    """Add a host. NAME must be a name in its certificate."""
    numbers = {}
    for domain, port in ports:
        if domain not in PORTS or not port.isascii() or not port.isdigit():
            raise click.UsageError(f"--port {domain}={port}: not DOMAIN=PORT")
        numbers[domain] = int(port)
    chosen = tuple(one for one in PORTS if one in domains)
    host = Host(name, address, dict(labels), numbers, chosen)
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


@fleet.command(
    epilog=examples(
        "hostler fleet group web role=web www1",
        "hostler fleet group frontend @web @mail",
        "hostler -H @web netns list",
    )
)
@click.argument("name")
@click.argument("selectors", nargs=-1, required=True)
@pass_state
def group(state: State, name: str, selectors: tuple[str, ...]) -> None:
    """Let @NAME mean the hosts of selectors: names, globs, label=value, other @groups."""
    set_group(state.context.fleet, name, selectors)
    members = load_fleet(state.context.fleet).hosts
    _show(state, tuple(host for host in members if name in host.groups))


@fleet.command(epilog=examples("hostler fleet ungroup web"))
@click.argument("name")
@pass_state
def ungroup(state: State, name: str) -> None:
    """Take a group out of the fleet file. Its hosts are left as they are."""
    remove_group(state.context.fleet, name)


@fleet.command(
    name="import",
    epilog=examples(
        "hostler --plan fleet import /etc/ansible/hosts",
        "hostler fleet import inventory.yml",
        "ansible-inventory -i inventory.yml --list | hostler fleet import -",
    ),
)
@click.argument("inventory")
@pass_state
def import_inventory(state: State, inventory: str) -> None:
    """Take the hosts and groups of an Ansible inventory into the fleet file.

    Ansible reads it; with "-" what `ansible-inventory --list` has printed is read. A host that the
    fleet has stays as it is; groups of the same name become those of the inventory. A host's
    variables `hostler_labels` and `hostler_domains` become its labels and doors.
    """
    from hostler.ansible_inventory import ask_ansible, read
    from hostler.config import read_text

    is_json = inventory == "-"
    found = read(read_text(Path("/dev/stdin")) if is_json else ask_ansible(Path(inventory)))
    path = state.context.fleet
    missing = found.missing_in(load_fleet(path) if path.exists() else Fleet())
    if not state.plan_only:
        take_over(path, missing, found.groups)
    verb = "would be added" if state.plan_only else "added"
    names = ", ".join(f"@{name}" for name in found.groups) or "none"
    click.echo(f"{len(missing)} of {len(found.hosts)} hosts {verb}; groups: {names}", err=True)
    _show(state, missing)
