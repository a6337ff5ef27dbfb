"""What a rule of iptables matches, as far as a rule of ours can say it.

Source: iptables-extensions(8).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network, summarize_address_range
from typing import Any

from hostler.api.firewall.v1 import ruleset_pb2 as pb
from hostler.firewall_import import Unsayable
from hostler.firewall_iptables_text import Option

Network = IPv4Network | IPv6Network
Ports = tuple[int, int]

_PROTOCOLS: Mapping[str, str] = {
    **{name: name for name in ("tcp", "udp", "icmp", "sctp", "esp", "ah", "gre", "igmp", "vrrp")},
    **{"6": "tcp", "17": "udp", "1": "icmp", "132": "sctp", "50": "esp", "51": "ah", "47": "gre"},
    **{"2": "igmp", "112": "vrrp", "ipv6-icmp": "icmp", "icmpv6": "icmp", "58": "icmp"},
}
# By number, as iptables-save writes them. Source: nft(8), ICMP TYPE and ICMPV6 TYPE.
_ICMP_TYPES: Mapping[int, str] = {
    0: "echo-reply",
    3: "destination-unreachable",
    4: "source-quench",
    5: "redirect",
    8: "echo-request",
    9: "router-advertisement",
    10: "router-solicitation",
    11: "time-exceeded",
    12: "parameter-problem",
    13: "timestamp-request",
    14: "timestamp-reply",
}
_ICMPV6_TYPES: Mapping[int, str] = {
    1: "destination-unreachable",
    2: "packet-too-big",
    3: "time-exceeded",
    4: "parameter-problem",
    128: "echo-request",
    129: "echo-reply",
    130: "mld-listener-query",
    131: "mld-listener-report",
    132: "mld-listener-done",
    133: "nd-router-solicit",
    134: "nd-router-advert",
    135: "nd-neighbor-solicit",
    136: "nd-neighbor-advert",
    137: "nd-redirect",
    143: "mld2-listener-report",
}
_STATES = ("new", "established", "related", "invalid", "untracked")
_UNITS = {"sec": "second", "second": "second", "min": "minute", "minute": "minute", "hour": "hour"}
_MODULES = frozenset(
    {"tcp", "udp", "sctp", "icmp", "icmp6", "multiport", "state", "conntrack", "comment", "limit"}
    | {"iprange", "addrtype"}
)
_COMMENT_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class Match:
    """What a packet has to be; what is empty matches any."""

    protocol: str = ""
    sources: tuple[Network, ...] = ()
    destinations: tuple[Network, ...] = ()
    source_ports: tuple[Ports, ...] = ()
    destination_ports: tuple[Ports, ...] = ()
    in_ifname: str = ""
    out_ifname: str = ""
    icmp_types: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    limit: tuple[int, str, int] | None = None
    to_local: bool = False
    comment: str = ""

    def restricts(self) -> tuple[str, ...]:
        """The names of what it asks for, comments aside."""
        names = (f.name for f in fields(self) if f.name != "comment")
        return tuple(name for name in names if getattr(self, name))

    def within(self, above: Match) -> Match | None:
        """What matches both; None if nothing does. Raises Unsayable."""
        made: dict[str, Any] = {}
        for each in fields(self):
            inner, outer = getattr(self, each.name), getattr(above, each.name)
            if not inner or not outer or inner == outer or each.name == "comment":
                made[each.name] = inner or outer
                continue
            both = _BOTH[each.name](inner, outer)
            if not both:
                return None
            made[each.name] = both
        return Match(**made)


def read(options: Iterable[Option], *, ipv6: bool) -> tuple[Match, tuple[Option, ...]]:
    """Read the matches among the options; answer those left, which belong to the target or to NAT.

    Raises Unsayable for what a rule of ours cannot ask for.
    """
    match = Match()
    left = []
    for option in options:
        if option.name == "-m":
            if option.word not in _MODULES:
                raise Unsayable(f"there is no match for -m {option.word}")
        elif option.name not in _READERS or (option.negated and option.name in _MAY_BE_NEGATED):
            left.append(option)
        elif option.negated:
            raise Unsayable(f"{option} {' '.join(option.words)} has no match of ours")
        else:
            match = _READERS[option.name](match, option, ipv6)
    return match, tuple(left)


# Read by those who know what they mean there.
_MAY_BE_NEGATED = ("-o", "-d")


def _with(match: Match, name: str, value: Any) -> Match:
    values: dict[str, Any] = {name: value}
    return replace(match, **values)


def _protocol(match: Match, option: Option, ipv6: bool) -> Match:
    if option.word in ("all", "0"):
        return match
    if option.word not in _PROTOCOLS:
        raise Unsayable(f"there is no protocol {option.word} in rules")
    return replace(match, protocol=_PROTOCOLS[option.word])


def _networks(name: str) -> Callable[[Match, Option, bool], Match]:
    def reader(match: Match, option: Option, ipv6: bool) -> Match:
        try:
            listed = [ip_network(each, strict=False) for each in option.word.split(",")]
        except ValueError as error:
            raise Unsayable(f"{option.word} is no network that can be written") from error
        listed = [each for each in listed if each.prefixlen]
        return _with(match, name, tuple(dict.fromkeys(listed))) if listed else match

    return reader


def _range(name: str) -> Callable[[Match, Option, bool], Match]:
    def reader(match: Match, option: Option, ipv6: bool) -> Match:
        first, _, last = option.word.partition("-")
        try:
            parts = summarize_address_range(ip_address(first), ip_address(last or first))
            return _with(match, name, tuple(parts))
        except (TypeError, ValueError) as error:
            raise Unsayable(f"{option.word} is no range of addresses") from error

    return reader


def _ports(name: str) -> Callable[[Match, Option, bool], Match]:
    def reader(match: Match, option: Option, ipv6: bool) -> Match:
        return _with(match, name, tuple(_port_ranges(option.word)))

    return reader


def _port_ranges(words: str) -> Iterator[Ports]:
    for each in words.split(","):
        first, colon, last = each.partition(":")
        low, high = first or "0", (last or "65535") if colon else first
        if not (low.isdecimal() and high.isdecimal() and int(low) <= int(high) <= 65535):
            raise Unsayable(f"{each} is no port that can be written")
        if int(high) == 0:
            raise Unsayable("port 0 cannot be written")
        yield max(1, int(low)), int(high)


def _ifname(name: str) -> Callable[[Match, Option, bool], Match]:
    def reader(match: Match, option: Option, ipv6: bool) -> Match:
        return match if option.word == "+" else _with(match, name, option.word)

    return reader


def _icmp(match: Match, option: Option, ipv6: bool) -> Match:
    known = _ICMPV6_TYPES if ipv6 else _ICMP_TYPES
    word = option.word
    if word in ("any", "255"):
        return match
    if word.isdecimal() and int(word) in known:
        return replace(match, icmp_types=(known[int(word)],))
    if word in known.values():
        return replace(match, icmp_types=(word,))
    raise Unsayable(f"there is no ICMP type {word} in rules")


def _states(match: Match, option: Option, ipv6: bool) -> Match:
    words = tuple(each.lower() for each in option.word.split(","))
    if strange := [each for each in words if each not in _STATES]:
        raise Unsayable(f"there is no state {strange[0].upper()} in rules")
    return replace(match, states=tuple(each for each in _STATES if each in words))


def _limit(match: Match, option: Option, ipv6: bool) -> Match:
    number, _, unit = option.word.partition("/")
    if not number.isdecimal() or unit not in _UNITS:
        raise Unsayable(f"there is no rate {option.word} in rules")
    burst = match.limit[2] if match.limit else 5
    return replace(match, limit=(int(number), _UNITS[unit], burst))


def _burst(match: Match, option: Option, ipv6: bool) -> Match:
    if not option.word.isdecimal():
        raise Unsayable(f"{option.word} is no burst")
    # 3/hour is what -m limit means by itself.
    packets, unit = match.limit[:2] if match.limit else (3, "hour")
    return replace(match, limit=(packets, unit, int(option.word)))


def _local(match: Match, option: Option, ipv6: bool) -> Match:
    if option.word != "LOCAL":
        raise Unsayable(f"there is no type of address {option.word} in rules")
    return replace(match, to_local=True)


def _comment(match: Match, option: Option, ipv6: bool) -> Match:
    return replace(match, comment=clean(option.word))


def clean(words: str) -> str:
    """A comment as our rules take it."""
    kept = "".join(c for c in words if c.isprintable() and c not in '"\\')
    return kept.strip()[:_COMMENT_CHARACTERS]


_READERS: Mapping[str, Callable[[Match, Option, bool], Match]] = {
    "-p": _protocol,
    "-s": _networks("sources"),
    "-d": _networks("destinations"),
    "--src-range": _range("sources"),
    "--dst-range": _range("destinations"),
    "--sport": _ports("source_ports"),
    "--sports": _ports("source_ports"),
    "--dport": _ports("destination_ports"),
    "--dports": _ports("destination_ports"),
    "-i": _ifname("in_ifname"),
    "-o": _ifname("out_ifname"),
    "--icmp-type": _icmp,
    "--icmpv6-type": _icmp,
    "--state": _states,
    "--ctstate": _states,
    "--limit": _limit,
    "--limit-burst": _burst,
    "--dst-type": _local,
    "--comment": _comment,
}


def _both_networks(inner: tuple[Any, ...], outer: tuple[Any, ...]) -> tuple[Network, ...]:
    """Of two networks that overlap, one holds the other."""
    both = [
        one if one.subnet_of(other) else other
        for one in inner
        for other in outer
        if one.version == other.version and one.overlaps(other)
    ]
    return tuple(dict.fromkeys(both))


def _both_ports(inner: tuple[Ports, ...], outer: tuple[Ports, ...]) -> tuple[Ports, ...]:
    both = [(max(a[0], b[0]), min(a[1], b[1])) for a in inner for b in outer]
    return tuple(dict.fromkeys(each for each in both if each[0] <= each[1]))


def _both_listed(inner: tuple[str, ...], outer: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(each for each in inner if each in outer)


def _both_ifnames(inner: str, outer: str) -> str:
    for one, other in ((inner, outer), (outer, inner)):
        if other.endswith("+") and one.removesuffix("+").startswith(other[:-1]):
            return one
    return ""


def _both_limits(inner: object, outer: object) -> object:
    raise Unsayable("two limits, one within the other")


_BOTH: Mapping[str, Callable[[Any, Any], Any]] = {
    "protocol": lambda inner, outer: "",
    "sources": _both_networks,
    "destinations": _both_networks,
    "source_ports": _both_ports,
    "destination_ports": _both_ports,
    "in_ifname": _both_ifnames,
    "out_ifname": _both_ifnames,
    "icmp_types": _both_listed,
    "states": _both_listed,
    "limit": _both_limits,
}


def zone_of(pattern: str, ruleset: Any) -> str:
    """The zone for a pattern of links such as `veth+`, made in the ruleset if it is not there."""
    wildcard = pattern[:-1] + "*"
    for zone in ruleset.zones:
        if list(zone.ifnames) == [wildcard]:
            return str(zone.name)
    base = "".join(c if c.isalnum() else "-" for c in pattern[:-1].lower()).strip("-")
    taken = {zone.name for zone in ruleset.zones}
    name = f"links-{base}"[:22]
    if name in taken:
        name = f"{name[:20]}-{len(taken)}"
    ruleset.zones.append(pb.Zone(name=name, ifnames=[wildcard]))
    return name
