"""A rule of a ruleset in nft's words: one line or several, that together match what it says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from hostlerd.firewall.errors import NameUnknown
from hostlerd.firewall.model import packet_log
from hostlerd.firewall.model.known import ICMP_TYPES, ICMPV6_TYPES
from hostlerd.firewall.model.ruleset import Action, Hook, Network, PortRange, Protocol, Rule
from hostlerd.firewall.plan import match
from hostlerd.firewall.plan.names import Names

RESET = "reject with tcp reset"


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a match, and the IP version that it is of; 0 for any."""

    version: int
    text: str


_ANY = (_Part(0, ""),)


def lines(label: str, rule: Rule, names: Names) -> list[str]:
    """Answer the lines of a rule. Raises NameUnknown for what it uses and nobody gives."""
    try:
        return [line for at in _matches(rule, names) for line in _line(label, rule, at)]
    except KeyError as e:
        raise NameUnknown(f"rule {label} uses {e.args[0]}, which nobody gives", rule=label) from e


def _line(label: str, rule: Rule, at: str) -> Iterator[str]:
    limit = f"limit rate {rule.limit.nft}" if rule.limit else ""
    told = ""
    if rule.log is not None:
        told = packet_log.statement(label, rule.action.value)
        if rule.log.rate is not None:
            # A line of its own: what is beyond the rate is not logged, and decided all the same.
            yield match.words(at, f"limit rate {rule.log.rate.nft}", told)
            told = ""
    for kind, verdict in _verdicts(rule):
        yield match.counted(match.words(at, kind, limit, told), verdict, label, rule.comment)


def _verdicts(rule: Rule) -> list[tuple[str, str]]:
    """Answer what to do, and of which protocol.

    A refused TCP connection is reset: hosts do not always take ICMP's word for it.
    """
    if rule.action is Action.COUNT:
        return [("", "")]
    if rule.action is not Action.REJECT:
        return [("", rule.action.value)]
    if rule.protocol is Protocol.TCP:
        return [("", RESET)]
    if rule.protocol is None:
        return [(match.protocol(Protocol.TCP), RESET), ("", "reject")]
    return [("", "reject")]


def _matches(rule: Rule, names: Names) -> Iterator[str]:
    head = match.words(
        match.links(rule.in_ifname, rule.out_ifname),
        _zone("iifname", rule.in_zone, names),
        _zone("oifname", rule.out_zone, names),
    )
    tail = match.words(_states(rule), f"meta time < {rule.expire_time}" if rule.expire_time else "")
    parts = (
        _addresses("saddr", rule.sources, rule.source_sets, names),
        _addresses("daddr", rule.destinations, rule.destination_sets, names),
        _protocols(rule, names),
    )
    for source, destination, protocol in product(*parts):
        if len({p.version for p in (source, destination, protocol)} - {0}) < 2:
            at = match.words(head, source.text, destination.text, protocol.text, tail)
            yield match.bridged(at) if rule.hook is Hook.BRIDGE_FORWARD else at


def _zone(field: str, name: str, names: Names) -> str:
    if not name:
        return ""
    quoted = [f'"{ifname}"' for ifname in names.zones[name].ifnames]
    return f"{field} {match.one_of(quoted)}"


def _states(rule: Rule) -> str:
    states = [state.value for state in rule.connection_states]
    return f"ct state {match.one_of(states)}" if states else ""


def _addresses(
    field: str, listed: Sequence[Network], sets: Sequence[str], names: Names
) -> Sequence[_Part]:
    if not listed and not sets:
        return _ANY
    found = [_Part(listed[0].version, match.networks(field, listed))] if listed else []
    for name in sets:
        for version in set_versions(name, names):
            text = f"{match.family(version)} {field} @{match.set_name(name, version)}"
            found.append(_Part(version, text))
    return found


def set_versions(name: str, names: Names) -> Sequence[int]:
    """Answer the IP versions of which an address set has, or may get, elements."""
    one = names.sets[name]
    if one.dynamic:
        return (4, 6)
    return sorted({6 if ":" in element else 4 for element in one.elements})


def _protocols(rule: Rule, names: Names) -> Sequence[_Part]:
    if rule.services:
        ports: dict[Protocol, list[PortRange]] = {}
        for name in rule.services:
            for each in names.services[name].ports:
                ports.setdefault(each.protocol, []).append(each.ports)
        return [_Part(0, match.protocol(kind, listed)) for kind, listed in ports.items()]
    if rule.icmp_types:
        return list(_icmp(rule.icmp_types))
    return (_Part(0, match.protocol(rule.protocol, rule.destination_ports, rule.source_ports)),)


def _icmp(types: Sequence[str]) -> Iterator[_Part]:
    for version, head, known in ((4, "icmp", ICMP_TYPES), (6, "icmpv6", ICMPV6_TYPES)):
        listed = [kind for kind in types if kind in known]
        if listed:
            yield _Part(version, f"{head} type {match.one_of(listed)}")
