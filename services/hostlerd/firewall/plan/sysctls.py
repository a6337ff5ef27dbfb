"""The sysctls that forwarding needs, switched on and put back."""

from __future__ import annotations

from collections.abc import Iterable

from hostlerd.firewall.errors import FamilyUnavailable
from hostlerd.firewall.model.ruleset import BridgeFiltering, Ruleset
from hostlerd.firewall.model.state import (
    BRIDGE_CALLS,
    FORWARDING,
    IP6_FORWARDING,
    State,
    accept_ra,
)
from hostlerd.firewall.model.steps import SetSysctl


def wanted(rulesets: Iterable[Ruleset], state: State) -> dict[str, str]:
    """Answer what the rulesets need set, in the order to set it.

    With IPv6 forwarding on, the kernel drops routes from router advertisements and takes no more
    of them unless accept_ra is 2, so uplinks get that first. Other links do not: a guest on them
    could lead the host's traffic astray. Source: Documentation/networking/ip-sysctl.rst.
    """
    rulesets = tuple(rulesets)
    families = {version for r in rulesets for version in r.routed_families()}
    values: dict[str, str] = {}
    if 6 in families:
        for ifname in sorted(_uplinks(rulesets, state)):
            name = accept_ra(ifname)
            if state.sysctls.get(name) == "1" or name in state.found:
                values[name] = "2"
    for version in sorted(families):
        values[FORWARDING[version]] = "1"
    filtering = next((r.bridge_filtering for r in rulesets if r.bridge_filtering), None)
    if filtering is not None:
        values |= dict.fromkeys(BRIDGE_CALLS, "1" if filtering is BridgeFiltering.ROUTED else "0")
    return values


def switching_on(values: dict[str, str], state: State) -> tuple[SetSysctl, ...]:
    """Answer the steps to what is wanted. Raises FamilyUnavailable."""
    steps = []
    for name, value in values.items():
        now = state.sysctls.get(name)
        if now is None and name in FORWARDING.values():
            version = "IPv6" if name == IP6_FORWARDING else "IPv4"
            raise FamilyUnavailable(f"the host's kernel runs without {version}", sysctl=name)
        if now is None and name in BRIDGE_CALLS:
            message = "the host's kernel has no br_netfilter, or it is not loaded"
            raise FamilyUnavailable(message, sysctl=name)
        if now is not None and now != value:
            steps.append(SetSysctl(name, value, now))
    return tuple(steps)


def putting_back(values: dict[str, str], state: State) -> tuple[SetSysctl, ...]:
    """Answer the steps that put back what was found, for what is wanted no more.

    Forwarding ends first: accept_ra of 1 while it is on would cost routes.
    """
    names = [n for n in state.found if n not in values and n in state.sysctls]
    names.sort(key=lambda n: (n not in FORWARDING.values(), n))
    return tuple(
        SetSysctl(n, state.found[n], state.sysctls[n])
        for n in names
        if state.sysctls[n] != state.found[n]
    )


def _uplinks(rulesets: Iterable[Ruleset], state: State) -> frozenset[str]:
    named = {
        m.uplink
        for r in rulesets
        for m in r.masquerades
        if m.uplink in state.links and m.source.version == 6
    }
    # Those we have set already count on: their routes may just be gone for a moment.
    kept = {link for link in state.links if accept_ra(link) in state.found}
    return state.ra_links | named | kept
