"""The chains that decide about packets: input, forward, and what isolated networks may get."""

from __future__ import annotations

from collections.abc import Sequence

from hostlerd.firewall.model.ruleset import (
    HOSTLER_PORTS,
    Action,
    Hook,
    Network,
    Protocol,
    Rule,
    Ruleset,
    rule_id,
)
from hostlerd.firewall.plan import match
from hostlerd.firewall.plan.nat import hairpin_marks, targets

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
_RESET = "reject with tcp reset"
# nft knows "icmpv6" by itself; "ipv6-icmp" only on hosts that have /etc/protocols.
_ICMP = "meta l4proto { icmp, icmpv6 } accept"
# The source is on the link that the packet came by: nobody else may speak for the network.
_OWN_LINK = "fib saddr . iif oif exists"


def policy(rulesets: Sequence[Ruleset], hook: Hook) -> Action | None:
    """Answer what the rulesets make of packets that no rule decides; None if none says so."""
    for r in rulesets:
        said = r.input_policy if hook is Hook.INPUT else r.forward_policy
        if said is not None:
            return said
    return None


def has_rules(rulesets: Sequence[Ruleset], hook: Hook) -> bool:
    """Whether any rule is asked there."""
    return any(rule.hook is hook for r in rulesets for rule in r.rules)


def input_rules(rulesets: Sequence[Ruleset], management: Sequence[Network]) -> list[str]:
    """Answer the rules of input; none if no ruleset cares."""
    last = policy(rulesets, Hook.INPUT)
    if last is None and not has_rules(rulesets, Hook.INPUT):
        return []
    rules = [_ESTABLISHED, 'iifname "lo" accept', _NEIGHBOURS, *_hostler_ports(management)]
    rules += _judged(rulesets, Hook.INPUT)
    if last in (Action.DROP, Action.REJECT):
        rules += [_ICMP, *_LEASES]
    return rules + _last(last)


def forward_rules(rulesets: Sequence[Ruleset]) -> list[str]:
    """Answer the rules of forward; none if no ruleset cares."""
    last = policy(rulesets, Hook.FORWARD)
    isolated = any(r.isolated_networks for r in rulesets)
    forwards = targets(rulesets)
    if last is None and not (isolated or forwards or has_rules(rulesets, Hook.FORWARD)):
        return []
    rules = [_ESTABLISHED, *hairpin_marks(rulesets)]
    if isolated:
        rules.append("jump isolation")
    rules += _judged(rulesets, Hook.FORWARD)
    rules += [f"{at} accept" for at in match.forwarded(forwards)]
    if last in (Action.DROP, Action.REJECT):
        rules += _outbound(rulesets)
    return rules + _last(last)


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


def _judged(rulesets: Sequence[Ruleset], hook: Hook) -> list[str]:
    return [
        match.counted(match.words(at, kind), verdict, f"{r.name}/{rule_id(i, rule)}", rule.comment)
        for r in rulesets
        for i, rule in enumerate(r.rules)
        if rule.hook is hook
        for at in [_matching(rule)]
        for kind, verdict in _verdicts(rule)
    ]


def _matching(rule: Rule) -> str:
    return match.words(
        match.links(rule.in_ifname, rule.out_ifname),
        match.networks("saddr", rule.sources),
        match.networks("daddr", rule.destinations),
    )


def _verdicts(rule: Rule) -> list[tuple[str, str]]:
    """Answer the rule's protocols and what to do with each.

    A refused TCP connection is reset: hosts do not always take ICMP's word for it.
    """
    kind = match.protocol(rule.protocol, rule.destination_ports)
    if rule.action is not Action.REJECT:
        return [(kind, rule.action.value)]
    if rule.protocol is None:
        return [(match.protocol(Protocol.TCP), _RESET), ("", "reject")]
    return [(kind, _RESET if rule.protocol is Protocol.TCP else "reject")]


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
        for m in r.masquerades:
            if m.source.prefixlen:
                at = match.words(match.links("", m.uplink), match.networks("saddr", [m.source]))
                rules.append(f"{at} {_OWN_LINK} accept")
    return rules


def _last(said: Action | None) -> list[str]:
    refuse = [f"{match.protocol(Protocol.TCP)} counter {_RESET}", "counter reject"]
    return refuse if said is Action.REJECT else []
