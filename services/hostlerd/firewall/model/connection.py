"""Connections that the kernel tracks, which of them are meant, and the step that cuts them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hostlerd.firewall.model.fields import Fields
from hostlerd.firewall.model.ruleset import WITH_PORTS, Address, Network, PortRange, Protocol
from hostlerd.runtime.errors import InvalidRequest, Violation

#: The numbers of protocols. Source: Assigned Internet Protocol Numbers, IANA.
NUMBERS = {
    Protocol.TCP: (6,),
    Protocol.UDP: (17,),
    Protocol.ICMP: (1, 58),
    Protocol.SCTP: (132,),
    Protocol.ESP: (50,),
    Protocol.AH: (51,),
    Protocol.GRE: (47,),
    Protocol.IGMP: (2,),
    Protocol.VRRP: (112,),
}
_NAMES = {number: kind.value for kind, numbers in NUMBERS.items() for number in numbers}
_NAMES |= {58: "icmpv6", 33: "dccp", 136: "udplite"}
_NUMBERS_WITH_PORTS = frozenset((6, 17, 33, 132, 136))

#: Source: enum ip_conntrack_status, linux/netfilter/nf_conntrack_common.h.
SEEN_REPLY, ASSURED, SOURCE_NAT, DESTINATION_NAT = 0x2, 0x4, 0x10, 0x20

#: Source: enum tcp_conntrack, linux/netfilter/nf_conntrack_tcp.h; the words are conntrack(8)'s.
TCP_STATES = (
    "NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK",
    "TIME_WAIT", "CLOSE", "SYN_SENT2",
)  # fmt: skip

_NETWORKS_MOST = 256
_PORTS_MOST = 256
_FIELDS = frozenset(
    (
        "protocol", "sources", "destinations", "destination_ports", "source_ports", "ip_version",
        "destination_nat", "source_nat",
    )
)  # fmt: skip


class Flow(NamedTuple):
    """What of a connection decides whether it is meant: as its first packet went, and its status.

    Addresses are numbers; a million of them are compared, and objects would cost more than the
    kernel's work. `tcp_state` is -1 for all that is not TCP.
    """

    version: int
    protocol: int
    source: int
    destination: int
    source_port: int
    destination_port: int
    status: int
    tcp_state: int


@dataclass(frozen=True, slots=True)
class Direction:
    """One direction of a connection. `packets` and `bytes` are 0 where the host counts none.

    For ICMP the id stands in place of the source port.
    """

    source: Address
    destination: Address
    source_port: int
    destination_port: int
    packets: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection. `tcp_state` is empty for all that is not TCP."""

    id: int
    protocol: int
    original: Direction
    reply: Direction
    tcp_state: str
    status: int
    timeout_s: int
    mark: int


@dataclass(frozen=True, slots=True)
class ConnectionFilter:
    """Which connections are meant. Empty fields match everything; all that are set must hold."""

    protocol: Protocol | None = None
    sources: tuple[Network, ...] = ()
    destinations: tuple[Network, ...] = ()
    destination_ports: tuple[PortRange, ...] = ()
    source_ports: tuple[PortRange, ...] = ()
    ip_version: int = 0
    destination_nat: bool = False
    source_nat: bool = False

    @property
    def version(self) -> int:
        """The only IP version it can match; 0 if both."""
        networks = (*self.sources, *self.destinations)
        return self.ip_version or (networks[0].version if networks else 0)

    def words(self) -> str:
        """Say which, in an operator's words."""
        kind = self.protocol.value if self.protocol else ""
        version = f"IPv{self.ip_version}" if self.ip_version else ""
        said = [
            version,
            kind,
            _said("from", map(str, self.sources)),
            _said("to", map(str, self.destinations)),
            _said("source port", map(_port_words, self.source_ports)),
            _said("port", map(_port_words, self.destination_ports)),
            "with destination NAT" if self.destination_nat else "",
            "with source NAT" if self.source_nat else "",
        ]
        return " ".join(filter(None, said)) or "all"


@dataclass(frozen=True, slots=True)
class CutConnections:
    """Have the kernel forget all connections that one of the filters matches.

    Their next packet is judged as a new one's. It is not in the plan how many there are: they come
    and go, and a plan that names their number would never be the one that was shown.
    """

    filters: tuple[ConnectionFilter, ...]

    @property
    def needs_no_way_back(self) -> bool:
        """What goes is only what the kernel remembers: a ruleset taken back lets them begin."""
        return True

    def describe(self) -> str:
        """Say which, a few of many."""
        shown = [f.words() for f in self.filters[:5]]
        if len(self.filters) > len(shown):
            shown.append(f"{len(self.filters) - len(shown)} more")
        return "cut connections: " + "; ".join(shown)

    def inverse(self) -> None:
        """There is nothing to take back."""
        return


Matches = Callable[[Flow], bool]


def any_of(filters: Sequence[ConnectionFilter]) -> Matches:
    """Answer what says of a flow whether one of the filters matches it; none matches nothing."""
    judges = [_matcher(f) for f in filters]
    if len(judges) == 1:
        return judges[0]
    return lambda flow: any(judge(flow) for judge in judges)


def parse_filter(document: object, path: str = "filter") -> ConnectionFilter:
    """Answer the filter of a document. Raises InvalidRequest with all its faults."""
    faults: list[Violation] = []
    d = Fields(document, path, faults)
    d.refuse_unknown(_FIELDS)
    found = ConnectionFilter(
        protocol=d.choice("protocol", Protocol),
        sources=d.networks("sources", _NETWORKS_MOST),
        destinations=d.networks("destinations", _NETWORKS_MOST),
        destination_ports=d.port_ranges("destination_ports", _PORTS_MOST),
        source_ports=d.port_ranges("source_ports", _PORTS_MOST),
        ip_version=d.number("ip_version", 0, 6),
        destination_nat=d.flag("destination_nat"),
        source_nat=d.flag("source_nat"),
    )
    _judge(d, found)
    if faults:
        raise InvalidRequest.of(faults)
    return found


def protocol_name(number: int) -> str:
    """Answer a protocol's name; empty if it has none here."""
    return _NAMES.get(number, "")


def tcp_state_name(state: int) -> str:
    """Answer the word for a state of TCP; empty for -1 and for what is not known."""
    return TCP_STATES[state] if 0 <= state < len(TCP_STATES) else ""


def _judge(d: Fields, found: ConnectionFilter) -> None:
    if found.ip_version not in (0, 4, 6):
        d.fault("ip_version", "must be 4 or 6, or 0 for both")
    versions: set[int] = {n.version for n in (*found.sources, *found.destinations)}
    if len(versions | ({found.ip_version} & {4, 6})) > 1:
        d.fault("destinations" if found.destinations else "sources", "mixes IPv4 and IPv6")
    if found.protocol and found.protocol not in WITH_PORTS:
        for key in ("destination_ports", "source_ports"):
            if getattr(found, key):
                d.fault(key, f"must not be given for {found.protocol.value}, which has no ports")


def _matcher(wanted: ConnectionFilter) -> Matches:
    """Put the tests together that the filter asks for, the cheapest first."""
    tests: list[Matches] = []
    if wanted.version:
        tests.append(lambda flow, v=wanted.version: flow.version == v)  # type: ignore[misc]
    if wanted.protocol is not None:
        tests.append(lambda flow, n=NUMBERS[wanted.protocol]: flow.protocol in n)  # type: ignore[misc]
    status = DESTINATION_NAT * wanted.destination_nat | SOURCE_NAT * wanted.source_nat
    if status:
        tests.append(lambda flow: flow.status & status == status)
    if wanted.destination_ports or wanted.source_ports:
        tests.append(lambda flow: flow.protocol in _NUMBERS_WITH_PORTS)
    ports = [(p.first, p.last) for p in wanted.destination_ports]
    if ports:
        tests.append(lambda flow: _within(flow.destination_port, ports))
    from_ports = [(p.first, p.last) for p in wanted.source_ports]
    if from_ports:
        tests.append(lambda flow: _within(flow.source_port, from_ports))
    sources, destinations = _bounds(wanted.sources), _bounds(wanted.destinations)
    if sources:
        tests.append(lambda flow: _within(flow.source, sources))
    if destinations:
        tests.append(lambda flow: _within(flow.destination, destinations))
    return lambda flow: all(test(flow) for test in tests)


def _bounds(networks: Sequence[Network]) -> list[tuple[int, int]]:
    return [(int(n.network_address), int(n.broadcast_address)) for n in networks]


def _within(value: int, bounds: list[tuple[int, int]]) -> bool:
    return any(first <= value <= last for first, last in bounds)


def _said(word: str, values: Iterable[str]) -> str:
    told = list(values)
    if len(told) > 3:
        told = [*told[:3], f"{len(told) - 3} more"]
    return f"{word} {', '.join(told)}" if told else ""


def _port_words(ports: PortRange) -> str:
    return str(ports.first) if ports.first == ports.last else f"{ports.first}-{ports.last}"
