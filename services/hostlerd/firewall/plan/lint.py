"""What is worth a look in rulesets: found without the kernel, bounded in time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
    wide: list[_Placed] = []
    for each in placed:
        rule = each.rule
        match_alone = replace(rule, action=Action.ACCEPT, id="", comment="", log=None)
        twin = same.get(match_alone)
        if each.field:
            yield from _twin_or_shadow(each, twin, wide)
        if rule.action in _DECIDES and not (rule.limit or rule.expire_time):
            same.setdefault(match_alone, each)
            if _width(rule) and len(wide) < _WIDE_MOST:
                wide.append(each)


def _twin_or_shadow(
    each: _Placed, twin: _Placed | None, wide: Sequence[_Placed]
) -> Iterator[Finding]:
    if twin is not None:
        same = twin.rule.action is each.rule.action
        code = "RULE_DUPLICATE" if same else "RULE_SHADOWED"
        words = "the same packets" if same else "the same packets, and decides otherwise"
        message = f"{each.label} is never asked: {twin.label} before it matches {words}"
        yield Finding(code, message, each.label, each.field)
        return
    cover = next((w for w in wide if covers(w.rule, each.rule)), None)
    if cover is not None:
        message = f"{each.label} is never asked: {cover.label} before it matches all its packets"
        yield Finding("RULE_SHADOWED", message, each.label, each.field)


def _width(rule: Rule) -> bool:
    """Whether a rule may cover others: it leaves something open that rules tend to say."""
    broad = [n for n in (*rule.sources, *rule.destinations) if n.prefixlen < n.max_prefixlen]
    return not (rule.sources and rule.destinations) or bool(broad)


def covers(wide: Rule, narrow: Rule) -> bool:
    """Whether each packet that `narrow` matches is matched by `wide`; False if it is not sure."""
    if wide.hook is not narrow.hook or wide.limit or wide.expire_time:
        return False
    for field in ("in_ifname", "out_ifname", "in_zone", "out_zone"):
        if getattr(wide, field) not in ("", getattr(narrow, field)):
            return False
    for field in ("source_sets", "destination_sets", "services", "icmp_types", "connection_states"):
        said, other = getattr(wide, field), getattr(narrow, field)
        if said and not (other and set(other) <= set(said)):
            return False
    if wide.protocol not in (None, narrow.protocol):
        return False
    return (
        _within(narrow.sources, wide.sources, narrow.source_sets, wide.source_sets)
        and _within(
            narrow.destinations, wide.destinations, narrow.destination_sets, wide.destination_sets
        )
        and _ports_within(narrow.destination_ports, wide.destination_ports)
        and _ports_within(narrow.source_ports, wide.source_ports)
    )


def _within(
    narrow: Sequence[Network],
    wide: Sequence[Network],
    narrow_sets: Sequence[str],
    wide_sets: Sequence[str],
) -> bool:
    if not wide:
        # With sets alone it was compared above.
        return not (wide_sets and narrow)
    if not narrow or narrow_sets:
        return False
    return all(
        any(n.version == w.version and n.subnet_of(w) for w in wide)  # type: ignore[arg-type]
        for n in narrow
    )


def _ports_within(narrow: Sequence[PortRange], wide: Sequence[PortRange]) -> bool:
    if not wide:
        return True
    return bool(narrow) and all(
        any(w.first <= n.first and n.last <= w.last for w in wide) for n in narrow
    )
