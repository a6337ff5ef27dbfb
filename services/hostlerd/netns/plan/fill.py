"""Fills in what a request left open: what the namespace has already, then pools, then defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hostlerd.netns.model.namespace import Address, Interface, Macvlan, Namespace, Route, Veth
from hostlerd.netns.model.parse import OPEN_MTU, Faults
from hostlerd.netns.model.seen import Host
from hostlerd.netns.plan.pool import Pool, Taken, carve

DEFAULT_MTU = 1500


def adopt(
    draft: Namespace,
    existing: Namespace | None,
    host: Host,
    pools: Mapping[str, Pool],
    field: str,
    faults: Faults,
) -> Namespace:
    """Fill in the MTU, routes' links, and the pools' addresses that the namespace already has.

    What a request leaves open stays as it is, so that asking again changes nothing.
    """
    interfaces = tuple(
        _adopt_interface(
            interface,
            existing.interface(interface.name) if existing else None,
            host,
            pools,
            f"{field}.interfaces[{at}]",
            faults,
        )
        for at, interface in enumerate(draft.interfaces)
    )
    return replace(draft, interfaces=interfaces)


def _adopt_interface(
    draft: Interface,
    existing: Interface | None,
    host: Host,
    pools: Mapping[str, Pool],
    field: str,
    faults: Faults,
) -> Interface:
    interface = draft
    if draft.mtu_bytes == OPEN_MTU:
        interface = replace(interface, mtu_bytes=_open_mtu(draft, existing, host))
    for version, name in ((4, draft.ipv4_pool), (6, draft.ipv6_pool)):
        if name and draft.routed:
            at = f"{field}.ipv{version}_pool"
            interface = _adopt_pool(interface, existing, version, pools.get(name), at, faults)
    return interface


def _open_mtu(draft: Interface, existing: Interface | None, host: Host) -> int:
    below = _below(draft)
    if existing and _below(existing) == below:
        return existing.mtu_bytes
    link = host.links.get(below) if below else None
    return link.mtu_bytes if link else DEFAULT_MTU


def _below(interface: Interface) -> str:
    """Answer the link of the host that the interface sits on, if any."""
    link = interface.link
    return link.parent if isinstance(link, Macvlan) else link.bridge


def _adopt_pool(
    interface: Interface,
    existing: Interface | None,
    version: int,
    pool: Pool | None,
    field: str,
    faults: Faults,
) -> Interface:
    if pool is None:
        faults.add(field, "the host has no such pool")
        return interface
    if pool.range(version) is None:
        faults.add(field, f"pool {pool.name} has no IPv{version} range")
        return interface
    if has_pool_addresses(interface, version, pool):
        return interface
    inside, outside = (
        _in_pool(interface.addresses, version, pool),
        _in_pool(interface.host_addresses, version, pool),
    )
    if inside or outside:
        faults.add(field, "name an address of the pool for both ends, or for none")
        return interface
    if existing and existing.routed and has_pool_addresses(existing, version, pool):
        return _with(
            interface,
            _in_pool(existing.host_addresses, version, pool),
            _in_pool(existing.addresses, version, pool),
        )
    return interface


def has_pool_addresses(interface: Interface, version: int, pool: Pool) -> bool:
    """Tell whether both ends have an address of the pool already."""
    return bool(
        _in_pool(interface.addresses, version, pool)
        and _in_pool(interface.host_addresses, version, pool)
    )


def _in_pool(addresses: tuple[Address, ...], version: int, pool: Pool) -> tuple[Address, ...]:
    within = pool.range(version)
    return tuple(a for a in addresses if within and a.version == version and a.ip in within)


def _with(
    interface: Interface, host: tuple[Address, ...], inside: tuple[Address, ...]
) -> Interface:
    if not isinstance(interface.link, Veth):
        return interface
    link = replace(interface.link, host_addresses=interface.link.host_addresses + host)
    return replace(interface, link=link, addresses=interface.addresses + inside)


def take_from_pools(namespace: Namespace, pools: Mapping[str, Pool], taken: Taken) -> Namespace:
    """Carve the networks that are still open out of their pools. Raises PoolExhausted."""
    interfaces = []
    for interface in namespace.interfaces:
        filled = interface
        for version, name in ((4, interface.ipv4_pool), (6, interface.ipv6_pool)):
            pool = pools.get(name)
            if pool and interface.routed and not has_pool_addresses(filled, version, pool):
                host, inside = carve(pool, version, taken)
                filled = _with(filled, (host,), (inside,))
        interfaces.append(filled)
    return replace(namespace, interfaces=tuple(interfaces))


def name_route_links(namespace: Namespace) -> Namespace:
    """Fill in the link of each route that named only its gateway: the one the gateway is on."""
    return replace(namespace, routes=tuple(_on_link(r, namespace) for r in namespace.routes))


def _on_link(route: Route, namespace: Namespace) -> Route:
    if route.ifname or route.gateway is None:
        return route
    for interface in namespace.interfaces:
        if any(route.gateway in address.network for address in interface.addresses):
            return replace(route, ifname=interface.name)
    return route
