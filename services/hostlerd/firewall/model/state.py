"""What the host has, as far as this domain looks at it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network

from hostlerd.firewall.model.ruleset import Network, Ruleset

IP_FORWARD = "net.ipv4.ip_forward"
IP6_FORWARDING = "net.ipv6.conf.all.forwarding"
#: The sysctl that lets the host forward, by IP version.
FORWARDING = {4: IP_FORWARD, 6: IP6_FORWARDING}

#: The sysctls that show frames of bridges to the rules of IP.
BRIDGE_CALLS = ("net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables")

EVERYWHERE: tuple[Network, ...] = (ip_network("0.0.0.0/0"), ip_network("::/0"))


@dataclass(frozen=True, slots=True)
class BaseChain:
    """A base chain of a table that is not ours."""

    family: str
    table: str
    name: str
    hook: str
    policy: str


@dataclass(frozen=True, slots=True)
class Counter:
    """How many packets a rule decided, and their bytes, L3 headers included."""

    packets: int
    bytes: int


@dataclass(frozen=True, slots=True, order=True)
class RuleKey:
    """A counted rule of the table: chain, RULESET/ID, and its number among those alike."""

    chain: str
    label: str
    number: int = 0


@dataclass(frozen=True, slots=True)
class Table:
    """The tables as the kernel has them: without handles, counters, elements of dynamic sets."""

    fingerprint: str


@dataclass(frozen=True, slots=True)
class Applied:
    """What was applied last: the fingerprint then, the hash of its text, the kernel's generation.

    A generation of 0 is not known.
    """

    fingerprint: str
    text_sha256: str
    generation: int = 0


@dataclass(frozen=True, slots=True)
class Shadow:
    """The shadow as it was started: its table in nft's words, and when it ends by itself."""

    text: str
    expire_time: int


@dataclass(frozen=True, slots=True)
class State:
    """The host, observed.

    `drift_details` say how the tables differ from what was applied, as far as that is known.
    `sysctls` are the values now of what this domain may set; `found` are those it has set, with
    the values it found. `ra_links` carry routes learned from router advertisements.
    `filtered_bridge_networks` are on bridges whose frames pass through nft. `management` are the
    networks that Hostler's own ports stay open to. `shadow` is the table that only counts.
    """

    rulesets: Mapping[str, Ruleset] = field(default_factory=dict)
    unreadable: Mapping[str, str] = field(default_factory=dict)
    table: Table | None = None
    drift_details: tuple[str, ...] = ()
    applied: Applied | None = None
    sysctls: Mapping[str, str] = field(default_factory=dict)
    found: Mapping[str, str] = field(default_factory=dict)
    links: frozenset[str] = frozenset()
    ra_links: frozenset[str] = frozenset()
    filtered_bridge_networks: tuple[Network, ...] = ()
    foreign: tuple[BaseChain, ...] = ()
    management: tuple[Network, ...] = EVERYWHERE
    now_unix_s: int = 0
    shadow: Shadow | None = None


def accept_ra(ifname: str) -> str:
    """Answer the name of a link's accept_ra; dots of a link's name are slashes, see sysctl(8)."""
    return f"net.ipv6.conf.{ifname.replace('.', '/')}.accept_ra"
