"""Rulesets as callers may send them, made up by Hypothesis."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from hostlerd.firewall.model.document import parse
from hostlerd.firewall.model.ruleset import Ruleset
from hostlerd.runtime.errors import InvalidRequest

#: How generated tests run: cores are shared, so that no single example can be timed.
patient = settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))

NAMES = st.sampled_from(["web", "base", "a", "z-9"])
_V4 = st.integers(0x0A000000, 0x0A00FFFF)
_V6 = st.integers(0xFD00 << 112, (0xFD00 << 112) + 0xFFFF)


def networks(version: int) -> st.SearchStrategy[str]:
    """Networks of a version, some of them everything, many overlapping."""
    whole, base = (32, _V4) if version == 4 else (128, _V6)
    everything = "0.0.0.0/0" if version == 4 else "::/0"
    near = st.builds(
        lambda a, length: str(ip_network((a, length), strict=False)),
        base,
        st.integers(whole - 16, whole),
    )
    return near | near | near | st.just(everything)


def inner_networks(version: int) -> st.SearchStrategy[str]:
    """Networks that are not everything."""
    return networks(version).filter(lambda network: not network.endswith("/0"))


def addresses(version: int) -> st.SearchStrategy[str]:
    """Addresses of a version that hosts may have."""
    return (_V4 if version == 4 else _V6).map(lambda a: str(ip_address(a)))


def _some(of: st.SearchStrategy[Any], most: int = 3) -> st.SearchStrategy[list[Any]]:
    return st.lists(of, max_size=most, unique_by=str)


# What generated rulesets give names to; rules use them, and some that nobody gives.
_SETS = st.sampled_from(["office", "block", "guests"])
_ZONES = st.sampled_from(["lan", "wan"])
_SERVICES = st.sampled_from(["ssh", "https", "dns", "app"])
_STATES = st.sampled_from(["new", "established", "related", "invalid", "untracked"])
_HOOKS = ["input", "forward", "output", "bridge_forward"]
_RATES = st.fixed_dictionaries(
    {
        "packets": st.integers(1, 1000),
        "unit": st.sampled_from(["second", "minute", "hour"]),
        "burst_packets": st.integers(0, 50),
    }
)
_PORTS = st.builds(
    lambda a, b: {"first": min(a, b), "last": max(a, b)},
    st.integers(1, 65535),
    st.integers(1, 65535),
)
_ACTIONS = (["accept", "drop", "reject", "count"], ["accept", "drop", "count"])
_ICMP = ["echo-request", "destination-unreachable", "redirect", "packet-too-big"]


@st.composite
def _rule(draw: st.DrawFn) -> dict[str, Any]:
    version = draw(st.sampled_from([4, 6]))
    hook = draw(st.sampled_from(_HOOKS))
    protocol = draw(st.sampled_from(["", "tcp", "udp", "icmp", "sctp", "gre"]))
    with_ports = protocol in ("tcp", "udp", "sctp")
    rule = {
        "hook": hook,
        "action": draw(st.sampled_from(_ACTIONS[hook == "bridge_forward"])),
        "protocol": protocol,
        "sources": draw(_some(networks(version))),
        "destinations": draw(_some(networks(version))),
        "destination_ports": draw(_some(_PORTS)) if with_ports else [],
        "source_ports": draw(_some(_PORTS, 1)) if with_ports else [],
        "icmp_types": draw(_some(st.sampled_from(_ICMP))) if protocol == "icmp" else [],
        "services": [] if protocol else draw(_some(_SERVICES, 2)),
        "in_ifname": draw(st.sampled_from(["", "eth0", "v-web.100"])) if hook != "output" else "",
        "out_ifname": draw(st.sampled_from(["", "br_0"])) if hook != "input" else "",
        "comment": draw(st.sampled_from(["", "größe # $x {", "counter x comment", "a" * 64])),
        "connection_states": draw(_some(_STATES)) if hook != "bridge_forward" else [],
        "expire_time": draw(st.sampled_from([0, 0, 4_000_000_000])),
    }
    if draw(st.booleans()):
        rule["source_sets"] = draw(_some(_SETS, 2))
        rule["destination_sets"] = draw(_some(_SETS, 1))
    if hook != "output" and not rule["in_ifname"] and draw(st.booleans()):
        rule["in_zone"] = draw(_ZONES)
    extra = draw(st.sampled_from(["", "limit", "log", "rated log"]))
    if extra == "limit" and rule["action"] != "count":
        rule["limit"] = draw(_RATES)
    elif extra:
        rule["log"] = {"rate": draw(_RATES)} if extra == "rated log" else {}
    return rule


@st.composite
def _names(draw: st.DrawFn) -> dict[str, Any]:
    """What gives the names their meaning: of the rulesets of a host, one alone may."""
    mixed = _some(networks(4) | networks(6) | addresses(4), 4)
    return {
        "address_sets": [
            {"name": "office", "elements": draw(mixed)},
            {"name": "guests", "elements": draw(mixed), "comment": "x"},
            {"name": "block", "dynamic": True},
        ],
        "zones": [{"name": "lan", "ifnames": ["eth*", "wg0"]}, {"name": "wan", "ifnames": ["up0"]}],
        "services": [{"name": "app", "ports": [{"protocol": "udp", "ports": draw(_PORTS)}]}],
    }


#: A ruleset that gives a meaning to all names that generated rules use.
NAMES_GIVEN = parse(
    {
        "name": "names",
        "priority": 1000,
        "address_sets": [{"name": name, "dynamic": True} for name in ("office", "block", "guests")],
        "zones": [{"name": name, "ifnames": [f"{name}*"]} for name in ("lan", "wan")],
        "services": [
            {"name": "app", "ports": [{"protocol": "tcp", "ports": {"first": 9000}}]},
        ],
    }
)


@st.composite
def _source_nat(draw: st.DrawFn) -> dict[str, Any]:
    version = draw(st.sampled_from([4, 6]))
    return {
        "source": draw(inner_networks(version)),
        "to_address": draw(addresses(version)),
        "destinations": draw(_some(networks(version), 1)),
    }


_REDIRECTS = st.fixed_dictionaries(
    {
        "protocol": st.sampled_from(["tcp", "udp"]),
        "port": st.integers(30, 60),
        "to_port": st.integers(8000, 8100),
        "in_ifname": st.sampled_from(["", "eth0"]),
    }
)
_FRAGMENTS = [
    {
        "id": "own",
        "place": "input_before",
        "nft_rules": "tcp flags syn tcp dport 9 counter drop\nmeta l4proto { 47, 50 } accept",
    }
]


@st.composite
def _forward(draw: st.DrawFn) -> dict[str, Any]:
    version = draw(st.sampled_from([4, 6]))
    return {
        "protocol": draw(st.sampled_from(["tcp", "udp"])),
        "port": draw(st.integers(1, 20)),
        "target_address": draw(addresses(version)),
        "target_port": draw(st.integers(0, 65535)),
        "addresses": draw(_some(addresses(version), 2)),
        "sources": draw(_some(networks(version), 2)),
        "in_ifname": draw(st.sampled_from(["", "", "eth0", "wan0"])),
    }


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Documents of which most are valid."""
    both = inner_networks(4) | inner_networks(6)
    actions = st.sampled_from(["", "", "accept", "drop", "reject"])
    masquerade = st.builds(
        lambda s, u: {"source": s, "uplink": u}, both, st.sampled_from(["", "eth0"])
    )
    named = draw(_names()) if draw(st.booleans()) else {}
    return {
        **named,
        "output_policy": draw(actions),
        "bridge_policy": draw(st.sampled_from(["", "", "accept", "drop"])),
        "bridge_filtering": draw(st.sampled_from(["", "", "bypass", "routed"])),
        "source_nats": draw(_some(_source_nat(), 2)),
        "redirects": draw(_some(_REDIRECTS, 2)),
        "helpers": draw(_some(st.just({"helper": "ftp", "protocol": "tcp", "port": 21}))),
        "fragments": draw(st.sampled_from([[], _FRAGMENTS])),
        "name": draw(NAMES),
        "priority": draw(st.integers(0, 3)),
        "input_policy": draw(actions),
        "forward_policy": draw(actions),
        "rules": draw(st.lists(_rule(), max_size=4)),
        "masquerades": draw(_some(masquerade)),
        "forwards": draw(st.lists(_forward(), max_size=4)),
        "isolated_networks": draw(_some(both)),
        "persistent": draw(st.booleans()),
    }


def rulesets() -> st.SearchStrategy[Ruleset]:
    """Valid rulesets."""

    def valid(document: dict[str, Any]) -> Ruleset | None:
        try:
            return parse(document)
        except InvalidRequest:
            return None

    return documents().map(valid).filter(lambda r: r is not None)  # type: ignore[return-value]
