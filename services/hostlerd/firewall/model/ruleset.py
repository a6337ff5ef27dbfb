"""Rulesets as values: typed, so that nothing a caller sends reaches nft as it came."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

#: The ports of Hostler's own daemons, tcp, first and last.
HOSTLER_PORTS = (7441, 7445)


class Action(Enum):
    """What to do with a packet, in nft's words; COUNT leaves it to the rules after it."""

    ACCEPT = "accept"
    DROP = "drop"
    REJECT = "reject"
    COUNT = "count"


#: What a policy can be.
POLICIES = (Action.ACCEPT, Action.DROP, Action.REJECT)


class Protocol(Enum):
    """A transport protocol. ICMP is ICMP and ICMPv6."""

    TCP = "tcp"
    UDP = "udp"
    ICMP = "icmp"
    SCTP = "sctp"
    ESP = "esp"
    AH = "ah"
    GRE = "gre"
    IGMP = "igmp"
    VRRP = "vrrp"


#: The protocols that have ports.
WITH_PORTS = (Protocol.TCP, Protocol.UDP, Protocol.SCTP)


class Hook(Enum):
    """Where a packet is judged."""

    INPUT = "input"
    FORWARD = "forward"
    OUTPUT = "output"
    BRIDGE_FORWARD = "bridge_forward"


class ConnectionState(Enum):
    """What a packet is to its connection, in nft's words."""

    NEW = "new"
    ESTABLISHED = "established"
    RELATED = "related"
    INVALID = "invalid"
    UNTRACKED = "untracked"


class RateUnit(Enum):
    """The unit of time of a rate, in nft's words."""

    SECOND = "second"
    MINUTE = "minute"
    HOUR = "hour"


class BridgeFiltering(Enum):
    """Whether hook forward sees what a bridge carries between its ports."""

    BYPASS = "bypass"
    ROUTED = "routed"


class FragmentPlace(Enum):
    """Where a fragment stands."""

    INPUT_BEFORE = "input_before"
    INPUT_AFTER = "input_after"
    FORWARD_BEFORE = "forward_before"
    FORWARD_AFTER = "forward_after"
    OUTPUT_BEFORE = "output_before"
    OUTPUT_AFTER = "output_after"
    PREROUTING = "prerouting"
    POSTROUTING = "postrouting"
    BRIDGE_FORWARD = "bridge_forward"


@dataclass(frozen=True, slots=True)
class PortRange:
    """Ports from first to last, both included."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Rate:
    """How many packets for each unit of time, and how many may come at once beyond that."""

    packets: int
    unit: RateUnit = RateUnit.SECOND
    burst_packets: int = 5

    @property
    def nft(self) -> str:
        """The rate in nft's words."""
        return f"{self.packets}/{self.unit.value} burst {self.burst_packets} packets"


@dataclass(frozen=True, slots=True)
class RuleLog:
    """That packets are logged; without a rate all of them."""

    rate: Rate | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule that decides about packets. Empty fields match everything.

    `sources` and `source_sets` together say from where; likewise for destinations. `services`
    stand for protocol and ports. `expire_time` is in seconds since 1970; 0 means never.
    """

    hook: Hook
    action: Action
    id: str = ""
    protocol: Protocol | None = None
    sources: tuple[Network, ...] = ()
    destinations: tuple[Network, ...] = ()
    destination_ports: tuple[PortRange, ...] = ()
    in_ifname: str = ""
    out_ifname: str = ""
    comment: str = ""
    source_ports: tuple[PortRange, ...] = ()
    source_sets: tuple[str, ...] = ()
    destination_sets: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    in_zone: str = ""
    out_zone: str = ""
    icmp_types: tuple[str, ...] = ()
    connection_states: tuple[ConnectionState, ...] = ()
    limit: Rate | None = None
    log: RuleLog | None = None
    expire_time: int = 0


@dataclass(frozen=True, slots=True)
class Masquerade:
    """Source NAT of a network under the address of the uplink; empty: of any link out of it."""

    source: Network
    uplink: str = ""


@dataclass(frozen=True, slots=True)
class SourceNat:
    """Source NAT of a network under a given address. No destinations: to all outside of it."""

    source: Network
    to_address: Address
    uplink: str = ""
    destinations: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class Forward:
    """Destination NAT of a port. No addresses: any of the host. No sources: from anywhere.

    With `in_ifname` only of packets that came in by that link.
    """

    protocol: Protocol
    port: int
    target_address: Address
    target_port: int = 0
    addresses: tuple[Address, ...] = ()
    sources: tuple[Network, ...] = ()
    in_ifname: str = ""

    @property
    def leads_to_port(self) -> int:
        """The port at the target; the same as on the host unless another one was given."""
        return self.target_port or self.port

    @property
    def name(self) -> str:
        """Its name in counters and plans, within the ruleset."""
        return f"forward-{self.protocol.value}-{self.port}"


@dataclass(frozen=True, slots=True)
class Redirect:
    """A port that leads to another port of the host itself, whatever address was asked for."""

    protocol: Protocol
    port: int
    to_port: int
    in_ifname: str = ""
    sources: tuple[Network, ...] = ()

    @property
    def name(self) -> str:
        """Its name in counters and plans, within the ruleset."""
        return f"redirect-{self.protocol.value}-{self.port}"


@dataclass(frozen=True, slots=True)
class ConnectionHelper:
    """A helper of connection tracking for a port."""

    helper: str
    protocol: Protocol
    port: int
    sources: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class Flowtable:
    """Links between which what is established passes the rules by."""

    name: str
    ifnames: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fragment:
    """Rules in nft's words, one a line."""

    id: str
    place: FragmentPlace
    nft_rules: str


@dataclass(frozen=True, slots=True)
class AddressSet:
    """A named set. `elements` are in nft's words, merged, IPv4 first; a dynamic set has none."""

    name: str
    elements: tuple[str, ...] = ()
    dynamic: bool = False
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Zone:
    """A named group of links; a name that ends in "*" stands for all that begin so."""

    name: str
    ifnames: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ServicePort:
    """Ports of a service."""

    protocol: Protocol
    ports: PortRange


@dataclass(frozen=True, slots=True)
class NamedService:
    """A named service: all its ports."""

    name: str
    ports: tuple[ServicePort, ...]


@dataclass(frozen=True, slots=True)
class Ruleset:
    """A named part of the host's firewall; see hostler/api/firewall/v1/ruleset.proto."""

    name: str
    priority: int = 0
    input_policy: Action | None = None
    forward_policy: Action | None = None
    rules: tuple[Rule, ...] = ()
    masquerades: tuple[Masquerade, ...] = ()
    forwards: tuple[Forward, ...] = ()
    isolated_networks: tuple[Network, ...] = ()
    persistent: bool = False
    output_policy: Action | None = None
    bridge_policy: Action | None = None
    bridge_filtering: BridgeFiltering | None = None
    address_sets: tuple[AddressSet, ...] = ()
    zones: tuple[Zone, ...] = ()
    services: tuple[NamedService, ...] = ()
    source_nats: tuple[SourceNat, ...] = ()
    redirects: tuple[Redirect, ...] = ()
    helpers: tuple[ConnectionHelper, ...] = ()
    flowtables: tuple[Flowtable, ...] = ()
    fragments: tuple[Fragment, ...] = ()
    closes_management: bool = False

    @property
    def order(self) -> tuple[int, str]:
        """Where it takes effect among the others."""
        return self.priority, self.name

    @property
    def next_end(self) -> int | None:
        """When the next of its rules ends, in seconds since 1970; None if none does."""
        return min((rule.expire_time for rule in self.rules if rule.expire_time), default=None)

    def routed_families(self) -> frozenset[int]:
        """Answer the IP versions, 4 and 6, that it needs the host to forward."""
        networks = (
            *self.isolated_networks,
            *(m.source for m in self.masquerades),
            *(n.source for n in self.source_nats),
        )
        versions = {n.version for n in networks}
        return frozenset(versions | {f.target_address.version for f in self.forwards})


#: The fields of a ruleset that only one of a host's rulesets may set.
SET_ONCE = (
    "input_policy", "forward_policy", "output_policy", "bridge_policy", "bridge_filtering",
)  # fmt: skip


def rule_id(index: int, rule: Rule) -> str:
    """Answer the id of the rule at this index: its own, or the one its place gives it."""
    return rule.id or f"rule-{index + 1}"
