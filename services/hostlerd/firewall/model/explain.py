"""What is asked about, what is known of the host's routes, and what is answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from hostlerd.firewall.model.ruleset import Address, Network

TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58


class Verdict(Enum):
    """What becomes of a packet."""

    ACCEPT = "accept"
    DROP = "drop"
    REJECT = "reject"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Packet:
    """The first packet of a connection, or one of the given state. None is not known.

    `in_ifname` and `out_ifname` are empty if the routes are to tell.
    """

    source: Address
    destination: Address
    protocol: int | None = None
    source_port: int | None = None
    destination_port: int | None = None
    icmp_type: int | None = None
    state: str = "new"
    in_ifname: str = ""
    out_ifname: str = ""
    now_unix_s: int = 0

    @property
    def version(self) -> int:
        """4 or 6."""
        return self.source.version


@dataclass(frozen=True, slots=True)
class Route:
    """A route; `type` as ip-route(8) names it, `ifname` empty if there are several next hops."""

    table: str
    network: Network
    type: str = "unicast"
    ifname: str = ""
    gateway: str = ""
    metric: int = 0
    plain: bool = True


@dataclass(frozen=True, slots=True)
class RouteRule:
    """A rule that says which table is asked. `other` names a selector that is not understood."""

    priority: int
    table: str
    source: Network | None = None
    destination: Network | None = None
    in_ifname: str = ""
    other: str = ""


@dataclass(frozen=True, slots=True)
class Routes:
    """Routes, rules and addresses of the host, of one IP version."""

    routes: tuple[Route, ...]
    rules: tuple[RouteRule, ...]
    addresses: Mapping[str, tuple[tuple[Address, int], ...]] = field(default_factory=dict)
    indexes: Mapping[str, int] = field(default_factory=dict)
    forwarding: bool = False


@dataclass(frozen=True, slots=True)
class Met:
    """A rule that was met."""

    table: str = ""
    chain: str = ""
    rule: str = ""
    text: str = ""
    does: str = ""
    unknown: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What becomes of the packet, and by which rules."""

    verdict: Verdict
    decided_by: Met
    met: tuple[Met, ...] = ()
    rewritten_destination: str = ""
    rewritten_source: str = ""
    path: str = ""
    in_ifname: str = ""
    out_ifname: str = ""

    @property
    def outcome(self) -> tuple[object, ...]:
        """What two ways of one packet have to agree in."""
        return (
            *(self.verdict, self.rewritten_destination, self.rewritten_source),
            *(self.path, self.out_ifname),
        )
