"""The chains that rewrite addresses: forwards and masquerades.

A forward holds for packets to the host's own addresses, from outside (prerouting) and from the
host itself (output). Not for loopback addresses: to lead 127.0.0.1 elsewhere takes route_localnet,
which would let neighbours reach what listens on loopback. Not for link-local ones either: their
senders cannot be answered across links.
"""

from __future__ import annotations

from collections.abc import Sequence

from hostlerd.firewall.model.ruleset import Forward, Masquerade, Ruleset
from hostlerd.firewall.plan import match

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


def destination_rules(rulesets: Sequence[Ruleset]) -> list[str]:
    """Answer the rules of prerouting and output that rewrite destinations."""
    return [
        match.counted(_to_host(f), _dnat(f), f"{r.name}/{f.name}")
        for r in rulesets
        for f in sorted(r.forwards, key=_stable)
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
    rules = []
    for at in match.forwarded(targets(rulesets)):
        rules.append(f"{_HAIRPIN_SET} {at} {_HAIRPIN_CLEAR} masquerade")
        rules.append(f"{at} fib saddr type local masquerade")
    for r in rulesets:
        for number, masquerade in enumerate(r.masquerades, 1):
            label = f"{r.name}/masquerade-{number}"
            rules.append(match.counted(_leaving(masquerade), "masquerade", label))
    return rules


def _stable(forward: Forward) -> tuple[int, str, int, tuple[str, ...]]:
    """An order in which counters of forwards with one name keep their places."""
    version = forward.target_address.version
    addresses = tuple(str(a) for a in forward.addresses)
    return version, forward.protocol.value, forward.port, addresses


def _to_host(forward: Forward) -> str:
    version = forward.target_address.version
    at = match.addresses("daddr", forward.addresses) or _NOT_FORWARDED[version]
    return match.words(
        "fib daddr type local",
        at,
        match.networks("saddr", forward.sources),
        f"{forward.protocol.value} dport {forward.port}",
    )


def _dnat(forward: Forward) -> str:
    target = forward.target_address
    shown = str(target) if target.version == 4 else f"[{target}]"
    return f"dnat {match.family(target.version)} to {shown}:{forward.leads_to_port}"


def _leaving(masquerade: Masquerade) -> str:
    """Match what leaves the network, not what stays in it.

    Only the destination tells: on a host with one link, packets leave by the link they came by.
    """
    source = masquerade.source
    head = match.family(source.version)
    stays = f"{head} daddr != {source}" if source.prefixlen else ""
    return match.words(match.networks("saddr", [source]), stays, match.links("", masquerade.uplink))
