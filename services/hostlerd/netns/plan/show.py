"""Namespaces as they are shown: what was asked for, with the values that the kernel has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from hostlerd.netns.model.namespace import (
    Address,
    Dns,
    Gateway,
    Interface,
    Macvlan,
    MacvlanMode,
    Namespace,
    Route,
    Veth,
)
from hostlerd.netns.model.seen import Host, Link, Seen
from hostlerd.netns.plan.converge import drift, etag_of

NOT_SHOWN = Link("", "")


@dataclass(frozen=True, slots=True)
class ShownInterface:
    """A link of a namespace; `link` is None if it is neither veth nor macvlan."""

    name: str
    link: Veth | Macvlan | None
    addresses: tuple[Address, ...]
    mtu_bytes: int
    ipv4_pool: str = ""
    ipv6_pool: str = ""
    default_route: bool = False
    gateways: tuple[Gateway, ...] = ()
    mac_address: str = ""
    up: bool = False


@dataclass(frozen=True, slots=True)
class Shown:
    """A namespace as callers see it."""

    name: str
    interfaces: tuple[ShownInterface, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: Dns = field(default_factory=Dns)
    hostname: str = ""
    unprivileged_port_start: int | None = None
    persistent: bool = False
    remove_with_processes: bool = False
    managed: bool = False
    inode: int = 0
    create_time: datetime | None = None
    etag: str = ""
    drift: tuple[str, ...] = ()
    processes: Sequence[int] = field(default=())


def show(seen: Seen, host: Host, processes: Sequence[int] = ()) -> Shown:
    """Show a namespace that was looked into."""
    differs = drift(seen, host)
    record = seen.record
    if record is None:
        return Shown(
            seen.name,
            interfaces=tuple(_foreign(x, host) for x in seen.links if x.kind != "loopback"),
            routes=seen.routes,
            managed=seen.managed,
            inode=seen.inode,
            create_time=seen.create_time,
            etag=etag_of(None, differs),
            drift=differs,
            processes=processes,
        )
    interfaces = tuple(_managed(i, seen, host) for i in record.interfaces)
    brought = [r for r in record.all_routes() if r not in record.routes]
    return _shown(
        record,
        interfaces if seen.inode else tuple(_planned(i) for i in record.interfaces),
        tuple(r for r in seen.routes if r not in brought) if seen.inode else record.routes,
        seen=seen,
        differs=differs,
        processes=processes,
    )


def show_planned(want: Namespace, seen: Seen | None) -> Shown:
    """Show a namespace as it would be."""
    interfaces = tuple(_planned(i) for i in want.interfaces)
    return _shown(want, interfaces, want.routes, seen=seen or Seen(want.name))


def show_nameless(inode: int, processes: Sequence[int]) -> Shown:
    """Show a namespace that has no handle, only processes."""
    return Shown(f"net:[{inode}]", inode=inode, processes=processes)


def _shown(
    record: Namespace,
    interfaces: tuple[ShownInterface, ...],
    routes: tuple[Route, ...],
    *,
    seen: Seen,
    differs: tuple[str, ...] = (),
    processes: Sequence[int] = (),
) -> Shown:
    return Shown(
        record.name,
        interfaces,
        routes,
        record.dns,
        record.hostname,
        record.unprivileged_port_start,
        record.persistent,
        record.remove_with_processes,
        managed=True,
        inode=seen.inode,
        create_time=seen.create_time,
        etag=etag_of(record, differs),
        drift=differs,
        processes=processes,
    )


def _planned(interface: Interface) -> ShownInterface:
    return ShownInterface(
        interface.name,
        interface.link,
        interface.addresses,
        interface.mtu_bytes,
        interface.ipv4_pool,
        interface.ipv6_pool,
        interface.default_route,
        interface.gateways,
    )


def _managed(interface: Interface, seen: Seen, host: Host) -> ShownInterface:
    inside = seen.link(interface.name) or NOT_SHOWN
    link = interface.link
    if isinstance(link, Veth):
        outside = host.links.get(link.host_ifname, NOT_SHOWN)
        link = Veth(link.host_ifname, _ordered(outside, link.host_addresses), outside.master)
    return ShownInterface(
        interface.name,
        link,
        _ordered(inside, interface.addresses),
        inside.mtu_bytes,
        interface.ipv4_pool,
        interface.ipv6_pool,
        interface.default_route,
        interface.gateways,
        inside.mac_address,
        inside.up and inside.carrier,
    )


def _ordered(link: Link, asked: tuple[Address, ...]) -> tuple[Address, ...]:
    """Answer the addresses of a link, first those asked for in the order of the asking."""
    kept = tuple(a for a in asked if a in link.addresses)
    return kept + tuple(a for a in link.addresses if a not in asked)


def _foreign(link: Link, host: Host) -> ShownInterface:
    below = next((x for x in host.links.values() if x.index == link.parent_index), None)
    made_of: Veth | Macvlan | None = None
    if below and link.kind == "veth" and below.kind == "veth":
        made_of = Veth(below.name, below.addresses, below.master)
    elif below and link.kind == "macvlan":
        made_of = Macvlan(below.name, link.mode or MacvlanMode.BRIDGE)
    return ShownInterface(
        link.name,
        made_of,
        link.addresses,
        link.mtu_bytes,
        mac_address=link.mac_address,
        up=link.up and link.carrier,
    )
