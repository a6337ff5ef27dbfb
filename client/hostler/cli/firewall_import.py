"""`hostler firewall import`: rules of others as a ruleset; what cannot be said is told by line."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import NoReturn

import click

from hostler.api.netns.v1 import namespace_pb2
from hostler.channel import rpc
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.kinds import Pair
from hostler.cli.output import printable
from hostler.config import ConfigError, read_text
from hostler.firewall_import import Imported
from hostler.firewall_iptables import import_iptables
from hostler.firewall_lxc_nat import import_lxc_nat, read_hosts

_FILE = click.argument("path", metavar="FILE", type=click.Path(path_type=Path, allow_dash=True))


@click.group(name="import")
def import_() -> None:
    """Make a ruleset, as TOML on standard output, of what others have written.

    What a ruleset cannot say stands in it as a comment, is told on standard error, and makes the
    exit status 1. Nothing is sent to any host.
    """


@import_.command(
    name="iptables",
    epilog=examples(
        "iptables-save | hostler firewall import iptables - > v4.toml",
        "hostler firewall import iptables --name v6 --ipv6 rules.v6 > v6.toml",
    ),
)
@_FILE
@click.option("--name", default="imported", show_default=True, help="The ruleset's name.")
@click.option(
    "--ipv4/--ipv6", "ipv4", default=None, help="Whose text it is.  [default: as its heading says]"
)
@click.option(
    "--both-families",
    is_flag=True,
    help="Have rules without addresses hold for IPv4 and IPv6. Otherwise they hold for the family "
    "of the text, as they did.",
)
@click.option(
    "--exact",
    is_flag=True,
    help="Drop by a last rule what a policy of DROP dropped. A policy of ours lets ICMP and some "
    "more pass, and so can other rulesets.",
)
def iptables(path: Path, name: str, ipv4: bool | None, both_families: bool, exact: bool) -> None:
    """Import what iptables-save or ip6tables-save has written; FILE may be -."""
    ipv6 = None if ipv4 is None else not ipv4
    text = _read(path)
    _end(import_iptables(text, name, ipv6=ipv6, both_families=both_families, exact=exact), path)


@import_.command(
    name="lxc-nat",
    epilog=examples(
        "1.2.3.4:8080 -> www:80",
        "1.2.3.4:53/udp -> dns:53       # tcp if it says nothing",
        "[2001:db8::1]:80 -> www:80",
        "*:2222 -> 10.0.3.7:22",
        title="The file has a forward a line:",
    )
    + "\n\n"
    + examples(
        "hostler firewall import lxc-nat --map www=10.0.3.5 lxc-nat.conf > nat.toml",
        "hostler -H h1 firewall import lxc-nat --netns lxc-nat.conf > nat.toml",
    ),
)
@_FILE
@click.option("--name", default="lxc-nat", show_default=True, help="The ruleset's name.")
@click.option(
    "--map", "pairs", multiple=True, type=Pair(), help="A container's address: NAME=ADDRESS."
)
@click.option(
    "--hosts-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A file such as /etc/hosts, which names containers.",
)
@click.option("--netns", is_flag=True, help="Take the namespaces of the selected host by name.")
@pass_state
def lxc_nat(
    state: State,
    path: Path,
    name: str,
    pairs: tuple[tuple[str, str], ...],
    hosts_file: Path | None,
    netns: bool,
) -> None:
    """Import a file of lxc-nat as forwards; FILE may be -."""
    names: dict[str, list[str]] = {}
    if netns:
        names |= _namespaces(state)
    if hosts_file is not None:
        names |= read_hosts(read_text(hosts_file), str(hosts_file))
    mapped: dict[str, list[str]] = {}
    for key, value in pairs:
        try:
            mapped.setdefault(key, []).append(str(ip_address(value)))
        except ValueError as error:
            raise click.UsageError(f"--map: {value!r} is not an address") from error
    _end(import_lxc_nat(_read(path), name, names | mapped), path)


def _namespaces(state: State) -> dict[str, list[str]]:
    """The addresses of the namespaces of the one selected host."""
    state.one_host()
    method = rpc(namespace_pb2, "NamespaceService", "ListNamespaces")
    results = state.read(method, namespace_pb2.ListNamespacesRequest(), pages=True)
    if not results[0].ok:
        state.end(results)
    found: dict[str, list[str]] = {}
    for space in results[0].value().namespaces:
        for each in (address for link in space.interfaces for address in link.addresses):
            try:
                address = str(ip_interface(each).ip)
            except ValueError as error:
                raise ConfigError(f"{results[0].host}: {each!r} is not an address") from error
            found.setdefault(space.name, []).append(address)
    return found


def _read(path: Path) -> str:
    return read_text(Path("/dev/stdin") if str(path) == "-" else path)


def _end(made: Imported, path: Path) -> NoReturn:
    """Print the file, tell what it does not say, and leave."""
    # A line is told as often as it is reached by different ways; here once for each reason.
    click.echo(made.to_toml([f"made by hostler firewall import of {path}"]), nl=False)
    for words in made.notes:
        click.echo(printable(f"{path}: note: {words}"), err=True)
    for each in made.unsaid:
        told = f"{path}:{each.number}: not said: {each.line}: {each.why}"
        click.secho(printable(told), fg="red", err=True)
    click.get_current_context().exit(1 if made.unsaid else 0)
