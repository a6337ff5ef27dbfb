"""A network namespace as a caller asks for it: texts not yet parsed, defaults not yet filled in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AskedLink:
    """A veth or macvlan as asked for; `kind` is "veth", "macvlan", or "" if neither was named.

    `mode` is "bridge", "vepa" or "private".
    """

    kind: str = ""
    host_ifname: str = ""
    host_addresses: tuple[str, ...] = ()
    bridge: str = ""
    parent: str = ""
    mode: str = "bridge"


@dataclass(frozen=True, slots=True)
class AskedInterface:
    """A link of a namespace as asked for. `mtu_bytes` None: as the bridge or parent has it."""

    name: str = ""
    link: AskedLink = AskedLink()
    addresses: tuple[str, ...] = ()
    ipv4_pool: str = ""
    ipv6_pool: str = ""
    mtu_bytes: int | None = None
    default_route: bool = False
    gateways: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AskedRoute:
    """A route as asked for."""

    destination: str = ""
    gateway: str = ""
    ifname: str = ""
    metric: int = 0


@dataclass(frozen=True, slots=True)
class AskedDns:
    """Name resolution as asked for."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AskedNamespace:
    """A namespace as asked for."""

    name: str = ""
    interfaces: tuple[AskedInterface, ...] = ()
    routes: tuple[AskedRoute, ...] = ()
    dns: AskedDns = AskedDns()
    hostname: str = ""
    unprivileged_port_start: int | None = None
    persistent: bool = False
    remove_with_processes: bool = False
