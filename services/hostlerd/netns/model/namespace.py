"""A network namespace as it should be, every value parsed and every default filled in."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import Enum
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)

Address = IPv4Interface | IPv6Interface
Gateway = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

IFNAMSIZ = 15
"""Bytes of a link's name without the closing NUL, linux/if.h."""

DEFAULT_PORT_START = 1024
"""What a new namespace has in ip_unprivileged_port_start, net/ipv4/af_inet.c."""


class MacvlanMode(Enum):
    """MACVLAN_MODE_* of linux/if_link.h."""

    PRIVATE = 1
    VEPA = 2
    BRIDGE = 4


@dataclass(frozen=True, slots=True)
class Veth:
    """A pair of links, one end on the host: either with addresses or in a bridge."""

    host_ifname: str
    host_addresses: tuple[Address, ...] = ()
    bridge: str = ""

    @property
    def routed(self) -> bool:
        """Whether the host itself is the other end of the network."""
        return not self.bridge


@dataclass(frozen=True, slots=True)
class Macvlan:
    """A second MAC address on a link of the host."""

    parent: str
    mode: MacvlanMode = MacvlanMode.BRIDGE


@dataclass(frozen=True, slots=True)
class Interface:
    """A link of a namespace.

    Addresses taken from a pool stand in `addresses` and in the link's `host_addresses` like all
    others. `mtu_bytes` leaves the L2 header out.
    """

    name: str
    link: Veth | Macvlan
    addresses: tuple[Address, ...] = ()
    ipv4_pool: str = ""
    ipv6_pool: str = ""
    mtu_bytes: int = 1500
    default_route: bool = False
    gateways: tuple[Gateway, ...] = ()

    @property
    def routed(self) -> bool:
        """Whether the host itself is the other end of the network."""
        return isinstance(self.link, Veth) and self.link.routed

    @property
    def host_addresses(self) -> tuple[Address, ...]:
        """The addresses of the end on the host; none for macvlan and in a bridge."""
        return self.link.host_addresses if isinstance(self.link, Veth) else ()

    def default_gateways(self) -> tuple[Gateway, ...]:
        """Where the default routes of this link go: the host's end, or the named gateways."""
        if not self.default_route:
            return ()
        if not self.routed:
            return self.gateways
        first: dict[int, Gateway] = {}
        for address in self.host_addresses:
            if any(a.version == address.version for a in self.addresses):
                first.setdefault(address.version, address.ip)
        return tuple(first.values())


@dataclass(frozen=True, slots=True)
class Route:
    """A route of a namespace; `gateway` None means on the link. Metric 0 is the kernel's own."""

    destination: Network
    gateway: Gateway | None
    ifname: str
    metric: int = 0

    def __str__(self) -> str:
        """The route as ip-route(8) would say it."""
        where = "default" if self.destination.prefixlen == 0 else str(self.destination)
        via = f" via {self.gateway}" if self.gateway else ""
        metric = f" metric {self.metric}" if self.metric else ""
        return f"{where}{via} dev {self.ifname}{metric}"


@dataclass(frozen=True, slots=True)
class Dns:
    """How names are resolved by the processes in a namespace."""

    servers: tuple[Gateway, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Namespace:
    """A network namespace as it should be."""

    name: str
    interfaces: tuple[Interface, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: Dns = Dns()
    hostname: str = ""
    unprivileged_port_start: int | None = None
    persistent: bool = False
    remove_with_processes: bool = False

    def interface(self, name: str) -> Interface | None:
        """Answer the interface of that name, or None."""
        return next((i for i in self.interfaces if i.name == name), None)

    def all_routes(self) -> tuple[Route, ...]:
        """The routes asked for and those that default_route brings."""
        return default_routes(self.interfaces) + self.routes


def default_routes(interfaces: tuple[Interface, ...]) -> tuple[Route, ...]:
    """Answer the routes that default_route brings."""
    return tuple(
        Route(default_network(gateway.version), gateway, interface.name)
        for interface in interfaces
        for gateway in interface.default_gateways()
    )


def default_network(version: int) -> Network:
    """Answer the network of all addresses of a family."""
    return IPv4Network("0.0.0.0/0") if version == 4 else IPv6Network("::/0")


def default_host_ifname(namespace: str, position: int) -> str:
    """Name the host's end of the veth at `position`: v-NAME, v1-NAME …, at most 15 bytes.

    What is too long is cut and gets a part of its SHA-256, so that long names stay apart.
    """
    prefix = f"v{position or ''}-"
    name = prefix + namespace
    if len(name) <= IFNAMSIZ:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:6]
    return f"{prefix}{namespace[: IFNAMSIZ - len(prefix) - 7]}-{digest}"
