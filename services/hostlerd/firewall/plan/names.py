"""What rules use by name: sets, zones and services of all rulesets of a host."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hostlerd.firewall.model.known import WELL_KNOWN
from hostlerd.firewall.model.ruleset import AddressSet, NamedService, Rule, Ruleset, Zone
from hostlerd.runtime.errors import Violation


@dataclass(frozen=True, slots=True)
class Names:
    """What the names stand for. Of two of one name the first ruleset's counts."""

    sets: Mapping[str, AddressSet]
    zones: Mapping[str, Zone]
    services: Mapping[str, NamedService]


def collect(rulesets: Iterable[Ruleset]) -> Names:
    """Answer the names that these rulesets give, well-known services beside them."""
    ordered = sorted(rulesets, key=lambda r: r.order, reverse=True)
    return Names(
        {each.name: each for r in ordered for each in r.address_sets},
        {each.name: each for r in ordered for each in r.zones},
        {**WELL_KNOWN, **{each.name: each for r in ordered for each in r.services}},
    )


def unknown(ruleset: Ruleset, names: Names, path: str) -> list[Violation]:
    """Answer every name that rules of the ruleset use and nobody gives."""
    found = []
    for index, rule in enumerate(ruleset.rules):
        for field, name, known, what in _used(rule, names):
            if name not in known:
                words = f"there is no {what} {name} in any ruleset of the host"
                found.append(Violation(f"{path}.rules[{index}].{field}", words))
    return found


def _used(rule: Rule, names: Names) -> Iterable[tuple[str, str, Mapping[str, object], str]]:
    for field in ("source_sets", "destination_sets"):
        for index, name in enumerate(getattr(rule, field)):
            yield f"{field}[{index}]", name, names.sets, "address set"
    for field in ("in_zone", "out_zone"):
        if name := getattr(rule, field):
            yield field, name, names.zones, "zone"
    for index, name in enumerate(rule.services):
        yield f"services[{index}]", name, names.services, "service"
