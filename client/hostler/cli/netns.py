"""`hostler netns`: namespaces; processes and counters are in the modules beside this one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from hostler.api.netns.v1 import namespace_pb2
from hostler.channel import rpc
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.kinds import Pair
from hostler.cli.netns_counters import counters
from hostler.cli.netns_process import COMMANDS
from hostler.cli.netns_run import run
from hostler.cli.output import Table
from hostler.desired import load_message
from hostler.plans import RpcChange

_SERVICE = "NamespaceService"


@click.group(name="netns")
def netns() -> None:
    """Network namespaces, the processes in them, and the counters of their links."""


for _command in (*COMMANDS, counters, run):
    netns.add_command(_command)


def _rows(answer: Any) -> Iterable[Sequence[Any]]:
    spaces = answer.namespaces if hasattr(answer, "namespaces") else [answer.namespace]
    for space in spaces:
        yield (
            space.name,
            "hostler" if space.managed else "other",
            ", ".join(address for each in space.interfaces for address in each.addresses),
            ", ".join(_link(each) for each in space.interfaces),
            space.process_count,
            "yes" if space.persistent else "no",
            "; ".join(space.drift),
        )


def _link(interface: Any) -> str:
    kind = interface.WhichOneof("link") or ""
    beyond = {
        "veth": interface.veth.bridge or interface.veth.host_ifname,
        "macvlan": interface.macvlan.parent,
    }.get(kind, "")
    return f"{interface.name}@{beyond}" if beyond else str(interface.name)


_TABLE = Table(("NAME", "MADE BY", "ADDRESSES", "LINKS", "TASKS", "PERSISTENT", "DRIFT"), _rows)


def _addresses(answer: Any) -> str:
    space = answer.namespace
    addresses = [address for each in space.interfaces for address in each.addresses]
    return " ".join([str(space.name), *addresses])


@netns.command(
    name="list",
    epilog=examples(
        "hostler -H all netns list", "hostler -H role=web -o json netns list --managed"
    ),
)
@click.option("--managed", is_flag=True, help="Only those that Hostler made.")
@pass_state
def list_namespaces(state: State, managed: bool) -> None:
    """List namespaces, those that Hostler did not make included."""
    request = namespace_pb2.ListNamespacesRequest(managed_only=managed)
    method = rpc(namespace_pb2, _SERVICE, "ListNamespaces")
    state.tell(method, request, _TABLE, pages=True)


@netns.command(epilog=examples("hostler -H h1 -o yaml netns get web"))
@click.argument("name")
@pass_state
def get(state: State, name: str) -> None:
    """Show a namespace as the kernel has it."""
    request = namespace_pb2.GetNamespaceRequest(name=name)
    state.tell(rpc(namespace_pb2, _SERVICE, "GetNamespace"), request, _TABLE)


class RoutePair(Pair):
    """DESTINATION=GATEWAY."""

    name = "DST=GW"


@netns.command(
    epilog=examples(
        "hostler -H h1 netns create web --pool default --default-route --dns 9.9.9.9",
        "hostler -H h1 netns create db --address 10.1.0.2/30 --host-address 10.1.0.1/30",
        "hostler -H h1 netns create lan --bridge br0 --address 192.0.2.9/24 \\",
        "    --default-route --gateway 192.0.2.1",
        "hostler -H all --plan netns create web --pool default",
    )
)
@click.argument("name")
@click.option("--address", "addresses", multiple=True, metavar="CIDR", help="Such as 10.1.0.2/30.")
@click.option(
    "--host-address",
    "host_addresses",
    multiple=True,
    metavar="CIDR",
    help="Of the host's end of the link.",
)
@click.option("--pool", help="Take addresses of both families from this pool of the host.")
@click.option("--bridge", help="Join this bridge of the host.")
@click.option("--macvlan", metavar="PARENT", help="A macvlan link on this link of the host.")
@click.option("--mtu", type=click.IntRange(68, 65535), help="Without the L2 header, in bytes.")
@click.option(
    "--route", "routes", type=RoutePair(), multiple=True, help="Such as default=10.1.0.1."
)
@click.option("--default-route", is_flag=True, help="By the host, or by --gateway.")
@click.option(
    "--gateway",
    "gateways",
    multiple=True,
    metavar="IP",
    help="The default gateway behind a bridge or macvlan.",
)
@click.option("--dns", "servers", multiple=True, metavar="IP", help="A resolver of its own.")
@click.option("--hostname", help="What its processes see. [default: NAME]")
@click.option(
    "--unprivileged-ports-from",
    type=click.IntRange(0, 65535),
    metavar="N",
    help="The first port that needs no privilege.",
)
@click.option("--persistent", is_flag=True, help="A boot brings it back.")
@click.option(
    "--remove-with-processes",
    is_flag=True,
    help="It goes when the last process that was started in it is gone.",
)
@pass_state
def create(state: State, /, name: str, **options: Any) -> None:
    """Create a namespace. If one of that name and shape is there, nothing is done."""
    space = _namespace(name, options)
    request = namespace_pb2.CreateNamespaceRequest(namespace=space)
    method = rpc(namespace_pb2, _SERVICE, "CreateNamespace")
    state.change(RpcChange(method, request), _addresses)


def _namespace(name: str, options: dict[str, Any]) -> namespace_pb2.Namespace:
    space = namespace_pb2.Namespace(
        name=name,
        hostname=options["hostname"] or "",
        persistent=options["persistent"],
        remove_with_processes=options["remove_with_processes"],
        routes=[
            namespace_pb2.Route(destination=destination, gateway=gateway)
            for destination, gateway in options["routes"]
        ],
    )
    if options["servers"]:
        space.dns.servers.extend(options["servers"])
    if options["unprivileged_ports_from"] is not None:
        space.unprivileged_port_start = options["unprivileged_ports_from"]
    link = _interface(options)
    if link is not None:
        space.interfaces.append(link)
    return space


def _interface(options: dict[str, Any]) -> namespace_pb2.Interface | None:
    """The one link that the options describe, or None if they describe none."""
    if options["bridge"] and options["macvlan"]:
        raise click.UsageError("--bridge and --macvlan are two kinds of link: give one of them")
    if options["host_addresses"] and (options["bridge"] or options["macvlan"]):
        raise click.UsageError("--host-address is for a link whose other end is the host")
    if not any(
        options[key]
        for key in (
            "addresses",
            "host_addresses",
            "pool",
            "bridge",
            "macvlan",
            "mtu",
            "default_route",
            "gateways",
        )
    ):
        return None
    link = namespace_pb2.Interface(
        addresses=options["addresses"],
        ipv4_pool=options["pool"] or "",
        ipv6_pool=options["pool"] or "",
        default_route=options["default_route"],
        gateways=options["gateways"],
    )
    if options["mtu"] is not None:
        link.mtu_bytes = options["mtu"]
    if options["macvlan"]:
        link.macvlan.parent = options["macvlan"]
    else:
        link.veth.CopyFrom(
            namespace_pb2.Veth(
                bridge=options["bridge"] or "", host_addresses=options["host_addresses"]
            )
        )
    return link


@netns.command(
    epilog=examples(
        "hostler -H h1 netns delete web", "hostler -H all --yes netns delete web --stop-processes"
    )
)
@click.argument("name")
@click.option("--stop-processes", is_flag=True, help="End the processes in it as well.")
@pass_state
def delete(state: State, name: str, stop_processes: bool) -> None:
    """Delete a namespace and all that was made with it. One that is not there is no error."""
    request = namespace_pb2.DeleteNamespaceRequest(name=name, stop_processes=stop_processes)
    state.change(RpcChange(rpc(namespace_pb2, _SERVICE, "DeleteNamespace"), request))


_APPLY_FILE = (
    examples(
        "[[namespaces]]",
        'name = "web"',
        'dns = { servers = ["9.9.9.9"] }',
        "[[namespaces.interfaces]]",
        "veth = {}",
        'ipv4_pool = "default"',
        "default_route = true",
        title="The file has the names of the API:",
    )
    + "\n\n"
)


@netns.command(
    epilog=_APPLY_FILE
    + examples(
        "hostler -H h1 --plan netns apply -f spaces.toml",
        "hostler -H role=web netns apply -f spaces.toml --delete-unlisted",
    )
)
@click.option(
    "-f",
    "--file",
    "path",
    required=True,
    type=click.Path(path_type=Path),
    help="The desired namespaces, as TOML.",
)
@click.option(
    "--delete-unlisted",
    is_flag=True,
    help="Delete those that Hostler made and that the file does not name.",
)
@pass_state
def apply(state: State, path: Path, delete_unlisted: bool) -> None:
    """Make namespaces be as a file says. All are checked before the first is touched."""
    request = load_message(path, namespace_pb2.ApplyNamespacesRequest())
    if request.HasField("change"):
        raise click.UsageError(f"{path}: change: is not for the file to say")
    request.delete_unlisted = request.delete_unlisted or delete_unlisted
    state.change(
        RpcChange(rpc(namespace_pb2, _SERVICE, "ApplyNamespaces"), request),
        lambda answer: ", ".join(space.name for space in answer.namespaces),
    )
