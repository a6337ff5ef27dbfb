"""The kernel's routing decision, of the values of its tables. Source: ip-rule(8), ip-route(8)."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from hostlerd.firewall.model.explain import Route, RouteRule, Routes
from hostlerd.firewall.model.ruleset import Address

NO_ROUTE = "no route"


class RouteUnknown(Exception):
    """What the routes say cannot be told; the text says why."""


def lookup(
    routes: Routes, destination: Address, source: Address | None, in_ifname: str, out_ifname: str
) -> Route | None:
    """Answer the route of a packet, only of those by `out_ifname` if that is given.

    None if there is none. Raises RouteUnknown.
    """
    for rule in sorted(routes.rules, key=lambda r: r.priority):
        if not _applies(rule, destination, source, in_ifname):
            continue
        if rule.other:
            raise RouteUnknown(f"a routing rule asks for {rule.other}")
        found = _best(routes, rule.table, destination, out_ifname)
        if found is not None and found.type == "throw":
            continue
        if found is not None:
            return found
    return None


def is_local(routes: Routes, address: Address) -> bool:
    """Whether an address is the host's own."""
    found = _best(routes, "local", address, "")
    return found is not None and found.type == "local"


def address_type(routes: Routes, address: Address) -> str:
    """Answer what `fib type` calls an address."""
    if address.is_multicast:
        return "multicast"
    if address.version == 4 and int(address) in (0, 0xFFFFFFFF):
        return "broadcast"
    found = _best(routes, "local", address, "")
    if found is not None and (address.version == 4 or found.type != "multicast"):
        return found.type
    if address.version == 6:
        # Unlike IPv4, it asks all tables.
        found = lookup(routes, address, None, "", "")
        return found.type if found else "unreachable"
    return "unicast"


def reaches(routes: Routes, address: Address, ifname: str) -> str:
    """Answer the link of `fib ADDRESS . iif oif`; empty if there is none. Raises RouteUnknown."""
    found = lookup(routes, address, None, "", ifname)
    if found is None or found.type != "unicast":
        return ""
    if not found.ifname and not ifname:
        raise RouteUnknown("a route has several next hops")
    return found.ifname or ifname


def source_address(routes: Routes, ifname: str, toward: Address) -> Address | None:
    """Answer the address that masquerade takes on a link; None if that cannot be told."""
    listed = [a for a in routes.addresses.get(ifname, ()) if a[0].version == toward.version]
    for address, length in listed:
        if (int(address) ^ int(toward)) >> (address.max_prefixlen - length) == 0:
            return address
    wide = [a for a, _ in listed if not a.is_link_local]
    return wide[0] if wide and (toward.version == 4 or len(wide) == 1) else None


def next_hop(route: Route, destination: Address) -> Address:
    """Answer the neighbour that a packet is given to."""
    return ip_address(route.gateway) if route.gateway else destination


def _applies(rule: RouteRule, destination: Address, source: Address | None, in_ifname: str) -> bool:
    if rule.source is not None and rule.source.prefixlen:
        if source is None:
            raise RouteUnknown("a routing rule asks for the source")
        if source not in rule.source:
            return False
    if rule.destination is not None and destination not in rule.destination:
        return False
    return not rule.in_ifname or rule.in_ifname == (in_ifname or "lo")


def _best(routes: Routes, table: str, destination: Address, ifname: str) -> Route | None:
    def fits() -> Iterator[Route]:
        for route in routes.routes:
            if route.table == table and destination in route.network:
                if not ifname or not route.ifname or route.ifname == ifname:
                    yield route

    best = max(fits(), key=lambda r: (r.network.prefixlen, -r.metric), default=None)
    if best is not None and not best.plain:
        raise RouteUnknown("a route is given by several next hops or a type of service")
    return best
