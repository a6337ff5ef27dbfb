"""The chains that decide about packets: input, forward, and what isolated networks may get."""

from __future__ import annotations

from collections.abc import Sequence

from hostlerd.firewall.model.ruleset import (
    HOSTLER_PORTS,
    Action,
    FragmentPlace,
    Hook,
    Network,
    Protocol,
    Ruleset,
    rule_id,
)
from hostlerd.firewall.plan import match, rule
from hostlerd.firewall.plan.fragment import fragment_rules
from hostlerd.firewall.plan.names import Names
from hostlerd.firewall.plan.nat import hairpin_marks, redirected, targets

_ESTABLISHED = "ct state established,related accept"
# Without neighbour discovery no IPv6 packet reaches the host, whatever else is open.
_NEIGHBOURS = (
    "icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, "
    "nd-redirect, mld-listener-query } accept"
)
# Answers to the host's own DHCP questions: those went to a broadcast or multicast address, so that
# conntrack does not know them for answers. Without them the host would lose its addresses.
_LEASES = (
    "udp sport 67 udp dport 68 accept",
    "ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept",
)
_LEASE_QUESTIONS = (
    "udp sport 68 udp dport 67 accept",
    "ip6 daddr ff02::1:2 udp sport 546 udp dport 547 accept",
)
# nft knows "icmpv6" by itself; "ipv6-icmp" only on hosts that have /etc/protocols.
_ICMP = "meta l4proto { icmp, icmpv6 } accept"
# The source is on the link that the packet came by: nobody else may speak for the network.
_OWN_LINK = "fib saddr . iif oif exists"


_POLICIES = {
    Hook.INPUT: "input_policy",
    Hook.FORWARD: "forward_policy",
    Hook.OUTPUT: "output_policy",
    Hook.BRIDGE_FORWARD: "bridge_policy",
}


def policy(rulesets: Sequence[Ruleset], hook: Hook) -> Action | None:
    """Answer what the rulesets make of packets that no rule decides; None if none says so."""
    for r in rulesets:
        said: Action | None = getattr(r, _POLICIES[hook])
        if said is not None:
            return said
    return None


def has_rules(rulesets: Sequence[Ruleset], hook: Hook) -> bool:
    """Whether any rule is asked there."""
    return any(each.hook is hook for r in rulesets for each in r.rules)


def input_rules(
    rulesets: Sequence[Ruleset], management: Sequence[Network], names: Names
) -> list[str]:
    """Answer the rules of input; none if no ruleset cares."""
    last = policy(rulesets, Hook.INPUT)
    before = fragment_rules(rulesets, FragmentPlace.INPUT_BEFORE)
    after = fragment_rules(rulesets, FragmentPlace.INPUT_AFTER)
    if last is None and not (before or after or has_rules(rulesets, Hook.INPUT)):
        return []
    closing = [r for r in rulesets if r.closes_management]
    others = [r for r in rulesets if not r.closes_management]
    rules = [_ESTABLISHED, 'iifname "lo" accept', _NEIGHBOURS]
    rules += _judged(closing, Hook.INPUT, names)
    rules += _hostler_ports(management)
    rules += [*before, *_judged(others, Hook.INPUT, names), *after]
    rules += [f"{at} accept" for at in redirected(rulesets)]
    if last in (Action.DROP, Action.REJECT):
        rules += [_ICMP, *_LEASES]
    return rules + _last(last)


def output_rules(rulesets: Sequence[Ruleset], names: Names) -> list[str]:
    """Answer the rules of output; none if no ruleset cares."""
    last = policy(rulesets, Hook.OUTPUT)
    before = fragment_rules(rulesets, FragmentPlace.OUTPUT_BEFORE)
    after = fragment_rules(rulesets, FragmentPlace.OUTPUT_AFTER)
    if last is None and not (before or after or has_rules(rulesets, Hook.OUTPUT)):
        return []
    rules = [_ESTABLISHED, 'oifname "lo" accept', _NEIGHBOURS, *before]
    rules += [*_judged(rulesets, Hook.OUTPUT, names), *after]
    if last in (Action.DROP, Action.REJECT):
        rules += [_ICMP, *_LEASE_QUESTIONS]
    return rules + _last(last)


def forward_rules(rulesets: Sequence[Ruleset], names: Names) -> list[str]:
    """Answer the rules of forward; none if no ruleset cares."""
    last = policy(rulesets, Hook.FORWARD)
    isolated = any(r.isolated_networks for r in rulesets)
    forwards = targets(rulesets)
    before = fragment_rules(rulesets, FragmentPlace.FORWARD_BEFORE)
    after = fragment_rules(rulesets, FragmentPlace.FORWARD_AFTER)
    flows = [
        f"meta l4proto {{ tcp, udp }} flow add @{f.name}" for r in rulesets for f in r.flowtables
    ]
    asked = isolated or forwards or before or after or flows
    if last is None and not (asked or has_rules(rulesets, Hook.FORWARD)):
        return []
    rules = [*flows, _ESTABLISHED, *hairpin_marks(rulesets)]
    if isolated:
        rules.append("jump isolation")
    rules += [*before, *_judged(rulesets, Hook.FORWARD, names), *after]
    rules += [f"{at} accept" for at in match.forwarded(forwards)]
    if last in (Action.DROP, Action.REJECT):
        rules += _outbound(rulesets)
    return rules + _last(last)


def bridge_rules(rulesets: Sequence[Ruleset], names: Names) -> list[str]:
    """Answer the rules for what a bridge carries between its ports; none if no ruleset cares.

    Without ARP and neighbour discovery no guest finds another one, whatever else is open.
    """
    last = policy(rulesets, Hook.BRIDGE_FORWARD)
    fragments = fragment_rules(rulesets, FragmentPlace.BRIDGE_FORWARD)
    if last is None and not (fragments or has_rules(rulesets, Hook.BRIDGE_FORWARD)):
        return []
    judged = _judged(rulesets, Hook.BRIDGE_FORWARD, names)
    return ["ether type arp accept", _NEIGHBOURS, *fragments, *judged]


def isolation_rules(rulesets: Sequence[Ruleset]) -> list[str]:
    """Answer the rules that new packets to isolated networks have to pass; none if none is.

    What a bridge carries inside one network comes here too where bridge-nf-call-iptables is set.
    """
    networks = [
        (r.name, number, network)
        for r in rulesets
        for number, network in enumerate(r.isolated_networks, 1)
    ]
    if not networks:
        return []
    rules = [f"{at} return" for at in match.forwarded(targets(rulesets))]
    for _, _, network in networks:
        same = match.words(match.networks("saddr", [network]), match.networks("daddr", [network]))
        rules.append(f"{same} {_OWN_LINK} return")
    for name, number, network in networks:
        at = match.networks("daddr", [network])
        rules.append(match.counted(at, "drop", f"{name}/isolated-{number}"))
    return rules


def _judged(rulesets: Sequence[Ruleset], hook: Hook, names: Names) -> list[str]:
    return [
        line
        for r in rulesets
        for i, each in enumerate(r.rules)
        if each.hook is hook
        for line in rule.lines(f"{r.name}/{rule_id(i, each)}", each, names)
    ]


def _hostler_ports(management: Sequence[Network]) -> list[str]:
    ports = f"tcp dport {HOSTLER_PORTS[0]}-{HOSTLER_PORTS[1]} accept"
    found = []
    for version in (4, 6):
        listed = [n for n in management if n.version == version]
        if listed:
            found.append(match.words(match.networks("saddr", listed), ports))
    return found


def _outbound(rulesets: Sequence[Ruleset]) -> list[str]:
    """Let out what isolated and masqueraded networks send, for which a policy has no say."""
    rules = []
    for r in rulesets:
        for network in r.isolated_networks:
            rules.append(f"{match.networks('saddr', [network])} {_OWN_LINK} accept")
        leaving = [(m.source, m.uplink) for m in r.masquerades]
        leaving += [(n.source, n.uplink) for n in r.source_nats]
        for source, uplink in leaving:
            if source.prefixlen:
                at = match.words(match.links("", uplink), match.networks("saddr", [source]))
                rules.append(f"{at} {_OWN_LINK} accept")
    return rules


def _last(said: Action | None) -> list[str]:
    refuse = [f"{match.protocol(Protocol.TCP)} counter {rule.RESET}", "counter reject"]
    return refuse if said is Action.REJECT else []
