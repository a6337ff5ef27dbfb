"""What callers ask for, parsed: every fault is collected with the path of its field.

Rules that need nothing but the one value stand here; what needs the rest of the namespace, other
namespaces or the host stands in plan.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_address, ip_interface, ip_network
from typing import TypeVar

from hostlerd.netns.model.asked import (
    AskedDns,
    AskedInterface,
    AskedLink,
    AskedNamespace,
    AskedRoute,
)
from hostlerd.netns.model.namespace import (
    IFNAMSIZ,
    Address,
    Dns,
    Gateway,
    Interface,
    Macvlan,
    MacvlanMode,
    Namespace,
    Network,
    Route,
    Veth,
    default_host_ifname,
    default_network,
)
from hostlerd.runtime.errors import Violation

MAX_INTERFACES = 16
MAX_ADDRESSES = 64
MAX_ROUTES = 256
MAX_SERVERS = 3
MAX_SEARCH = 32
MAX_OPTIONS = 16
MIN_MTU, MAX_MTU, MIN_MTU_IPV6 = 68, 65535, 1280
IPV6_DEFAULT_METRIC = 1024
OPEN_MTU = 0
"""Stands for an MTU that was left open, until the bridge or parent was looked at."""

_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
_IFNAME = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9_.-]{{0,{IFNAMSIZ - 1}}}")
_PREFIXED = re.compile(r"[0-9a-fA-F.:]{2,45}/[0-9]{1,3}")
_PLAIN = re.compile(r"[0-9a-fA-F.:]{2,45}")
_DOMAIN = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?")
_HOSTNAME = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*")
_OPTION = re.compile(r"[a-z0-9-]{1,32}(:[0-9]{1,5})?")
_RESERVED_IFNAMES = {"lo", "all", "default"}

T = TypeVar("T")
A = TypeVar("A")


class Faults:
    """Collects the faults of a request."""

    def __init__(self) -> None:
        self.found: list[Violation] = []

    def add(self, field: str, description: str) -> None:
        """Note a fault."""
        self.found.append(Violation(field, description))


def namespace_name_fault(name: str) -> str:
    """Say what is wrong with a namespace's name; empty if nothing is."""
    if not name:
        return "must be given"
    if not _NAME.fullmatch(name):
        return 'must be 1 to 32 of a-z, 0-9 and "-", beginning with a letter'
    return ""


def parse_namespace(asked: AskedNamespace, field: str, faults: Faults) -> Namespace:
    """Parse one namespace; faults are noted below `field`, and what is at fault is left out."""
    if fault := namespace_name_fault(asked.name):
        faults.add(f"{field}.name", fault)
    start = asked.unprivileged_port_start
    if start is not None and start > 65535:
        faults.add(f"{field}.unprivileged_port_start", "must be at most 65535")
    if asked.hostname and (len(asked.hostname) > 64 or not _HOSTNAME.fullmatch(asked.hostname)):
        faults.add(f"{field}.hostname", "must be a host name of at most 64 bytes")
    if asked.persistent and asked.remove_with_processes:
        faults.add(
            f"{field}.remove_with_processes",
            "cannot be combined with persistent: a boot would bring back what was to go",
        )
    interfaces = _bounded(asked.interfaces, MAX_INTERFACES, f"{field}.interfaces", faults)
    routes = _bounded(asked.routes, MAX_ROUTES, f"{field}.routes", faults)
    return Namespace(
        name=asked.name,
        interfaces=tuple(
            _interface(i, asked.name, at, f"{field}.interfaces[{at}]", faults)
            for at, i in enumerate(interfaces)
        ),
        routes=tuple(
            route
            for at, r in enumerate(routes)
            if (route := _route(r, f"{field}.routes[{at}]", faults))
        ),
        dns=_dns(asked.dns, f"{field}.dns", faults),
        hostname=asked.hostname or asked.name,
        unprivileged_port_start=start,
        persistent=asked.persistent,
        remove_with_processes=asked.remove_with_processes,
    )


def _bounded(items: Sequence[T], most: int, field: str, faults: Faults) -> Sequence[T]:
    if len(items) > most:
        faults.add(field, f"at most {most} are allowed, not {len(items)}")
    return items[:most]


def _interface(
    asked: AskedInterface, namespace: str, at: int, field: str, faults: Faults
) -> Interface:
    name = asked.name or f"eth{at}"
    new_ifname(name, f"{field}.name", faults)
    mtu = asked.mtu_bytes
    if mtu is not None and not MIN_MTU <= mtu <= MAX_MTU:
        faults.add(f"{field}.mtu_bytes", f"must be from {MIN_MTU} to {MAX_MTU}, not {mtu}")
    link = _link(asked.link, default_host_ifname(namespace, at), field, faults)
    parsed = Interface(
        name=name,
        link=link,
        addresses=_all(asked.addresses, parse_address, f"{field}.addresses", faults),
        ipv4_pool=asked.ipv4_pool,
        ipv6_pool=asked.ipv6_pool,
        mtu_bytes=OPEN_MTU if mtu is None else mtu,
        default_route=asked.default_route,
        gateways=_all(asked.gateways, parse_gateway, f"{field}.gateways", faults),
    )
    _interface_faults(parsed, field, faults)
    return parsed


def _interface_faults(interface: Interface, field: str, faults: Faults) -> None:
    if not interface.routed:
        for kind in ("ipv4_pool", "ipv6_pool"):
            if getattr(interface, kind):
                faults.add(
                    f"{field}.{kind}",
                    "a pool gives a network shared with the host's end: "
                    "only for a veth that is in no bridge",
                )
        if interface.default_route and not interface.gateways:
            faults.add(f"{field}.gateways", "must be given: no end on the host is the gateway")
    elif interface.gateways:
        faults.add(f"{field}.gateways", "only for bridge and macvlan: here it is the host's end")
    if interface.gateways and not interface.default_route:
        faults.add(f"{field}.gateways", "only with default_route")


def _link(asked: AskedLink, host_ifname: str, field: str, faults: Faults) -> Veth | Macvlan:
    if asked.kind == "macvlan":
        known_ifname(asked.parent, f"{field}.macvlan.parent", faults)
        modes = {mode.name.lower(): mode for mode in MacvlanMode}
        if asked.mode not in modes:
            faults.add(f"{field}.macvlan.mode", "is none that Hostler knows")
        return Macvlan(asked.parent, modes.get(asked.mode, MacvlanMode.BRIDGE))
    if asked.kind != "veth":
        faults.add(field, "one of veth and macvlan must be given")
        return Veth(host_ifname)
    field = f"{field}.veth"
    if asked.host_ifname:
        new_ifname(asked.host_ifname, f"{field}.host_ifname", faults)
    if asked.bridge:
        known_ifname(asked.bridge, f"{field}.bridge", faults)
        if asked.host_addresses:
            faults.add(f"{field}.host_addresses", "not with a bridge: its port has no addresses")
    addresses: tuple[Address, ...] = _all(
        asked.host_addresses, parse_address, f"{field}.host_addresses", faults
    )
    return Veth(asked.host_ifname or host_ifname, addresses, asked.bridge)


def new_ifname(name: str, field: str, faults: Faults) -> None:
    """Note what is wrong with the name of a link that is to be made."""
    if len(name) > IFNAMSIZ:
        faults.add(field, f"must be at most {IFNAMSIZ} bytes")
    elif name in _RESERVED_IFNAMES:
        faults.add(field, f"{name} is taken by the kernel")
    elif not _IFNAME.fullmatch(name):
        faults.add(field, 'must be of a-z, A-Z, 0-9, "_", "-" and ".", beginning with no sign')


def known_ifname(name: str, field: str, faults: Faults) -> None:
    """Note what is wrong with the name of a link that should be there."""
    if not name:
        faults.add(field, "must be given")
    elif not _IFNAME.fullmatch(name):
        faults.add(field, "cannot be the name of a link")


def _all(
    texts: Sequence[str], parse: Callable[[str], A | str], field: str, faults: Faults
) -> tuple[A, ...]:
    """Parse each text, note what is wrong, and note what is there twice."""
    values: list[A] = []
    for at, text in enumerate(_bounded(texts, MAX_ADDRESSES, field, faults)):
        value = parse(text)
        if isinstance(value, str):
            faults.add(f"{field}[{at}]", value)
        elif value in values:
            faults.add(f"{field}[{at}]", f"{text} is there twice")
        else:
            values.append(value)
    return tuple(values)


def parse_address(text: str) -> Address | str:
    """Parse an address with prefix length, such as "10.1.0.2/30"; a str says why it is none."""
    if not _PREFIXED.fullmatch(text):
        return 'must be an address with prefix length, such as "10.1.0.2/30" or "fd00::2/64"'
    try:
        address = ip_interface(text)
    except ValueError as e:
        return str(e)
    if fault := _ip_fault(address.ip):
        return fault
    if address.ip.is_link_local and address.version == 6:
        return "link-local addresses are made by the kernel"
    # RFC 3021: both addresses of a /31 are hosts.
    if address.version == 4 and address.network.prefixlen < 31:
        if address.ip == address.network.network_address:
            return f"is the address of the network {address.network} itself"
        if address.ip == address.network.broadcast_address:
            return f"is the broadcast address of {address.network}"
    return address


def _ip_fault(ip: Gateway) -> str:
    if ip.is_multicast:
        return "is a multicast address"
    if ip.is_unspecified:
        return "is the unspecified address"
    if ip.is_loopback:
        return "is a loopback address"
    if ip.version == 4 and int(ip) >= 0xF0000000:
        return "is a reserved address"
    if ip.version == 6 and ip.ipv4_mapped is not None:
        return "is an IPv4 address written as IPv6"
    return ""


def parse_gateway(text: str) -> Gateway | str:
    """Parse the address of a router or server; a str says why it is none."""
    if not _PLAIN.fullmatch(text):
        return "must be an IPv4 or IPv6 address without prefix length"
    try:
        ip = ip_address(text)
    except ValueError as e:
        return str(e)
    return _ip_fault(ip) or ip


def _parse_server(text: str) -> Gateway | str:
    """Parse a resolver's address: one on lo is as good as any."""
    if _PLAIN.fullmatch(text):
        try:
            ip = ip_address(text)
        except ValueError as e:
            return str(e)
        if ip.is_loopback:
            return ip
    return parse_gateway(text)


def _route(asked: AskedRoute, field: str, faults: Faults) -> Route | None:
    gateway: Gateway | None = None
    if asked.gateway:
        parsed = parse_gateway(asked.gateway)
        if isinstance(parsed, str):
            faults.add(f"{field}.gateway", parsed)
            return None
        gateway = parsed
    destination = _destination(asked.destination, gateway)
    if isinstance(destination, str):
        faults.add(f"{field}.destination", destination)
        return None
    if gateway is not None and gateway.version != destination.version:
        faults.add(f"{field}.gateway", f"is not of the family of {destination}")
        return None
    if gateway is None and not asked.ifname:
        faults.add(field, "gateway or ifname must be given")
        return None
    # The kernel takes metric 0 of IPv6 as 1024 and shows it so: they are one.
    implied = destination.version == 6 and asked.metric == IPV6_DEFAULT_METRIC
    return Route(destination, gateway, asked.ifname, 0 if implied else asked.metric)


def _destination(text: str, gateway: Gateway | None) -> Network | str:
    if text == "default":
        if gateway is None:
            return 'must name the family, as "0.0.0.0/0" or "::/0", where there is no gateway'
        return default_network(gateway.version)
    if not _PREFIXED.fullmatch(text):
        return 'must be a network, such as "192.0.2.0/24", or "default"'
    try:
        network = ip_network(text)
    except ValueError as e:
        return str(e)
    if network.is_multicast or (network.is_loopback and network.prefixlen):
        return "must be a unicast network"
    return network


def _dns(asked: AskedDns, field: str, faults: Faults) -> Dns:
    # glibc's resolver reads no more than three servers: MAXNS in resolv.h.
    servers = _bounded(asked.servers, MAX_SERVERS, f"{field}.servers", faults)
    search = _bounded(asked.search, MAX_SEARCH, f"{field}.search", faults)
    options = _bounded(asked.options, MAX_OPTIONS, f"{field}.options", faults)
    _matching(search, _DOMAIN, "must be a domain name", f"{field}.search", faults)
    _matching(options, _OPTION, 'must be a word such as "ndots:2"', f"{field}.options", faults)
    return Dns(
        _all(servers, _parse_server, f"{field}.servers", faults), tuple(search), tuple(options)
    )


def _matching(
    texts: Iterable[str], pattern: re.Pattern[str], rule: str, field: str, faults: Faults
) -> None:
    for at, text in enumerate(texts):
        if len(text) > 253 or not pattern.fullmatch(text):
            faults.add(f"{field}[{at}]", rule)
