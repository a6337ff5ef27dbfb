"""A packet at a place on its way, and what can be read of it.

Source: libnftables-json(5). What a packet has not, is Missing; what we do not know is Unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any

from hostlerd.firewall.model.explain import ICMP, ICMPV6, TCP, Packet, Routes
from hostlerd.firewall.model.ruleset import Address
from hostlerd.firewall.plan import explain_routes as fib
from hostlerd.firewall.plan import explain_words as words

_WITH_PORTS = frozenset({TCP, 17, 33, 132, 136})
_HEADERS = {"tcp": TCP, "udp": 17, "dccp": 33, "sctp": 132, "udplite": 136,
            "icmp": ICMP, "icmpv6": ICMPV6}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Unknown:
    """A value that is not known."""

    why: str


class Missing(Exception):
    """The packet has no such thing."""


@dataclass(slots=True)
class Flow:
    """The packet as it is at a place on its way."""

    packet: Packet
    routes: Routes
    source: Address
    destination: Address
    source_port: int | None
    destination_port: int | None
    hook: str = ""
    in_ifname: str | Unknown = ""
    out_ifname: str | Unknown = ""
    mark: int | Unknown = 0
    ct_mark: int | Unknown = 0
    state: str = "invalid"
    status: int | Unknown = 0
    changed_sets: set[str] = field(default_factory=set)


Sets = Mapping[str, Any]


def _meta(given: Mapping[str, Any], flow: Flow) -> Any:
    key = given["key"]
    version = flow.packet.version
    known: Mapping[str, Any] = {
        "iifname": flow.in_ifname,
        "oifname": flow.out_ifname,
        "iif": flow.in_ifname,
        "oif": flow.out_ifname,
        "nfproto": 2 if version == 4 else 10,
        "protocol": 0x0800 if version == 4 else 0x86DD,
        "mark": flow.mark,
        "time": flow.packet.now_unix_s,
    }
    if key == "l4proto":
        return _protocol(flow)
    return known.get(key, Unknown(f"meta {key} is not known of the packet"))


def _protocol(flow: Flow) -> Any:
    known = flow.packet.protocol
    return Unknown("the packet's protocol is not given") if known is None else known


def _payload(given: Mapping[str, Any], flow: Flow) -> Any:
    protocol, name = given.get("protocol"), given.get("field")
    if protocol in ("ip", "ip6"):
        return _network_header(str(protocol), str(name), flow)
    if protocol == "th":
        known = flow.packet.protocol
        if known is not None and known not in _WITH_PORTS:
            return Unknown("the packet has no ports")
        return _port(str(name), flow)
    if protocol in _HEADERS:
        return _transport_header(str(protocol), str(name), flow)
    if protocol == "ether" and flow.hook == "output":
        raise Missing
    return Unknown(f"{protocol} {name} is not known of the packet")


def _network_header(protocol: str, name: str, flow: Flow) -> Any:
    if flow.packet.version != (4 if protocol == "ip" else 6):
        raise Missing
    if name in ("protocol", "nexthdr"):
        return _protocol(flow)
    known = {
        "saddr": int(flow.source),
        "daddr": int(flow.destination),
        "version": flow.packet.version,
    }
    return known.get(name, Unknown(f"{protocol} {name} is not known of the packet"))


def _transport_header(protocol: str, name: str, flow: Flow) -> Any:
    have = flow.packet.protocol
    if have is None:
        return Unknown("the packet's protocol is not given")
    if have != _HEADERS[protocol]:
        raise Missing
    if protocol in ("icmp", "icmpv6"):
        return _icmp(name, flow)
    if protocol == "tcp" and name == "flags" and flow.packet.state == "new":
        return words.TCP_FLAGS["syn"]
    return _port(name, flow)


def _icmp(name: str, flow: Flow) -> Any:
    kind = flow.packet.icmp_type
    if name == "type" and kind is not None:
        return kind
    if name == "code" and kind in (0, 8, 128, 129):
        return 0
    return Unknown(f"the ICMP {name} is not known of the packet")


def _port(name: str, flow: Flow) -> Any:
    port = {"sport": flow.source_port, "dport": flow.destination_port}.get(name)
    return Unknown(f"{name} is not known of the packet") if port is None else port


def _ct(given: Mapping[str, Any], flow: Flow) -> Any:
    key = given["key"]
    if key == "state":
        return words.STATES[flow.state]
    if flow.state in ("invalid", "untracked"):
        raise Missing
    if key == "status":
        return flow.status
    if key == "mark":
        return flow.ct_mark
    if key == "direction" and flow.state == "new":
        return 0
    return Unknown(f"ct {key} is not known of the packet")


def _routed(given: Mapping[str, Any], flow: Flow) -> Any:
    flags = given.get("flags", [])
    address = flow.source if "saddr" in flags else flow.destination
    try:
        if given["result"] == "type" and not {"iif", "oif"} & {*flags}:
            return words.FIB_TYPES.get(
                fib.address_type(flow.routes, address),
                Unknown("the type of the route is not known"),
            )
        if given["result"] == "oif" and "mark" not in flags and "oif" not in flags:
            return _fib_link(address, "iif" in flags, flow)
    except fib.RouteUnknown as e:
        return Unknown(str(e))
    return Unknown("what it asks the routes is not understood")


def _fib_link(address: Address, by_in: bool, flow: Flow) -> Any:
    ifname = flow.in_ifname if by_in else ""
    if isinstance(ifname, Unknown):
        return ifname
    if flow.hook == "prerouting" and ifname == "lo":
        return 1
    if isinstance(address, IPv4Address) and (address.is_multicast or int(address) == 0):
        return Unknown("the route of such an address is not known")
    # Only whether there is one: nft compares with nothing else in practice.
    return int(bool(fib.reaches(flow.routes, address, ifname)))


#: What reads an expression of each kind. Raises Missing.
READERS: Mapping[str, Callable[[Mapping[str, Any], Flow], Any]] = {
    "meta": _meta,
    "payload": _payload,
    "ct": _ct,
    "fib": _routed,
}
