"""The steps between a namespace as it is and as it should be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from hostlerd.netns.model.link_steps import (
    AddAddress,
    AddRoute,
    CreateMacvlan,
    CreateVeth,
    JoinBridge,
    RemoveAddress,
    RemoveLink,
    RemoveRoute,
    SetLinkUp,
    SetMtu,
    SetSysctl,
)
from hostlerd.netns.model.namespace import (
    DEFAULT_PORT_START,
    Address,
    Interface,
    Macvlan,
    Namespace,
    Network,
    Route,
    Veth,
)
from hostlerd.netns.model.record import to_record
from hostlerd.netns.model.seen import Host, Link, Seen
from hostlerd.netns.model.steps import CreateNetns, PublishNetns, RemoveNetns, SaveSpec, WriteDns
from hostlerd.netns.plan.dns import etc_files
from hostlerd.runtime.steps import Step, fingerprint

PORT_START = "net/ipv4/ip_unprivileged_port_start"


@dataclass(slots=True)
class _Work:
    """What is being put together: steps in order, and links that will be new."""

    want: Namespace
    seen: Seen
    host: Host
    steps: list[Step] = field(default_factory=list)
    removed: set[str] = field(default_factory=set)
    flushed: set[tuple[str, int]] = field(default_factory=set)


def converge(want: Namespace, seen: Seen | None, host: Host) -> tuple[Step, ...]:
    """Answer the steps that make the namespace be as wanted; none if it is already.

    PublishNetns is left to the caller, which publishes many at once: see `publish`.
    """
    work = _Work(want, seen or Seen(want.name), host)
    if work.seen.record != want:
        work.steps.append(SaveSpec(want, work.seen.record))
    files = etc_files(want)
    if work.seen.etc != files:
        work.steps.append(WriteDns(want.name, files, work.seen.etc))
    _remove_links(work)
    if not work.seen.inode:
        if work.seen.stale_handle:
            work.steps.append(RemoveNetns(want.name))
        work.steps.append(CreateNetns(want.name))
    else:
        lo = work.seen.link("lo")
        if lo and not lo.up:
            work.steps.append(SetLinkUp(want.name, "lo"))
        _remove_routes(work)
    _set_sysctl(work, PORT_START, str(_port_start(want)), str(DEFAULT_PORT_START))
    for interface in want.interfaces:
        _converge_interface(work, interface)
    _add_routes(work)
    return tuple(work.steps)


def publish(names: Iterable[str]) -> tuple[Step, ...]:
    """Answer the step that gives new namespaces their handles, if there are any."""
    names = tuple(names)
    return (PublishNetns(names),) if names else ()


def drift(seen: Seen, host: Host) -> tuple[str, ...]:
    """Say in words how a namespace differs from what is on record of it."""
    if seen.record_problem:
        return (seen.record_problem,)
    if seen.record is None:
        return ()
    if not seen.inode:
        return (CreateNetns(seen.name).lack(),)
    words = (getattr(step, "lack", None) for step in converge(seen.record, seen, host))
    return tuple(word() for word in words if word)


def etag_of(record: Namespace | None, differs: tuple[str, ...]) -> str:
    """Answer the etag of a namespace; empty for one that is not on record."""
    if record is None:
        return fingerprint(list(differs)) if differs else ""
    return fingerprint([to_record(record), list(differs)])


def _port_start(want: Namespace) -> int:
    start = want.unprivileged_port_start
    return DEFAULT_PORT_START if start is None else start


def build(interface: Interface, where: str) -> tuple[Step, ...]:
    """Answer the steps that make a link of a namespace, its routes left out."""
    work = _Work(Namespace(where), Seen(where), Host())
    _converge_interface(work, interface)
    return tuple(work.steps)


def same_make(interface: Interface, inside: Link | None, host: Host) -> bool:
    """Tell whether a link is what the interface is made of, so that the rest can be adjusted."""
    if inside is None:
        return False
    link = interface.link
    below = host.links.get(link.parent if isinstance(link, Macvlan) else link.host_ifname)
    if below is None or inside.parent_index != below.index:
        return False
    if isinstance(link, Macvlan):
        return inside.kind == "macvlan" and inside.mode == link.mode
    return inside.kind == "veth" and below.kind == "veth"


def _remove_links(work: _Work) -> None:
    """Remove links of ours that are not wanted, or of another make, and ends left on the host."""
    record = work.seen.record
    recorded = record.interfaces if record else ()
    kept = {
        interface.name
        for interface in work.want.interfaces
        if same_make(interface, work.seen.link(interface.name), work.host)
    }
    concerned = {i.name for i in (*recorded, *work.want.interfaces)}
    for link in work.seen.links:
        if link.name in concerned - kept:
            work.steps.append(RemoveLink(work.want.name, link.name, remake_link(record, link.name)))
            work.removed.add(link.name)
    gone = {
        end
        for interface in recorded
        if (end := _host_end(interface))
        and same_make(interface, work.seen.link(interface.name), work.host)
    }
    for interface in recorded:
        end = _host_end(interface)
        # An end whose other end is in no namespace of that name: a rest of something half-made.
        if end in work.host.links and end not in gone and end not in _ends(work.want, kept):
            work.steps.append(RemoveLink("", end))


def _host_end(interface: Interface) -> str:
    return interface.link.host_ifname if isinstance(interface.link, Veth) else ""


def _ends(want: Namespace, kept: set[str]) -> set[str]:
    return {_host_end(i) for i in want.interfaces if i.name in kept}


def remake_link(record: Namespace | None, ifname: str) -> tuple[Step, ...]:
    """Answer the steps that make a removed link again as it is on record, its routes included."""
    interface = record.interface(ifname) if record else None
    if record is None or interface is None:
        return ()
    routes = [r for r in record.all_routes() if r.ifname == ifname]
    return (
        *build(interface, record.name),
        *(AddRoute(record.name, route) for route in in_order(routes)),
    )


def in_order(routes: Iterable[Route]) -> list[Route]:
    """Answer routes on links before those by routers, which the kernel must be able to reach."""
    return sorted(routes, key=lambda r: r.gateway is not None)


def _converge_interface(work: _Work, interface: Interface) -> None:
    name, where = interface.name, work.want.name
    inside = None if name in work.removed else work.seen.link(name)
    outside = work.host.links.get(_host_end(interface)) if inside else None
    if inside is None:
        work.steps.append(_create(interface, where))
        inside = Link(name, "new", mtu_bytes=interface.mtu_bytes)
        work.removed.add(name)
    outside = outside or Link(_host_end(interface), "new", mtu_bytes=interface.mtu_bytes)
    if isinstance(interface.link, Veth):
        _converge_host_end(work, interface, interface.link, outside)
    if inside.mtu_bytes != interface.mtu_bytes:
        work.steps.append(SetMtu(where, name, interface.mtu_bytes, inside.mtu_bytes))
    if any(a.version == 6 for a in interface.addresses):
        # Addresses and routes are the ones asked for; a router's advertisements add none.
        _set_sysctl(work, f"net/ipv6/conf/{name}/accept_ra", "0", "1", ifname=name)
    _converge_addresses(work, where, inside, interface.addresses)
    if not inside.up:
        work.steps.append(SetLinkUp(where, name))


def _converge_host_end(work: _Work, interface: Interface, link: Veth, outside: Link) -> None:
    end = link.host_ifname
    if outside.mtu_bytes != interface.mtu_bytes:
        work.steps.append(SetMtu("", end, interface.mtu_bytes, outside.mtu_bytes))
    if outside.master != link.bridge:
        work.steps.append(JoinBridge(end, link.bridge, outside.master))
    _converge_addresses(work, "", outside, link.host_addresses)
    if not outside.up:
        work.steps.append(SetLinkUp("", end))


def _create(interface: Interface, where: str) -> Step:
    link = interface.link
    if isinstance(link, Veth):
        return CreateVeth(where, interface.name, link.host_ifname, interface.mtu_bytes)
    return CreateMacvlan(where, interface.name, link.parent, link.mode, interface.mtu_bytes)


def _converge_addresses(work: _Work, where: str, link: Link, wanted: tuple[Address, ...]) -> None:
    going = _going(link, wanted)
    for address in going:
        work.steps.append(RemoveAddress(where, link.name, address))
    for address in wanted:
        if address in going or address not in link.addresses:
            work.steps.append(AddAddress(where, link.name, address))


def _going(link: Link, wanted: tuple[Address, ...]) -> tuple[Address, ...]:
    """Answer the addresses to remove from a link: those that are not wanted, and their secondaries.

    The kernel counts further IPv4 addresses of a network as secondary to the first, and removes
    them with it (ip-address(8), promote_secondaries). They are removed before it and added again,
    by steps of their own, so that the change can be taken back step by step.
    """
    first: dict[Network, Address] = {}
    for address in link.addresses:
        first.setdefault(address.network, address)
    networks = {
        network
        for network, primary in first.items()
        if network.version == 4 and primary not in wanted
    }
    return tuple(a for a in reversed(link.addresses) if a not in wanted or a.network in networks)


def _set_sysctl(work: _Work, key: str, value: str, default: str, *, ifname: str = "") -> None:
    known: Mapping[str, str] = {} if ifname in work.removed else work.seen.sysctls
    before = known.get(key, default)
    if before != value:
        work.steps.append(SetSysctl(work.want.name, key, value, before))


def _remove_routes(work: _Work) -> None:
    """Remove routes that are not wanted, and those that the kernel would drop on the way.

    It drops a route with the last address of its family, and so also when the first ones are taken
    back.
    """
    wanted = work.want.all_routes()
    for interface in work.want.interfaces:
        link = work.seen.link(interface.name)
        if link and link.name not in work.removed:
            versions = {a.version for a in _going(link, interface.addresses)}
            present = {a.version for a in link.addresses}
            versions |= {a.version for a in interface.addresses} - present
            work.flushed |= {(link.name, version) for version in versions}
    for route in work.seen.routes:
        kept = route in wanted and (route.ifname, route.destination.version) not in work.flushed
        if not kept and route.ifname not in work.removed:
            work.steps.append(RemoveRoute(work.want.name, route))


def _add_routes(work: _Work) -> None:
    present = [r for r in work.seen.routes if r.ifname not in work.removed]
    for route in in_order(work.want.all_routes()):
        flushed = (route.ifname, route.destination.version) in work.flushed
        if flushed or route not in present:
            work.steps.append(AddRoute(work.want.name, route))
