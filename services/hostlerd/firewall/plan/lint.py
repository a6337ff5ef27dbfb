"""What is worth a look in rulesets: found without the kernel, bounded in time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

from hostlerd.firewall.model.ruleset import (
    HOSTLER_PORTS,
    Action,
    ConnectionState,
    Hook,
    Network,
    PortRange,
    Protocol,
    Rule,
    Ruleset,
    rule_id,
)
from hostlerd.firewall.plan.names import Names, collect
from hostlerd.firewall.plan.table import in_order

FINDINGS_MOST = 200
# How many earlier rules one is compared with: those that match widely, the latest of them first.
_WIDE_MOST = 64
_SSH = 22
_DECIDES = (Action.ACCEPT, Action.DROP, Action.REJECT)


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding: a stable code, words, the rule as RULESET/ID, and the field of the request."""

    code: str
    message: str
    rule: str = ""
    field: str = ""
    refused: bool = False


@dataclass(frozen=True, slots=True)
class _Placed:
    """A rule where it stands."""

    rule: Rule
    label: str
    field: str


Demand = Callable[[Rule], bool]


@dataclass(frozen=True, slots=True)
class _Wide:
    """A rule that may match all packets of later ones, which it does if all demands are met."""

    label: str
    demands: tuple[Demand, ...]


def findings(wanted: Mapping[str, Ruleset], after: Iterable[Ruleset]) -> tuple[Finding, ...]:
    """Look over rulesets, which have these paths in the request, among all the host will have."""
    ordered = in_order(after)
    names = collect(ordered)
    paths = {want.name: path for path, want in wanted.items()}
    found = list(islice(_all(ordered, names, paths), FINDINGS_MOST + 1))
    if len(found) > FINDINGS_MOST:
        found[FINDINGS_MOST:] = [Finding("MORE_FINDINGS", "there are more findings than these")]
    return tuple(found)


def _all(ordered: Sequence[Ruleset], names: Names, paths: Mapping[str, str]) -> Iterator[Finding]:
    for hook in Hook:
        placed = [p for p in _placed(ordered, paths) if p.rule.hook is hook]
        yield from _covered(placed, names)
        for each in placed:
            if each.field:
                yield from _of_one(each, names)


def _placed(ordered: Sequence[Ruleset], paths: Mapping[str, str]) -> Iterator[_Placed]:
    for r in ordered:
        path = paths.get(r.name)
        for index, rule in enumerate(r.rules):
            field = f"{path}.rules[{index}]" if path else ""
            yield _Placed(rule, f"{r.name}/{rule_id(index, rule)}", field)


def _of_one(placed: _Placed, names: Names) -> Iterator[Finding]:
    rule = placed.rule
    states = set(rule.connection_states)
    if states and states <= {ConnectionState.ESTABLISHED, ConnectionState.RELATED}:
        if rule.hook is not Hook.BRIDGE_FORWARD:
            words = "is never asked: what is established or related has passed before it"
            yield Finding("RULE_UNREACHABLE", f"{placed.label} {words}", placed.label, placed.field)
    for side in ("source_sets", "destination_sets"):
        for name in getattr(rule, side):
            one = names.sets.get(name)
            if one is not None and not one.dynamic and not one.elements:
                words = f"{placed.label} matches nothing in the empty set {name}"
                yield Finding("SET_EMPTY", words, placed.label, placed.field)
    port = _open_to_world(rule, names)
    if port:
        words = f"{placed.label} lets everybody reach port {port} of the host"
        yield Finding("MANAGEMENT_PORT_OPEN", words, placed.label, placed.field)


def _open_to_world(rule: Rule, names: Names) -> int:
    """Answer a management port that the rule opens to everybody; 0 for none."""
    narrowed = (
        rule.source_sets, rule.in_ifname, rule.in_zone, rule.destinations, rule.destination_sets,
        any(n.prefixlen for n in rule.sources), rule.limit, rule.expire_time, rule.source_ports,
    )  # fmt: skip
    if rule.hook is not Hook.INPUT or rule.action is not Action.ACCEPT or any(narrowed):
        return 0
    ports = (_SSH, *range(HOSTLER_PORTS[0], HOSTLER_PORTS[1] + 1))
    return next((port for port in ports if _takes_port(rule, port, names)), 0)


def _takes_port(rule: Rule, port: int, names: Names) -> bool:
    """Whether a rule names this TCP port, and not only by matching everything."""
    return any(p.first <= port <= p.last for p in _tcp_ports(rule, names))


def _tcp_ports(rule: Rule, names: Names) -> Iterator[PortRange]:
    if rule.protocol is Protocol.TCP:
        yield from rule.destination_ports
    for name in rule.services:
        service = names.services.get(name)
        for each in service.ports if service else ():
            if each.protocol is Protocol.TCP:
                yield each.ports


def _covered(placed: Sequence[_Placed], names: Names) -> Iterator[Finding]:
    """Find rules of which an earlier one matches all packets, the same or more."""
    same: dict[Rule, _Placed] = {}
    wide: list[_Wide] = []
    for each in placed:
        rule = each.rule
        match_alone = replace(rule, action=Action.ACCEPT, id="", comment="", log=None)
        twin = same.get(match_alone)
        if each.field:
            yield from _twin_or_shadow(each, twin, wide)
        if rule.action in _DECIDES and not (rule.limit or rule.expire_time):
            same.setdefault(match_alone, each)
            if _width(rule) and len(wide) < _WIDE_MOST:
                wide.append(_Wide(each.label, tuple(_demands(rule))))


def _twin_or_shadow(
    each: _Placed, twin: _Placed | None, wide: Sequence[_Wide]
) -> Iterator[Finding]:
    if twin is not None:
        same = twin.rule.action is each.rule.action
        code = "RULE_DUPLICATE" if same else "RULE_SHADOWED"
        words = "the same packets" if same else "the same packets, and decides otherwise"
        message = f"{each.label} is never asked: {twin.label} before it matches {words}"
        yield Finding(code, message, each.label, each.field)
        return
    cover = next((w for w in wide if _is_met(w.demands, each.rule)), None)
    if cover is not None:
        message = f"{each.label} is never asked: {cover.label} before it matches all its packets"
        yield Finding("RULE_SHADOWED", message, each.label, each.field)


def _is_met(demands: Iterable[Demand], rule: Rule) -> bool:
    for demand in demands:
        if not demand(rule):
            return False
    return True


def _width(rule: Rule) -> bool:
    """Whether a rule may cover others: it leaves something open that rules tend to say."""
    broad = [n for n in (*rule.sources, *rule.destinations) if n.prefixlen < n.max_prefixlen]
    return not (rule.sources and rule.destinations) or bool(broad)


def _demands(wide: Rule) -> Iterator[Demand]:
    """What a rule of the same hook must say if the wide one matches all its packets for sure.

    The most telling first: all that is not said by the wide one is not asked.
    """
    if wide.destination_ports:
        yield lambda narrow: _ports_within(narrow.destination_ports, wide.destination_ports)
    if wide.source_ports:
        yield lambda narrow: _ports_within(narrow.source_ports, wide.source_ports)
    if wide.protocol is not None:
        yield lambda narrow: narrow.protocol is wide.protocol
    yield from _demands_of_addresses(wide.sources, wide.source_sets, "sources", "source_sets")
    yield from _demands_of_addresses(
        wide.destinations, wide.destination_sets, "destinations", "destination_sets"
    )
    for field in ("in_ifname", "out_ifname", "in_zone", "out_zone"):
        if said := getattr(wide, field):
            yield partial(_says, field, said)
    for field in ("services", "icmp_types", "connection_states"):
        if said := getattr(wide, field):
            yield partial(_says_some_of, field, frozenset(said))


def _demands_of_addresses(
    networks: Sequence[Network], sets: Sequence[str], field: str, sets_field: str
) -> Iterator[Demand]:
    if sets:
        yield partial(_says_some_of, sets_field, frozenset(sets))
    if networks:
        # As numbers: the ipaddress module takes a second for what a large ruleset asks.
        spans = [
            (n.version, n.prefixlen, int(n.network_address), int(n.broadcast_address))
            for n in networks
        ]
        yield (
            lambda narrow: (
                not getattr(narrow, sets_field) and _within(getattr(narrow, field), spans)
            )
        )
    elif sets:
        yield lambda narrow: not getattr(narrow, field)


def _says(field: str, said: str, narrow: Rule) -> bool:
    return bool(getattr(narrow, field) == said)


def _says_some_of(field: str, said: frozenset[object], narrow: Rule) -> bool:
    """Whether a rule says something there, and nothing else than these."""
    other = getattr(narrow, field)
    return bool(other) and said.issuperset(other)


def _within(narrow: Sequence[Network], wide: Sequence[tuple[int, int, int, int]]) -> bool:
    return bool(narrow) and all(
        any(
            n.version == version and n.prefixlen >= prefixlen and first <= at <= last
            for version, prefixlen, first, last in wide
        )
        for n in narrow
        for at in (int(n.network_address),)
    )


def _ports_within(narrow: Sequence[PortRange], wide: Sequence[PortRange]) -> bool:
    # Asked most of all, and loops are twice as fast here as what any() and all() are given.
    for n in narrow:
        for w in wide:
            if w.first <= n.first and n.last <= w.last:
                break
        else:
            return False
    return bool(narrow)
