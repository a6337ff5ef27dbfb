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
patient = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])

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


def addresses(version: int) -> st.SearchStrategy[str]:
    """Addresses of a version that hosts may have."""
    return (_V4 if version == 4 else _V6).map(lambda a: str(ip_address(a)))


def _some(of: st.SearchStrategy[Any], most: int = 3) -> st.SearchStrategy[list[Any]]:
    return st.lists(of, max_size=most, unique_by=str)


@st.composite
def _rule(draw: st.DrawFn) -> dict[str, Any]:
    version = draw(st.sampled_from([4, 6]))
    hook = draw(st.sampled_from(["input", "forward"]))
    protocol = draw(st.sampled_from(["", "tcp", "udp", "icmp"]))
    ports = st.builds(
        lambda a, b: {"first": min(a, b), "last": max(a, b)},
        st.integers(1, 65535),
        st.integers(1, 65535),
    )
    return {
        "hook": hook,
        "action": draw(st.sampled_from(["accept", "drop", "reject"])),
        "protocol": protocol,
        "sources": draw(_some(networks(version))),
        "destinations": draw(_some(networks(version))),
        "destination_ports": draw(_some(ports)) if protocol in ("tcp", "udp") else [],
        "in_ifname": draw(st.sampled_from(["", "eth0", "v-web.100"])),
        "out_ifname": draw(st.sampled_from(["", "br_0"])) if hook == "forward" else "",
        "comment": draw(st.sampled_from(["", "größe # $x {", "counter x comment", "a" * 64])),
    }


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
    }


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Documents of which most are valid."""
    both = networks(4) | networks(6)
    actions = st.sampled_from(["", "", "accept", "drop", "reject"])
    masquerade = st.builds(
        lambda s, u: {"source": s, "uplink": u}, both, st.sampled_from(["", "eth0"])
    )
    return {
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
