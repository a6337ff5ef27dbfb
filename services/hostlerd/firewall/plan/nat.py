"""The chains that rewrite addresses: forwards and masquerades.

A forward holds for packets to the host's own addresses, from outside (prerouting) and from the
host itself (output). Not for loopback addresses: to lead 127.0.0.1 elsewhere takes route_localnet,
which would let neighbours reach what listens on loopback. Not for link-local ones either: their
senders cannot be answered across links.
"""

from __future__ import annotations

from collections.abc import Sequence

from hostlerd.firewall.model.ruleset import (
    ConnectionHelper,
    Forward,
    FragmentPlace,
    Masquerade,
    Redirect,
    Ruleset,
    SourceNat,
)
from hostlerd.firewall.plan import match
from hostlerd.firewall.plan.fragment import fragment_rules

# Marks the first packet of a forwarded connection between our forward chain and our postrouting
# chain, where it is taken off again. The kernel knows only in forward whether the packet leaves by
# the link it came by, and can rewrite its source only in postrouting.
_HAIRPIN = 0x02000000
_HAIRPIN_SET = f"meta mark & {_HAIRPIN:#010x} == {_HAIRPIN:#010x}"
_HAIRPIN_CLEAR = f"meta mark set meta mark & {0xFFFFFFFF ^ _HAIRPIN:#010x}"

_NOT_FORWARDED = {4: "ip daddr != 127.0.0.0/8", 6: "ip6 daddr != { ::1, fe80::/10 }"}


def targets(rulesets: Sequence[Ruleset]) -> frozenset[match.Target]:
    """Answer where all the forwards lead."""
    return frozenset(
        match.Target(f.target_address, f.protocol.value, f.leads_to_port)
        for r in rulesets
        for f in r.forwards
    )


def destination_rules(rulesets: Sequence[Ruleset], *, own: bool = False) -> list[str]:
    """Answer the rules of prerouting that rewrite destinations, or of output for the host's own."""
    return [
        match.counted(_to_host(f), _dnat(f), f"{r.name}/{f.name}")
        for r in rulesets
        for f in sorted(r.forwards, key=_stable)
        if not (own and f.in_ifname)
    ]


def prerouting_rules(rulesets: Sequence[Ruleset]) -> list[str]:
    """Answer the rules of prerouting: fragments, forwards, redirects."""
    redirects = [
        match.counted(_asked_for(each), f"redirect to :{each.to_port}", f"{r.name}/{each.name}")
        for r in rulesets
        for each in r.redirects
    ]
    before = fragment_rules(rulesets, FragmentPlace.PREROUTING)
    return [*before, *destination_rules(rulesets), *redirects]


def redirected(rulesets: Sequence[Ruleset]) -> list[str]:
    """Match what redirects lead to the host itself."""
    to = sorted({(e.protocol.value, e.to_port) for r in rulesets for e in r.redirects})
    if not to:
        return []
    elements = ", ".join(f"{protocol} . {port}" for protocol, port in to)
    return [f"ct status dnat meta l4proto . th dport {{ {elements} }}"]


def helper_name(helper: ConnectionHelper) -> str:
    """Answer the name in the table of a helper of connection tracking."""
    return f"{helper.helper}-{helper.protocol.value}"


def helper_rules(rulesets: Sequence[Ruleset]) -> list[str]:
    """Answer the rules that give connections their helpers."""
    return [
        match.words(
            match.networks("saddr", each.sources),
            f"{each.protocol.value} dport {each.port}",
            f'ct helper set "{helper_name(each)}"',
        )
        for r in rulesets
        for each in r.helpers
    ]


def hairpin_marks(rulesets: Sequence[Ruleset]) -> list[str]:
    """Answer the rules of forward that mark what goes back by the link it came by.

    `fib daddr . iif oif exists` holds if the route to the destination leads out by the link that
    the packet came in by.
    """
    return [
        f"{at} ct state new fib daddr . iif oif exists meta mark set meta mark | {_HAIRPIN:#010x}"
        for at in match.forwarded(targets(rulesets))
    ]


def source_rules(rulesets: Sequence[Ruleset]) -> list[str]:
    """Answer the rules of postrouting that rewrite sources.

    First those of forwards whose target would otherwise answer past this host: of clients on the
    target's own link (or the target itself), and of this host's own connections.
    """
    rules = fragment_rules(rulesets, FragmentPlace.POSTROUTING)
    for at in match.forwarded(targets(rulesets)):
        rules.append(f"{_HAIRPIN_SET} {at} {_HAIRPIN_CLEAR} masquerade")
        rules.append(f"{at} fib saddr type local masquerade")
    for r in rulesets:
        for number, masquerade in enumerate(r.masquerades, 1):
            label = f"{r.name}/masquerade-{number}"
            rules.append(match.counted(_leaving(masquerade), "masquerade", label))
        for number, nat in enumerate(r.source_nats, 1):
            to = f"snat {match.family(nat.to_address.version)} to {nat.to_address}"
            rules.append(match.counted(_leaving(nat), to, f"{r.name}/source-nat-{number}"))
    return rules


def redirect_rules(rulesets: Sequence[Ruleset]) -> list[str]:
    """Answer the rules of output that keep to itself that there is a shorter way than by this host.

    On a host with one link the kernel tells clients so, who then go past the NAT. Of IPv4 it tells
    nobody whose packets it rewrites, and rules need not (nf_nat_icmp_reply_translation in
    net/netfilter/nf_nat_proto.c); redirects of IPv6 are not tracked.
    """
    sources = {m.source for r in rulesets for m in r.masquerades}
    sources |= {n.source for r in rulesets for n in r.source_nats}
    return [
        match.words(match.networks("daddr", [source]), "icmpv6 type nd-redirect drop")
        for source in sorted(sources, key=str)
        if source.version == 6
    ]


def _stable(forward: Forward) -> tuple[int, str, int, tuple[str, ...], str]:
    """An order in which counters of forwards with one name keep their places."""
    version = forward.target_address.version
    addresses = tuple(str(a) for a in forward.addresses)
    return version, forward.protocol.value, forward.port, addresses, forward.in_ifname


def _to_host(forward: Forward) -> str:
    version = forward.target_address.version
    at = match.addresses("daddr", forward.addresses) or _NOT_FORWARDED[version]
    return match.words(
        match.links(forward.in_ifname, ""),
        "fib daddr type local",
        at,
        match.networks("saddr", forward.sources),
        f"{forward.protocol.value} dport {forward.port}",
    )


def _dnat(forward: Forward) -> str:
    target = forward.target_address
    shown = str(target) if target.version == 4 else f"[{target}]"
    return f"dnat {match.family(target.version)} to {shown}:{forward.leads_to_port}"


def _asked_for(redirect: Redirect) -> str:
    return match.words(
        match.links(redirect.in_ifname, ""),
        match.networks("saddr", redirect.sources),
        f"{redirect.protocol.value} dport {redirect.port}",
    )


def _leaving(nat: Masquerade | SourceNat) -> str:
    """Match what leaves the network, not what stays in it.

    Only the destination tells: on a host with one link, packets leave by the link they came by.
    """
    source = nat.source
    head = match.family(source.version)
    stays = f"{head} daddr != {source}" if source.prefixlen else ""
    if isinstance(nat, SourceNat) and nat.destinations:
        stays = match.networks("daddr", nat.destinations)
    return match.words(match.networks("saddr", [source]), stays, match.links("", nat.uplink))
