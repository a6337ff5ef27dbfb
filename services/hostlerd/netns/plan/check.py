"""Checks a namespace in itself and against the links of the host."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from hostlerd.netns.model.namespace import (
    Address,
    Gateway,
    Interface,
    Macvlan,
    Namespace,
    Network,
    Route,
    default_network,
)
from hostlerd.netns.model.parse import MIN_MTU_IPV6, Faults
from hostlerd.netns.model.seen import Host, Link


def check_itself(namespace: Namespace, field: str, faults: Faults) -> None:
    """Note what contradicts itself within one namespace."""
    names: set[str] = set()
    for at, interface in enumerate(namespace.interfaces):
        path = f"{field}.interfaces[{at}]"
        if interface.name in names:
            faults.add(f"{path}.name", f"{interface.name} is there twice")
        names.add(interface.name)
        _check_interface(interface, path, faults)
    _check_overlaps(namespace, field, faults)
    _check_routes(namespace, field, faults)


def _check_interface(interface: Interface, field: str, faults: Faults) -> None:
    versions = {a.version for a in interface.addresses}
    if 6 in versions and interface.mtu_bytes < MIN_MTU_IPV6:
        faults.add(
            f"{field}.mtu_bytes",
            f"must be at least {MIN_MTU_IPV6} for IPv6, not {interface.mtu_bytes}",
        )
    if not interface.default_route:
        return
    if not versions:
        faults.add(f"{field}.default_route", "needs an address on the link")
    if interface.routed:
        _check_host_end(interface, versions, field, faults)
        return
    for at, gateway in enumerate(interface.gateways):
        if not _reaches(interface.addresses, gateway):
            faults.add(f"{field}.gateways[{at}]", f"{gateway} is in no network of {interface.name}")
    families = [g.version for g in interface.gateways]
    if len(families) != len(set(families)):
        faults.add(f"{field}.gateways", "at most one of each family is allowed")


def _check_host_end(
    interface: Interface, versions: Collection[int], field: str, faults: Faults
) -> None:
    gateways = {g.version: g for g in interface.default_gateways()}
    for version in sorted(versions):
        if version not in gateways:
            faults.add(
                f"{field}.veth.host_addresses",
                f"default_route needs an IPv{version} address of the host's end",
            )
        elif not _reaches(interface.addresses, gateways[version]):
            faults.add(
                f"{field}.veth.host_addresses[0]",
                f"{gateways[version]} is in no network of {interface.name}",
            )


def _reaches(addresses: Collection[Address], gateway: Gateway) -> bool:
    """Tell whether the kernel would take `gateway` as a next hop beside these addresses."""
    if gateway.version == 6 and gateway.is_link_local:
        return True
    return any(gateway in a.network and gateway != a.ip for a in addresses)


def _check_overlaps(namespace: Namespace, field: str, faults: Faults) -> None:
    """Note addresses of one link that collide with those of a link named before it."""
    seen: list[tuple[str, Network, Gateway]] = []
    for at, interface in enumerate(namespace.interfaces):
        path = f"{field}.interfaces[{at}]"
        own: list[tuple[str, Network, Gateway]] = []
        for end, addresses in (
            ("veth.host_addresses", interface.host_addresses),
            ("addresses", interface.addresses),
        ):
            for number, address in enumerate(addresses):
                where = f"{path}.{end}[{number}]"
                if any(address.ip == ip for _, _, ip in own):
                    faults.add(where, f"{address.ip} is there twice")
                clash = next(
                    (name for name, network, _ in seen if network.overlaps(address.network)), None
                )
                if clash:
                    faults.add(where, f"{address.network} overlaps with a network of {clash}")
                own.append((interface.name, address.network, address.ip))
        seen += own


def _check_routes(namespace: Namespace, field: str, faults: Faults) -> None:
    ids: set[tuple[Network, int]] = set()
    for at, interface in enumerate(namespace.interfaces):
        own = {(default_network(g.version), 0) for g in interface.default_gateways()}
        if own & ids:
            faults.add(
                f"{field}.interfaces[{at}].default_route",
                "another link is the default route already",
            )
        ids |= own
    for at, route in enumerate(namespace.routes):
        path = f"{field}.routes[{at}]"
        _check_route(route, namespace, path, faults)
        if (route.destination, route.metric) in ids:
            faults.add(path, f"a route to {route.destination} with this metric is there already")
        ids.add((route.destination, route.metric))


def _check_route(route: Route, namespace: Namespace, field: str, faults: Faults) -> None:
    if not route.ifname:
        faults.add(f"{field}.gateway", f"{route.gateway} is in no network of the namespace")
        return
    interface = namespace.interface(route.ifname)
    if interface is None:
        faults.add(f"{field}.ifname", f"the namespace has no link {route.ifname}")
    elif route.gateway is not None and not _reaches(interface.addresses, route.gateway):
        faults.add(f"{field}.gateway", f"{route.gateway} is in no network of {route.ifname}")


def check_links(
    namespace: Namespace,
    host: Host,
    own_host_ifnames: Collection[str],
    taken_host_ifnames: Mapping[str, str],
    field: str,
    faults: Faults,
) -> None:
    """Note what the links of the host do not allow.

    `own_host_ifnames` are those that the namespace has on record, `taken_host_ifnames` those of
    other namespaces, each with whose it is.
    """
    mine: set[str] = set()
    for at, interface in enumerate(namespace.interfaces):
        path, link = f"{field}.interfaces[{at}]", interface.link
        if isinstance(link, Macvlan):
            _check_parent(interface, link, host, path, faults)
            continue
        name, path = link.host_ifname, f"{path}.veth"
        if link.bridge:
            bridge = host.links.get(link.bridge)
            if bridge is None:
                faults.add(f"{path}.bridge", f"the host has no link {link.bridge}")
            elif bridge.kind != "bridge":
                faults.add(f"{path}.bridge", f"{link.bridge} is no bridge")
        if name in taken_host_ifnames:
            faults.add(f"{path}.host_ifname", f"{name} belongs to {taken_host_ifnames[name]}")
        elif name in mine:
            faults.add(f"{path}.host_ifname", f"{name} is there twice")
        elif name in host.links and name not in own_host_ifnames:
            faults.add(f"{path}.host_ifname", f"the host has a link {name} already")
        mine.add(name)


def _check_parent(
    interface: Interface, link: Macvlan, host: Host, field: str, faults: Faults
) -> None:
    parent: Link | None = host.links.get(link.parent)
    if parent is None:
        faults.add(f"{field}.macvlan.parent", f"the host has no link {link.parent}")
    elif parent.kind == "loopback":
        faults.add(f"{field}.macvlan.parent", "cannot be the loopback link")
    elif parent.master:
        faults.add(f"{field}.macvlan.parent", f"{link.parent} is a port of {parent.master}")
    elif interface.mtu_bytes > parent.mtu_bytes:
        faults.add(
            f"{field}.mtu_bytes",
            f"must be at most {parent.mtu_bytes}, the MTU of {link.parent}",
        )
