"""Which connections new rules of drop and reject are against."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_network
from itertools import product

from hostlerd.firewall.model.connection import ConnectionFilter
from hostlerd.firewall.model.elements import read_span
from hostlerd.firewall.model.ruleset import (
    Action,
    Hook,
    Network,
    PortRange,
    Protocol,
    Rule,
    Ruleset,
)
from hostlerd.firewall.plan.names import Names, collect

_REFUSES = (Action.DROP, Action.REJECT)


def filters(
    wanted: Mapping[str, Ruleset], before: Mapping[str, Ruleset], after: Iterable[Ruleset]
) -> tuple[ConnectionFilter, ...]:
    """Answer the connections that rules match which refuse and were not there before.

    Links, states, rates and what a dynamic set holds are not looked at: a connection that is cut
    for nothing is judged again as a new one, and goes on if the rules let it in. A rule that says
    nothing else matches too much to be followed, and cuts none.
    """
    names = collect(after)
    found: dict[ConnectionFilter, None] = {}
    for want in wanted.values():
        had = before.get(want.name)
        old = {*had.rules} if had else set()
        for rule in want.rules:
            if rule.action in _REFUSES and rule not in old and rule.hook is not Hook.BRIDGE_FORWARD:
                found |= dict.fromkeys(_of_rule(rule, names))
    return tuple(found)


def _of_rule(rule: Rule, names: Names) -> Iterator[ConnectionFilter]:
    sides = (
        _networks(rule.sources, rule.source_sets, names),
        _networks(rule.destinations, rule.destination_sets, names),
    )
    if (rule.source_sets and not sides[0]) or (rule.destination_sets and not sides[1]):
        # What dynamic sets hold is not known here, and an empty one matches nothing.
        return
    for (protocol, ports), version in product(_protocols(rule, names), (4, 6)):
        sources, destinations = ([n for n in side if n.version == version] for side in sides)
        if any(
            side and not mine for side, mine in zip(sides, (sources, destinations), strict=True)
        ):
            # The rule is about addresses, and has none of this family.
            continue
        one = ConnectionFilter(
            protocol=protocol,
            sources=tuple(sources),
            destinations=tuple(destinations),
            destination_ports=ports,
            source_ports=rule.source_ports,
        )
        if one != ConnectionFilter():
            yield one


def _networks(listed: Sequence[Network], sets: Sequence[str], names: Names) -> list[Network]:
    spans = [
        ip_network(network)
        for name in sets
        for element in names.sets[name].elements
        for network in read_span(element).networks()
    ]
    return [*listed, *spans]


def _protocols(rule: Rule, names: Names) -> Iterator[tuple[Protocol | None, tuple[PortRange, ...]]]:
    if not rule.services:
        yield rule.protocol, rule.destination_ports
    ports: dict[Protocol, list[PortRange]] = {}
    for name in rule.services:
        for each in names.services[name].ports:
            ports.setdefault(each.protocol, []).append(each.ports)
    yield from ((protocol, tuple(listed)) for protocol, listed in ports.items())
