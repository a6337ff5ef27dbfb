"""Links, addresses and routes as one network namespace has them, decoded from route netlink."""

from __future__ import annotations

import struct
from collections import defaultdict
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface

from hostlerd.netns.kernel.rtnetlink import (
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_GETROUTE,
    RouteSocket,
    attributes,
    number,
    text,
)
from hostlerd.netns.model.namespace import (
    Address,
    Gateway,
    MacvlanMode,
    Network,
    Route,
    default_network,
)
from hostlerd.netns.model.parse import IPV6_DEFAULT_METRIC
from hostlerd.netns.model.seen import Link

RTPROT_HOSTLER = 72
"""Marks our routes, so that we never take a route for ours that a process inside has set."""

_RTPROT_KERNEL, _RTPROT_RA, _RTPROT_REDIRECT = 2, 9, 1
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER = 1, 3, 4, 5, 10
_IFLA_LINKINFO, _IFLA_EXT_MASK, _IFLA_CARRIER = 18, 29, 33
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _IFLA_MACVLAN_MODE = 1, 2, 1
_RTEXT_FILTER_SKIP_STATS = 8
_ARPHRD_LOOPBACK = 772
_IFF_UP = 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS, _IFA_PROTO = 1, 2, 8, 11
_IFA_F_PERMANENT = 0x80
_IFAPROT_KERNEL = {1, 2, 3}
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_TABLE = 1, 4, 5, 6, 15
_RT_TABLE_MAIN, _RT_TABLE_LOCAL = 254, 255
_RTN_UNICAST = 1
_RTN_OWN = {2, 3, 4, 5}
_RTM_F_CLONED = 0x200
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")


@dataclass(frozen=True, slots=True)
class _RawRoute:
    destination: Network
    gateway: Gateway | None
    oif: int
    metric: int
    table: int
    protocol: int
    kind: int


def read_links(sock: RouteSocket, *, settled: bool = True) -> tuple[Link, ...]:
    """Read all links with their addresses.

    With `settled`, addresses that a router or DHCP client set for a time are left out; link-local
    ones of IPv6 always are, since the kernel makes them.
    """
    found = [_link(m) for m in sock.dump(RTM_GETLINK, _links_request())]
    names = {link.index: link.name for link, _ in found}
    addresses = _addresses(sock, settled)
    return tuple(
        replace(
            link,
            master=names.get(master, str(master or "")),
            addresses=tuple(addresses.get(link.index, ())),
        )
        for link, master in found
    )


def read_routes(sock: RouteSocket, names: dict[int, str], *, ours: bool) -> tuple[Route, ...]:
    """Read the unicast routes of the main table that the kernel has not made by itself.

    With `ours` those alone that Hostler set. `names` are the links by index.
    """
    return tuple(
        Route(raw.destination, raw.gateway, names.get(raw.oif, ""), raw.metric)
        for raw in _routes(sock)
        if raw.table == _RT_TABLE_MAIN
        and raw.kind == _RTN_UNICAST
        and raw.protocol not in (_RTPROT_KERNEL, _RTPROT_RA, _RTPROT_REDIRECT)
        and (raw.protocol == RTPROT_HOSTLER or not ours)
    )


def read_networks(sock: RouteSocket, names: dict[int, str]) -> tuple[tuple[Network, str], ...]:
    """Read where routes of any table lead to, and by which link; default routes are left out."""
    return tuple(
        (raw.destination, names.get(raw.oif, ""))
        for raw in _routes(sock)
        if raw.table != _RT_TABLE_LOCAL
        and raw.kind not in _RTN_OWN
        and raw.destination.prefixlen
        and not raw.destination.is_link_local
        and not raw.destination.is_multicast
    )


def _links_request() -> bytes:
    return _LINK.pack(0, 0, 0, 0, 0) + struct.pack(
        "=HHI", 8, _IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS
    )


def _link(message: bytes) -> tuple[Link, int]:
    view = memoryview(message)
    _, hardware, index, flags, _ = _LINK.unpack_from(view)
    link = Link("", "loopback" if hardware == _ARPHRD_LOOPBACK else "", index)
    master = 0
    values: dict[str, object] = {"up": bool(flags & _IFF_UP)}
    for kind, value in attributes(view[_LINK.size :]):
        if kind == _IFLA_IFNAME:
            values["name"] = text(value)
        elif kind == _IFLA_MTU:
            values["mtu_bytes"] = number(value)
        elif kind == _IFLA_ADDRESS:
            values["mac_address"] = bytes(value).hex(":")
        elif kind == _IFLA_CARRIER:
            values["carrier"] = bool(number(value))
        elif kind == _IFLA_LINK:
            values["parent_index"] = number(value)
        elif kind == _IFLA_MASTER:
            master = number(value)
        elif kind == _IFLA_LINKINFO:
            values |= _link_info(value)
    return replace(link, **values), master  # type: ignore[arg-type]


def _link_info(nest: memoryview) -> dict[str, object]:
    info: dict[str, object] = {}
    for kind, value in attributes(nest):
        if kind == _IFLA_INFO_KIND:
            info["kind"] = text(value)
        elif kind == _IFLA_INFO_DATA and info.get("kind") == "macvlan":
            modes = [number(v) for k, v in attributes(value) if k == _IFLA_MACVLAN_MODE]
            known = {mode.value: mode for mode in MacvlanMode}
            info["mode"] = known.get(modes[0]) if modes else None
    return info


def _addresses(sock: RouteSocket, settled: bool) -> dict[int, list[Address]]:
    found: dict[int, list[Address]] = defaultdict(list)
    for message in sock.dump(RTM_GETADDR, _ADDRESS.pack(0, 0, 0, 0, 0)):
        view = memoryview(message)
        _, prefixlen, flags, _, index = _ADDRESS.unpack_from(view)
        attrs = dict(attributes(view[_ADDRESS.size :]))
        value = attrs.get(_IFA_LOCAL, attrs.get(_IFA_ADDRESS))
        if value is None or len(value) not in (4, 16):
            continue
        flags = number(attrs[_IFA_FLAGS]) if _IFA_FLAGS in attrs else flags
        made_by = number(attrs[_IFA_PROTO]) if _IFA_PROTO in attrs else 0
        if settled and (not flags & _IFA_F_PERMANENT or made_by in _IFAPROT_KERNEL):
            continue
        address: Address = (
            IPv4Interface((bytes(value), prefixlen))
            if len(value) == 4
            else IPv6Interface((bytes(value), prefixlen))
        )
        if address.version == 4 or not address.ip.is_link_local:
            found[index].append(address)
    return found


def _routes(sock: RouteSocket) -> list[_RawRoute]:
    routes = []
    for message in sock.dump(RTM_GETROUTE, _ROUTE.pack(0, 0, 0, 0, 0, 0, 0, 0, 0)):
        view = memoryview(message)
        family, prefixlen, _, _, table, protocol, _, kind, flags = _ROUTE.unpack_from(view)
        # The local table is most of what is listed, and none of what is asked for.
        if table == _RT_TABLE_LOCAL or flags & _RTM_F_CLONED or family not in (2, 10):
            continue
        attrs = dict(attributes(view[_ROUTE.size :]))
        version = 4 if family == 2 else 6
        metric = number(attrs[_RTA_PRIORITY]) if _RTA_PRIORITY in attrs else 0
        routes.append(
            _RawRoute(
                _network(version, attrs.get(_RTA_DST), prefixlen),
                _ip(attrs.get(_RTA_GATEWAY)),
                number(attrs[_RTA_OIF]) if _RTA_OIF in attrs else 0,
                0 if version == 6 and metric == IPV6_DEFAULT_METRIC else metric,
                number(attrs[_RTA_TABLE]) if _RTA_TABLE in attrs else table,
                protocol,
                kind,
            )
        )
    return routes


def _ip(value: memoryview | None) -> Gateway | None:
    if value is None:
        return None
    return IPv4Address(bytes(value)) if len(value) == 4 else IPv6Address(bytes(value))


def _network(version: int, value: memoryview | None, prefixlen: int) -> Network:
    if value is None:
        return default_network(version)
    network: Network = (
        IPv4Interface((bytes(value), prefixlen)).network
        if version == 4
        else IPv6Interface((bytes(value), prefixlen)).network
    )
    return network
