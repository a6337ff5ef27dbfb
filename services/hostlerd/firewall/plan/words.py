"""Rulesets and their differences in an operator's words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hostlerd.firewall.model.ruleset import (
    Action,
    Forward,
    Masquerade,
    PortRange,
    Rule,
    Ruleset,
    rule_id,
)

_EVERYTHING_ELSE = {"input_policy": "to the host", "forward_policy": "through the host"}


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a ruleset, in words that may leave out some of it, and itself."""

    words: str
    value: object


def entries(ruleset: Ruleset) -> dict[str, Entry]:
    """Answer what a ruleset holds, by keys that stay while an entry changes."""
    found: dict[str, Entry] = {}
    for field, said in (
        ("input_policy", ruleset.input_policy),
        ("forward_policy", ruleset.forward_policy),
    ):
        if said is not None:
            found[field] = Entry(_policy(field, said), said)
    for index, rule in enumerate(ruleset.rules):
        name = rule_id(index, rule)
        found[name] = Entry(f"rule {name}: {_rule(rule)}", rule)
    for forward in ruleset.forwards:
        # Two may share a port: only all of it tells them apart.
        found[f"forward {forward}"] = Entry(forward_words(forward), forward)
    for masquerade in ruleset.masquerades:
        found[f"masquerade {masquerade}"] = Entry(_masquerade(masquerade), masquerade)
    for network in ruleset.isolated_networks:
        found[f"isolate {network}"] = Entry(f"isolate {network}", network)
    return found


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
            yield f"{name}: {entry.words} (was: {old[key].words})"
    if before and after:
        kept_before = [k for k in old if k in new]
        kept_after = [k for k in new if k in old]
        if kept_before != kept_after:
            yield f"{name}: another order of its rules"
        if before.priority != after.priority:
            yield f"{name}: priority {after.priority} (was: {before.priority})"


def forward_words(forward: Forward) -> str:
    """Answer a forward in words, such as "forward tcp 8080 to 10.213.0.2:8000"."""
    target = forward.target_address
    shown = str(target) if target.version == 4 else f"[{target}]"
    words = f"forward {forward.protocol.value} {forward.port} to {shown}:{forward.leads_to_port}"
    if forward.addresses:
        words += " at " + _listed(forward.addresses)
    if forward.sources:
        words += " from " + _listed(forward.sources)
    return words


def _policy(field: str, said: Action) -> str:
    return f"{said.value} everything else {_EVERYTHING_ELSE[field]}"


def _masquerade(masquerade: Masquerade) -> str:
    return f"masquerade {masquerade.source}" + (
        f" by {masquerade.uplink}" if masquerade.uplink else ""
    )


def _rule(rule: Rule) -> str:
    words = [rule.action.value, rule.hook.value]
    if rule.protocol is not None:
        words.append(rule.protocol.value)
    if rule.destination_ports:
        words.append(_listed(_ports(p) for p in rule.destination_ports))
    for word, value in (
        ("from", _listed(rule.sources)),
        ("to", _listed(rule.destinations)),
        ("in by", rule.in_ifname),
        ("out by", rule.out_ifname),
    ):
        if value:
            words += [word, value]
    if rule.comment:
        words.append(f'"{rule.comment}"')
    return " ".join(words)


def _ports(ports: PortRange) -> str:
    return str(ports.first) if ports.first == ports.last else f"{ports.first}-{ports.last}"


def _listed(values: Iterable[object], most: int = 4) -> str:
    shown = [str(v) for v in values]
    rest = f" and {len(shown) - most} more" if len(shown) > most else ""
    return ",".join(shown[:most]) + rest
