"""What nft's expressions are of a packet, in three values: True, False, and None for not known.

Source: libnftables-json(5). What a packet has not (an IPv4 address of an IPv6 packet) ends its rule
without a match, whatever the comparison; what we do not know is Unknown and says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import IPv4Address, ip_address, ip_network
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


def value(expression: Any, flow: Flow, sets: Sets) -> Any:
    """Answer the value of the left side of a match. Raises Missing."""
    if isinstance(expression, int):
        return expression
    if not isinstance(expression, dict) or len(expression) != 1:
        return Unknown(f"the expression {expression} is not understood")
    ((kind, given),) = expression.items()
    if kind in ("&", "|", "^", "<<", ">>"):
        return _computed(kind, given, flow, sets)
    if kind == "concat":
        return tuple(value(each, flow, sets) for each in given)
    if kind == "map":
        return mapped(given, flow, sets)
    evaluate = _KINDS.get(kind)
    if evaluate is None:
        return Unknown(f"nft's {kind} is not understood")
    return evaluate(given, flow)


def matches(given: Mapping[str, Any], flow: Flow, sets: Sets) -> bool | Unknown:
    """Answer whether a match holds. Raises Missing."""
    left, right, op = given["left"], given["right"], given["op"]
    have = value(left, flow, sets)
    name = _name(left)
    if isinstance(have, Unknown):
        return have
    if op == "in":
        bits = _number(right, name)
        return Unknown(f"{right} is not understood") if bits is None else bool(have & bits)
    if op in ("==", "!="):
        same = _among(right, have, name, flow, sets)
        return same if isinstance(same, Unknown) else same == (op == "==")
    return _ordered(op, have, _number(right, name))


def _ordered(op: str, have: Any, wanted: int | None) -> bool | Unknown:
    compare: Mapping[str, Callable[[int, int], bool]] = {
        "<": lambda a, b: a < b,
        ">": lambda a, b: a > b,
        "<=": lambda a, b: a <= b,
        ">=": lambda a, b: a >= b,
    }
    if op not in compare or wanted is None or not isinstance(have, int):
        return Unknown(f"the comparison {op} is not understood")
    return compare[op](have, wanted)


def candidates(given: Mapping[str, Any], flow: Flow, sets: Sets) -> tuple[list[Any], str]:
    """Answer what a map may answer for the packet, and why it is not one; Raises Missing.

    With a reason, nothing is a candidate too.
    """
    have = value(given["key"], flow, sets)
    name = _name(given["key"])
    pairs = _elements(given["data"], sets)
    if isinstance(pairs, Unknown):
        return [], pairs.why
    if isinstance(given["data"], str) and given["data"] in flow.changed_sets:
        return [each[1] for each in pairs], "an earlier rule changes the map"
    maybe: list[Any] = []
    why = ""
    for key, target in pairs:
        held = _leaf(_bare(key), have, name)
        if held is True:
            return [target], ""
        if isinstance(held, Unknown):
            maybe.append(target)
            why = held.why
    return maybe, why


def mapped(given: Mapping[str, Any], flow: Flow, sets: Sets) -> Any:
    """Answer what a map answers, as nft writes it. Raises Missing."""
    found, why = candidates(given, flow, sets)
    if why:
        return Unknown(why)
    if not found:
        raise Missing
    return found[0]


def _elements(data: Any, sets: Sets) -> Any:
    if isinstance(data, str):
        named = sets.get(data)
        return Unknown(f"the set {data} is not there") if named is None else named
    return data.get("set", []) if isinstance(data, dict) else Unknown("a set is not understood")


def _bare(element: Any) -> Any:
    """Answer an element without its comment, timeout and counter."""
    if isinstance(element, dict) and "elem" in element:
        return element["elem"]["val"]
    return element


def _among(right: Any, have: Any, name: Any, flow: Flow, sets: Sets) -> bool | Unknown:
    named = isinstance(right, str) and right.startswith("@")
    if not named and not (isinstance(right, dict) and "set" in right):
        return _leaf(right, have, name)
    elements = _elements(right, sets)
    if isinstance(elements, Unknown):
        return elements
    if named and right in flow.changed_sets:
        return Unknown("an earlier rule changes the set")
    return _any(_leaf(_bare(each), have, name) for each in elements)


def _any(answers: Iterable[bool | Unknown]) -> bool | Unknown:
    unknown: Unknown | None = None
    for each in answers:
        if each is True:
            return True
        if isinstance(each, Unknown):
            unknown = each
    return unknown or False


def _all(answers: Iterable[bool | Unknown]) -> bool | Unknown:
    unknown: Unknown | None = None
    for each in answers:
        if each is False:
            return False
        if isinstance(each, Unknown):
            unknown = each
    return unknown or True


def _leaf(right: Any, have: Any, name: Any) -> bool | Unknown:
    """Answer whether a value is an element: a number, a word, a prefix, a range, or several."""
    if isinstance(have, tuple):
        parts = right.get("concat") if isinstance(right, dict) else None
        if parts is None or len(parts) != len(have):
            return Unknown("a concatenation is not understood")
        return _all(_leaf(r, h, n) for r, h, n in zip(parts, have, name, strict=True))
    if isinstance(have, Unknown):
        return have
    if isinstance(have, str):
        return _same_link(right, have)
    if right == "*":
        return True
    if isinstance(right, dict) and "prefix" in right:
        inside = _prefix(right["prefix"], have, name)
        return Unknown("a prefix is not understood") if inside is None else inside
    if isinstance(right, dict) and "range" in right:
        first, last = (_number(each, name) for each in right["range"])
        if first is None or last is None:
            return Unknown("a range is not understood")
        return bool(first <= have <= last)
    wanted = _number(right, name)
    return Unknown(f"{right} is not understood") if wanted is None else bool(have == wanted)


def _prefix(given: Mapping[str, Any], have: int, name: Any) -> bool | None:
    start = _number(given["addr"], name)
    if start is None or not isinstance(given["addr"], str):
        return None
    network = ip_network(f"{given['addr']}/{given['len']}", strict=False)
    shift = network.max_prefixlen - network.prefixlen
    return have >> shift == start >> shift


def _same_link(right: Any, have: str) -> bool | Unknown:
    if not isinstance(right, str):
        return Unknown("a name of a link is not understood")
    if right.endswith("\\*"):
        return have == right[:-2] + "*"
    return have.startswith(right[:-1]) if right.endswith("*") else have == right


def _name(expression: Any) -> Any:
    """Answer what says how words for a value are read: "ip saddr", "ct state"."""
    if not isinstance(expression, dict):
        return ""
    ((kind, given),) = expression.items()
    if kind == "concat":
        return tuple(_name(each) for each in given)
    if kind in ("&", "|", "^", "<<", ">>"):
        return _name(given[0])
    if kind == "payload":
        return f"{given.get('protocol', 'raw')} {given.get('field', '')}"
    if kind in ("meta", "ct"):
        return f"{kind} {given['key']}"
    return f"fib {given['result']}" if kind == "fib" else kind


_WORDS: Mapping[str, Mapping[str, int]] = {
    "meta l4proto": words.PROTOCOLS,
    "ip protocol": words.PROTOCOLS,
    "ip6 nexthdr": words.PROTOCOLS,
    "icmp type": words.ICMP_TYPES,
    "icmpv6 type": words.ICMPV6_TYPES,
    "icmp code": words.ICMP_CODES,
    "ct state": words.STATES,
    "ct status": words.STATUS,
    "ct direction": words.DIRECTIONS,
    "fib type": words.FIB_TYPES,
    "tcp flags": words.TCP_FLAGS,
    "meta nfproto": words.NFPROTOS,
    "meta protocol": words.ETHER_TYPES,
    "ether type": words.ETHER_TYPES,
}


def _number(right: Any, name: Any) -> int | None:
    """Answer the number of nft's word for a value; None if we do not know it."""
    if isinstance(right, bool | int):
        return int(right)
    if isinstance(right, list) or (isinstance(right, dict) and "|" in right):
        parts = [_number(each, name) for each in (right["|"] if isinstance(right, dict) else right)]
        total = 0
        for part in parts:
            if part is None:
                return None
            total |= part
        return total
    if not isinstance(right, str):
        return None
    known = _WORDS.get(str(name), {}).get(right)
    if known is not None:
        return known
    if str(name).endswith(("saddr", "daddr")):
        return _address_number(right)
    if name == "meta time":
        return _time(right)
    try:
        return int(right, 0)
    except ValueError:
        return None


def _address_number(text: str) -> int | None:
    try:
        return int(ip_address(text))
    except ValueError:
        return None


def _time(text: str) -> int | None:
    # nft writes the time of the host's own zone.
    try:
        return int(datetime.fromisoformat(text).timestamp())
    except ValueError:
        return None


def _computed(kind: str, given: Sequence[Any], flow: Flow, sets: Sets) -> Any:
    name = _name(given[0])
    total = value(given[0], flow, sets)
    for each in given[1:]:
        other = _number(each, name)
        if other is None:
            other = value(each, flow, sets)
        if isinstance(total, Unknown):
            return total
        if not isinstance(total, int) or not isinstance(other, int) or other < 0:
            return other if isinstance(other, Unknown) else Unknown("it computes with words")
        total = _OPERATIONS[kind](total, other)
    return total


_OPERATIONS: Mapping[str, Callable[[int, int], int]] = {
    "&": lambda a, b: a & b,
    "|": lambda a, b: a | b,
    "^": lambda a, b: a ^ b,
    "<<": lambda a, b: (a << min(b, 32)) & 0xFFFFFFFF,
    ">>": lambda a, b: a >> min(b, 128),
}


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


def _fib(given: Mapping[str, Any], flow: Flow) -> Any:
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


_KINDS: Mapping[str, Callable[[Mapping[str, Any], Flow], Any]] = {
    "meta": _meta,
    "payload": _payload,
    "ct": _ct,
    "fib": _fib,
}
