"""Whether rulesets leave the caller, and the management networks, a way to Hostler's own ports."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from hostlerd.firewall.model.ruleset import (
    HOSTLER_PORTS,
    Action,
    Address,
    ConnectionState,
    Hook,
    Network,
    Protocol,
    Rule,
    Ruleset,
    rule_id,
)
from hostlerd.firewall.plan.lint import Finding
from hostlerd.firewall.plan.names import Names, collect
from hostlerd.firewall.plan.table import in_order

_REFUSES = (Action.DROP, Action.REJECT)


def refused(
    wanted: Mapping[str, Ruleset],
    before: Iterable[Ruleset],
    after: Iterable[Ruleset],
    management: Sequence[Network],
    caller: Address | None,
) -> tuple[Finding, ...]:
    """Find what closes Hostler's ports to the caller or to a management network.

    The rule that keeps them open stands before those of rulesets, so that a rule against it has no
    effect unless it is forced: it is refused, since whoever wrote it meant it to have one.
    `caller` is None for a local one.
    """
    found = [
        finding
        for path, want in wanted.items()
        for index, rule in enumerate(want.rules)
        for finding in _of_rule(f"{path}.rules[{index}]", want, index, rule, caller)
    ]
    if caller is None or found or not is_open(in_order(before), management, caller):
        return tuple(found)
    if not is_open(in_order(after), management, caller):
        path = next(iter(wanted), "delete_names")
        words = f"Hostler's ports would be closed to you ({caller})"
        found.append(Finding("CALLER_CUT_OFF", words, "", path, refused=True))
    return tuple(found)


def closing(want: Ruleset, found: Iterable[Finding]) -> Ruleset:
    """Answer the ruleset such that what was found to be refused takes effect."""
    mine = any(f.refused and f.rule.partition("/")[0] == want.name for f in found)
    return replace(want, closes_management=True) if mine else want


def touches(before: Iterable[Ruleset], after: Iterable[Ruleset], caller: Address | None) -> bool:
    """Whether what differs between two states may concern packets between caller and host."""
    if caller is None:
        return False
    old, new = in_order(before), in_order(after)
    for field in ("input_policy", "output_policy"):
        if [getattr(r, field) for r in old if getattr(r, field)] != [
            getattr(r, field) for r in new if getattr(r, field)
        ]:
            return True
    return set(_concerning(old, caller)) != set(_concerning(new, caller))


def is_open(ordered: Sequence[Ruleset], management: Sequence[Network], caller: Address) -> bool:
    """Whether a new connection of the caller to Hostler's ports is let in, as far as is known."""
    names = collect(ordered)
    closing_first = sorted(ordered, key=lambda r: not r.closes_management)
    for r in closing_first:
        if not r.closes_management and any(caller in n for n in management):
            return True
        for rule in r.rules:
            if _decides(rule, caller, names):
                return rule.action is Action.ACCEPT
    if any(caller in n for n in management):
        return True
    policy = next((r.input_policy for r in ordered if r.input_policy), Action.ACCEPT)
    return policy is Action.ACCEPT


def _of_rule(
    field: str, want: Ruleset, index: int, rule: Rule, caller: Address | None
) -> Iterator[Finding]:
    if rule.hook is not Hook.INPUT or rule.action not in _REFUSES:
        return
    label = f"{want.name}/{rule_id(index, rule)}"
    ports = [
        p
        for p in rule.destination_ports
        if p.first <= HOSTLER_PORTS[1] and p.last >= HOSTLER_PORTS[0]
    ]
    names_us = rule.protocol is Protocol.TCP and bool(ports) and not _all_ports(rule)
    names_caller = (
        caller is not None
        and any(caller in n and n.prefixlen for n in rule.sources)
        and rule.protocol in (None, Protocol.TCP)
        and (not rule.destination_ports or bool(ports))
    )
    if names_caller:
        words = f"{label} would cut you off: it refuses {caller}"
        yield Finding("CALLER_CUT_OFF", words, label, field, refused=True)
    elif names_us:
        words = f"{label} would close Hostler's own ports"
        yield Finding("MANAGEMENT_CLOSED", words, label, field, refused=True)


def _all_ports(rule: Rule) -> bool:
    return any(p.first == 1 and p.last == 65535 for p in rule.destination_ports)


def _concerning(ordered: Sequence[Ruleset], caller: Address) -> Iterator[tuple[object, ...]]:
    """Answer what may decide about the caller's packets, each with what tells it from others."""
    names = collect(ordered)
    for r in ordered:
        for rule in r.rules:
            if rule.hook in (Hook.INPUT, Hook.OUTPUT) and _may_match(rule, caller, names):
                yield r.name, r.closes_management, rule
        yield from ((r.name, fragment) for fragment in r.fragments)
        yield from (
            (r.name, e) for e in r.redirects if e.protocol is Protocol.TCP and _ours(e.port)
        )


def _ours(port: int) -> bool:
    return HOSTLER_PORTS[0] <= port <= HOSTLER_PORTS[1]


def _may_match(rule: Rule, caller: Address, names: Names) -> bool:
    """Whether the rule may match packets between caller and Hostler's ports."""
    if rule.action is Action.COUNT or rule.protocol not in (None, Protocol.TCP):
        return False
    there, here = rule.sources, rule.destination_ports
    if rule.hook is Hook.OUTPUT:
        there, here = rule.destinations, rule.source_ports
    elif rule.services:
        here = tuple(
            p.ports
            for name in rule.services
            for p in (names.services[name].ports if name in names.services else ())
            if p.protocol is Protocol.TCP
        )
        if not here:
            return False
    sets = rule.source_sets if rule.hook is Hook.INPUT else rule.destination_sets
    if there and not sets and not any(caller in n for n in there):
        return False
    return not here or any(p.first <= HOSTLER_PORTS[1] and p.last >= HOSTLER_PORTS[0] for p in here)


def _decides(rule: Rule, caller: Address, names: Names) -> bool:
    """Whether the rule surely decides about a new connection of the caller to Hostler's ports."""
    if rule.hook is not Hook.INPUT or not _may_match(rule, caller, names):
        return False
    open_questions = (
        rule.source_sets, rule.destinations, rule.destination_sets, rule.in_ifname, rule.in_zone,
        rule.limit, rule.source_ports, rule.expire_time,
    )  # fmt: skip
    if any(open_questions):
        # Nobody can tell here. A rule that refuses counts, one that accepts does not.
        return rule.action in _REFUSES
    states = rule.connection_states
    return not states or ConnectionState.NEW in states
