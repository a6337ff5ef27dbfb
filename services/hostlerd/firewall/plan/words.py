"""Rulesets and their differences in an operator's words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from hostlerd.firewall.model.ruleset import (
    Action,
    AddressSet,
    Forward,
    Masquerade,
    PortRange,
    Rule,
    Ruleset,
    rule_id,
)

_EVERYTHING_ELSE = {
    "input_policy": "to the host",
    "forward_policy": "through the host",
    "output_policy": "of the host",
    "bridge_policy": "between ports of a bridge",
}
_ELEMENTS_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a ruleset, in words that may leave out some of it, and itself."""

    words: str
    value: object


def entries(ruleset: Ruleset) -> dict[str, Entry]:
    """Answer what a ruleset holds, by keys that stay while an entry changes."""
    found: dict[str, Entry] = {}
    for field in _EVERYTHING_ELSE:
        said = getattr(ruleset, field)
        if said is not None:
            found[field] = Entry(_policy(field, said), said)
    if ruleset.bridge_filtering is not None:
        words = f"frames between ports of a bridge: {ruleset.bridge_filtering.value}"
        found["bridge_filtering"] = Entry(words, ruleset.bridge_filtering)
    if ruleset.closes_management:
        words = "its input rules may close Hostler's own ports"
        found["closes_management"] = Entry(words, value=True)
    found.update(_named(ruleset))
    for index, rule in enumerate(ruleset.rules):
        name = rule_id(index, rule)
        found[name] = Entry(f"rule {name}: {rule_words(rule)}", rule)
    for forward in ruleset.forwards:
        # Two may share a port: only all of it tells them apart.
        found[f"forward {forward}"] = Entry(forward_words(forward), forward)
    for masquerade in ruleset.masquerades:
        found[f"masquerade {masquerade}"] = Entry(_masquerade(masquerade), masquerade)
    found.update(_others(ruleset))
    for network in ruleset.isolated_networks:
        found[f"isolate {network}"] = Entry(f"isolate {network}", network)
    return found


def _named(ruleset: Ruleset) -> dict[str, Entry]:
    found = {f"set {s.name}": Entry(f"set {s.name}: {_set(s)}", s) for s in ruleset.address_sets}
    for zone in ruleset.zones:
        words = f"zone {zone.name}: {_listed(zone.ifnames)}"
        found[f"zone {zone.name}"] = Entry(words, zone)
    for service in ruleset.services:
        ports = _listed(f"{p.protocol.value} {_ports(p.ports)}" for p in service.ports)
        found[f"service {service.name}"] = Entry(f"service {service.name}: {ports}", service)
    for flowtable in ruleset.flowtables:
        words = f"flowtable {flowtable.name}: {_listed(flowtable.ifnames)}"
        found[f"flowtable {flowtable.name}"] = Entry(words, flowtable)
    return found


def _others(ruleset: Ruleset) -> dict[str, Entry]:
    found = {}
    for nat in ruleset.source_nats:
        words = f"source NAT of {nat.source} to {nat.to_address}" + (
            f" by {nat.uplink}" if nat.uplink else ""
        )
        found[f"source-nat {nat}"] = Entry(words, nat)
    for redirect in ruleset.redirects:
        words = f"redirect {redirect.protocol.value} {redirect.port} to {redirect.to_port}"
        found[f"redirect {redirect}"] = Entry(words, redirect)
    for helper in ruleset.helpers:
        words = f"helper {helper.helper} for {helper.protocol.value} {helper.port}"
        found[f"helper {helper}"] = Entry(words, helper)
    for fragment in ruleset.fragments:
        lines = fragment.nft_rules.splitlines()
        words = f"fragment {fragment.id} at {fragment.place.value}: {_listed(lines, 2)}"
        found[f"fragment {fragment.id}"] = Entry(words, fragment)
    return found


def _set(one: AddressSet) -> str:
    return "dynamic" if one.dynamic else _listed(one.elements, _ELEMENTS_SHOWN) or "empty"


def differences(have: Mapping[str, Ruleset], want: Mapping[str, Ruleset]) -> tuple[str, ...]:
    """Answer what changes between two sets of rulesets, named before the words if it is not new."""
    found: list[str] = []
    for name in sorted({*have, *want}):
        before, after = have.get(name), want.get(name)
        if before != after:
            found += _of_one(name, before, after)
    return tuple(found)


def _of_one(name: str, before: Ruleset | None, after: Ruleset | None) -> Iterable[str]:
    old = entries(before) if before else {}
    new = entries(after) if after else {}
    for key, entry in old.items():
        if key not in new:
            yield f"{name}: remove {entry.words}"
    for key, entry in new.items():
        if key not in old:
            yield f"{name}: {entry.words}"
        elif old[key].value != entry.value:
            yield f"{name}: {_changed(old[key], entry)}"
    if before and after:
        kept_before = [k for k in old if k in new]
        kept_after = [k for k in new if k in old]
        if kept_before != kept_after:
            yield f"{name}: another order of its rules"
        if before.priority != after.priority:
            yield f"{name}: priority {after.priority} (was: {before.priority})"


def _changed(old: Entry, new: Entry) -> str:
    was, now = old.value, new.value
    if isinstance(was, AddressSet) and isinstance(now, AddressSet) and was.elements != now.elements:
        told = [
            f"{verb} {len(elements)}: {_listed(elements, _ELEMENTS_SHOWN)}"
            for verb, one, other in (("add", now, was), ("remove", was, now))
            if (elements := _without(one, other))
        ]
        return f"{new.words} ({'; '.join(told)})"
    return f"{new.words} (was: {old.words})"


def _without(one: AddressSet, other: AddressSet) -> list[str]:
    known = frozenset(other.elements)
    return [element for element in one.elements if element not in known]


def forward_words(forward: Forward) -> str:
    """Answer a forward in words, such as "forward tcp 8080 to 10.213.0.2:8000"."""
    target = forward.target_address
    shown = str(target) if target.version == 4 else f"[{target}]"
    words = f"forward {forward.protocol.value} {forward.port} to {shown}:{forward.leads_to_port}"
    if forward.addresses:
        words += " at " + _listed(forward.addresses)
    if forward.sources:
        words += " from " + _listed(forward.sources)
    if forward.in_ifname:
        words += f" in by {forward.in_ifname}"
    return words


def _policy(field: str, said: Action) -> str:
    return f"{said.value} everything else {_EVERYTHING_ELSE[field]}"


def _masquerade(masquerade: Masquerade) -> str:
    return f"masquerade {masquerade.source}" + (
        f" by {masquerade.uplink}" if masquerade.uplink else ""
    )


def rule_words(rule: Rule) -> str:
    """Answer a rule in words."""
    words = [rule.action.value, rule.hook.value.replace("_", " ")]
    if rule.protocol is not None:
        words.append(rule.protocol.value)
    if rule.destination_ports:
        words.append(_listed(_ports(p) for p in rule.destination_ports))
    states = _listed(state.value for state in rule.connection_states)
    for word, value in (
        ("", _listed(rule.services)),
        ("type", _listed(rule.icmp_types)),
        ("from port", _listed(_ports(p) for p in rule.source_ports)),
        ("from", _both(rule.sources, rule.source_sets)),
        ("to", _both(rule.destinations, rule.destination_sets)),
        ("in by", rule.in_ifname or (f"zone {rule.in_zone}" if rule.in_zone else "")),
        ("out by", rule.out_ifname or (f"zone {rule.out_zone}" if rule.out_zone else "")),
        ("in state", states),
        ("at most", rule.limit.nft if rule.limit else ""),
    ):
        if value:
            words += [word, value] if word else [value]
    if rule.log is not None:
        words.append("and log" + (f" at most {rule.log.rate.nft}" if rule.log.rate else ""))
    if rule.expire_time:
        words.append(f"until {datetime.fromtimestamp(rule.expire_time, UTC):%Y-%m-%dT%H:%M:%SZ}")
    if rule.comment:
        words.append(f'"{rule.comment}"')
    return " ".join(words)


def _both(networks: Iterable[object], sets: Iterable[str]) -> str:
    return _listed([*networks, *(f"set {name}" for name in sets)])


def _ports(ports: PortRange) -> str:
    return str(ports.first) if ports.first == ports.last else f"{ports.first}-{ports.last}"


def _listed(values: Iterable[object], most: int = 4) -> str:
    shown = [str(v) for v in values]
    rest = f" and {len(shown) - most} more" if len(shown) > most else ""
    return ",".join(shown[:most]) + rest
