"""Links, addresses and routes as one network namespace has them, decoded from route netlink."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface

from hostlerd.netns.kernel.messages import (
    ADDRESS,
    IFA_ADDRESS,
    IFA_FLAGS,
    IFA_LOCAL,
    IFF_UP,
    IFLA_IFNAME,
    IFLA_INFO_DATA,
    IFLA_INFO_KIND,
    IFLA_LINK,
    IFLA_LINKINFO,
    IFLA_MACVLAN_MODE,
    IFLA_MASTER,
    IFLA_MTU,
    LINK,
    ROUTE,
    RT_TABLE_MAIN,
    RTA_DST,
    RTA_GATEWAY,
    RTA_OIF,
    RTA_PRIORITY,
    RTN_UNICAST,
    RTPROT_HOSTLER,
    every_link,
)
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

_RTPROT_KERNEL, _RTPROT_RA, _RTPROT_REDIRECT = 2, 9, 1
_IFLA_ADDRESS, _IFLA_CARRIER = 1, 33
_ARPHRD_LOOPBACK = 772
_IFA_PROTO = 11
_IFA_F_PERMANENT = 0x80
_IFAPROT_KERNEL = {1, 2, 3}
_RTA_TABLE = 15
_RT_TABLE_LOCAL = 255
_RTN_OWN = {2, 3, 4, 5}
_RTM_F_CLONED = 0x200


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
    found = [_link(m) for m in sock.dump(RTM_GETLINK, every_link())]
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
        if raw.table == RT_TABLE_MAIN
        and raw.kind == RTN_UNICAST
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


def _link(message: bytes) -> tuple[Link, int]:
    view = memoryview(message)
    _, hardware, index, flags, _ = LINK.unpack_from(view)
    link = Link("", "loopback" if hardware == _ARPHRD_LOOPBACK else "", index)
    master = 0
    values: dict[str, object] = {"up": bool(flags & IFF_UP)}
    for kind, value in attributes(view[LINK.size :]):
        if kind == IFLA_IFNAME:
            values["name"] = text(value)
        elif kind == IFLA_MTU:
            values["mtu_bytes"] = number(value)
        elif kind == _IFLA_ADDRESS:
            values["mac_address"] = bytes(value).hex(":")
        elif kind == _IFLA_CARRIER:
            values["carrier"] = bool(number(value))
        elif kind == IFLA_LINK:
            values["parent_index"] = number(value)
        elif kind == IFLA_MASTER:
            master = number(value)
        elif kind == IFLA_LINKINFO:
            values |= _link_info(value)
    return replace(link, **values), master  # type: ignore[arg-type]


def _link_info(nest: memoryview) -> dict[str, object]:
    info: dict[str, object] = {}
    for kind, value in attributes(nest):
        if kind == IFLA_INFO_KIND:
            info["kind"] = text(value)
        elif kind == IFLA_INFO_DATA and info.get("kind") == "macvlan":
            modes = [number(v) for k, v in attributes(value) if k == IFLA_MACVLAN_MODE]
            known = {mode.value: mode for mode in MacvlanMode}
            info["mode"] = known.get(modes[0]) if modes else None
    return info


def _addresses(sock: RouteSocket, settled: bool) -> dict[int, list[Address]]:
    found: dict[int, list[Address]] = defaultdict(list)
    for message in sock.dump(RTM_GETADDR, ADDRESS.pack(0, 0, 0, 0, 0)):
        view = memoryview(message)
        _, prefixlen, flags, _, index = ADDRESS.unpack_from(view)
        attrs = dict(attributes(view[ADDRESS.size :]))
        value = attrs.get(IFA_LOCAL, attrs.get(IFA_ADDRESS))
        if value is None or len(value) not in (4, 16):
            continue
        flags = number(attrs[IFA_FLAGS]) if IFA_FLAGS in attrs else flags
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
    for message in sock.dump(RTM_GETROUTE, ROUTE.pack(0, 0, 0, 0, 0, 0, 0, 0, 0)):
        view = memoryview(message)
        family, prefixlen, _, _, table, protocol, _, kind, flags = ROUTE.unpack_from(view)
        # The local table is most of what is listed, and none of what is asked for.
        if table == _RT_TABLE_LOCAL or flags & _RTM_F_CLONED or family not in (2, 10):
            continue
        attrs = dict(attributes(view[ROUTE.size :]))
        version = 4 if family == 2 else 6
        metric = number(attrs[RTA_PRIORITY]) if RTA_PRIORITY in attrs else 0
        routes.append(
            _RawRoute(
                _network(version, attrs.get(RTA_DST), prefixlen),
                _ip(attrs.get(RTA_GATEWAY)),
                number(attrs[RTA_OIF]) if RTA_OIF in attrs else 0,
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
