"""The route netlink messages of changes, laid out as the kernel's headers have them.

Each function answers what follows the netlink header, for `RouteSocket.change`. A few structures
and attributes are all that is needed, and a change sends many of them: a general encoder took
longer than the kernel. Sources: rtnetlink(7); linux/if_link.h, linux/if_addr.h, linux/rtnetlink.h,
linux/veth.h.
"""

from __future__ import annotations

import socket
import struct

from hostlerd.netns.model.namespace import Address, MacvlanMode, Route

RTPROT_HOSTLER = 72
"""Marks our routes, so that we never take a route for ours that a process inside has set."""

LINK = struct.Struct("=BxHiII")
"""struct ifinfomsg: family, hardware type, index, flags, which flags to change."""
ADDRESS = struct.Struct("=BBBBI")
"""struct ifaddrmsg: family, prefix length, flags, scope, index."""
ROUTE = struct.Struct("=BBBBBBBBI")
"""struct rtmsg: family, lengths of destination and source, tos, table, protocol, scope, type."""

IFF_UP = 1
IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER, IFLA_LINKINFO = 3, 4, 5, 10, 18
IFLA_NET_NS_FD, IFLA_GROUP, IFLA_EXT_MASK = 28, 27, 29
IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_MACVLAN_MODE = 1, 2, 1
RTEXT_FILTER_SKIP_STATS = 8
IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS = 1, 2, 8
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY = 1, 4, 5, 6
RT_TABLE_MAIN = 254
RTN_UNICAST = 1

_VETH_INFO_PEER = 1
_IFA_BROADCAST = 4
_IFA_F_NODAD = 0x02
_SCOPE_UNIVERSE, _SCOPE_LINK = 0, 253
_ATTRIBUTE = struct.Struct("=HH")
_NUMBER_ATTRIBUTE = struct.Struct("=HHI")
_NO_LINK = LINK.pack(0, 0, 0, 0, 0)


def attribute(kind: int, value: bytes) -> bytes:
    """Lay out an attribute, or a nest of them, padded to four bytes."""
    size = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(size, kind) + value + bytes(-size % 4)


def number_attribute(kind: int, value: int) -> bytes:
    """Lay out an attribute that is a number of 32 bits."""
    return _NUMBER_ATTRIBUTE.pack(_NUMBER_ATTRIBUTE.size, kind, value)


def text_attribute(kind: int, value: str) -> bytes:
    """Lay out an attribute that is a string, with the NUL at its end."""
    return attribute(kind, value.encode() + b"\0")


def named_link(ifname: str, *attributes: bytes) -> bytes:
    """Name a link: a new one with its attributes, or one to ask for or to remove."""
    return _NO_LINK + text_attribute(IFLA_IFNAME, ifname) + b"".join(attributes)


def every_link() -> bytes:
    """Ask for all links, their statistics left out."""
    return _NO_LINK + number_attribute(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)


def link_change(index: int, *attributes: bytes) -> bytes:
    """Change attributes of a link."""
    return LINK.pack(0, 0, index, 0, 0) + b"".join(attributes)


def link_up(index: int, up: bool = True) -> bytes:
    """Set a link up or down."""
    return LINK.pack(0, 0, index, IFF_UP if up else 0, IFF_UP)


def link_group(group: int) -> bytes:
    """Name all links of a group, as ip-link(8) has them."""
    return _NO_LINK + number_attribute(IFLA_GROUP, group)


def link_info(kind: str, data: bytes = b"") -> bytes:
    """Say of what kind a new link is; `data` are the attributes of that kind."""
    nest = text_attribute(IFLA_INFO_KIND, kind)
    return attribute(IFLA_LINKINFO, nest + attribute(IFLA_INFO_DATA, data) if data else nest)


def veth(peer: bytes) -> bytes:
    """Say that a new link is a veth; `peer` is its other end, by `named_link`."""
    return link_info("veth", attribute(_VETH_INFO_PEER, peer))


def macvlan(parent_index: int, mode: MacvlanMode) -> bytes:
    """Say that a new link is a macvlan, and on which link."""
    data = number_attribute(IFLA_MACVLAN_MODE, mode.value)
    return number_attribute(IFLA_LINK, parent_index) + link_info("macvlan", data)


def mtu(size_bytes: int) -> bytes:
    """Say the MTU of a link, L2 header left out."""
    return number_attribute(IFLA_MTU, size_bytes)


def namespace_fd(fd: int) -> bytes:
    """Say into which network namespace a new link goes."""
    return number_attribute(IFLA_NET_NS_FD, fd)


def address(value: Address, index: int) -> bytes:
    """Name an address of a link."""
    packed = value.packed
    network = value.network
    body = ADDRESS.pack(_family(value.version), network.prefixlen, 0, _SCOPE_UNIVERSE, index)
    body += attribute(IFA_LOCAL, packed) + attribute(IFA_ADDRESS, packed)
    if value.version == 4 and network.prefixlen < 31:
        body += attribute(_IFA_BROADCAST, network.broadcast_address.packed)
    if value.version == 6:
        # We have checked that nobody else has it; detection would delay its use by seconds.
        body += number_attribute(IFA_FLAGS, _IFA_F_NODAD)
    return body


def route(value: Route, index: int) -> bytes:
    """Name a route of the main table by the link of that index, marked as ours."""
    destination = value.destination
    scope = _SCOPE_LINK if value.gateway is None else _SCOPE_UNIVERSE
    kind = (RT_TABLE_MAIN, RTPROT_HOSTLER, scope, RTN_UNICAST)
    body = ROUTE.pack(_family(destination.version), destination.prefixlen, 0, 0, *kind, 0)
    body += number_attribute(RTA_OIF, index)
    if destination.prefixlen:
        body += attribute(RTA_DST, destination.network_address.packed)
    if value.gateway is not None:
        body += attribute(RTA_GATEWAY, value.gateway.packed)
    if value.metric:
        body += number_attribute(RTA_PRIORITY, value.metric)
    return body


def _family(version: int) -> int:
    return int(socket.AF_INET if version == 4 else socket.AF_INET6)
