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
    """What to do with a packet, in nft's words."""

    ACCEPT = "accept"
    DROP = "drop"
    REJECT = "reject"


class Protocol(Enum):
    """A transport protocol. ICMP is ICMP and ICMPv6."""

    TCP = "tcp"
    UDP = "udp"
    ICMP = "icmp"


class Hook(Enum):
    """Where a packet is judged."""

    INPUT = "input"
    FORWARD = "forward"


@dataclass(frozen=True, slots=True)
class PortRange:
    """Ports from first to last, both included."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule that decides about packets. Empty fields match everything."""

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


@dataclass(frozen=True, slots=True)
class Masquerade:
    """Source NAT of a network under the address of the uplink; empty: of any link out of it."""

    source: Network
    uplink: str = ""


@dataclass(frozen=True, slots=True)
class Forward:
    """Destination NAT of a port. No addresses: any of the host. No sources: from anywhere."""

    protocol: Protocol
    port: int
    target_address: Address
    target_port: int = 0
    addresses: tuple[Address, ...] = ()
    sources: tuple[Network, ...] = ()

    @property
    def leads_to_port(self) -> int:
        """The port at the target; the same as on the host unless another one was given."""
        return self.target_port or self.port

    @property
    def name(self) -> str:
        """Its name in counters and plans, within the ruleset."""
        return f"forward-{self.protocol.value}-{self.port}"


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

    @property
    def order(self) -> tuple[int, str]:
        """Where it takes effect among the others."""
        return self.priority, self.name

    def routed_families(self) -> frozenset[int]:
        """Answer the IP versions, 4 and 6, that it needs the host to forward."""
        networks = (*self.isolated_networks, *(m.source for m in self.masquerades))
        versions = {n.version for n in networks}
        return frozenset(versions | {f.target_address.version for f in self.forwards})


def rule_id(index: int, rule: Rule) -> str:
    """Answer the id of the rule at this index: its own, or the one its place gives it."""
    return rule.id or f"rule-{index + 1}"
