"""From the elements that a dynamic set should hold, and does, to steps."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hostlerd.firewall.errors import (
    AddressSetNotFound,
    AddressSetNotInForce,
    AddressSetStatic,
    TooMany,
)
from hostlerd.firewall.model.address_set import (
    SET_MOST,
    ChangeElements,
    Contents,
    Element,
    dump,
    join,
)
from hostlerd.firewall.model.elements import Span
from hostlerd.firewall.model.ruleset import AddressSet, Ruleset
from hostlerd.firewall.plan.names import collect
from hostlerd.firewall.plan.table import in_order
from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.runtime.steps import Plan

# What the kernel tells of the time that is left is rounded.
_SAME_END_S = 2
_FAULTS_TOLD = 1000


@dataclass(frozen=True, slots=True)
class Declared:
    """A set as a ruleset declares it, and the rules that use it, as RULESET/ID."""

    address_set: AddressSet
    ruleset: Ruleset
    used_by: tuple[str, ...]


def declared(rulesets: Mapping[str, Ruleset]) -> dict[str, Declared]:
    """Answer the sets of all rulesets by name. Of two of one name the first ruleset's counts."""
    ordered = in_order(rulesets.values())
    uses: dict[str, list[str]] = {}
    for r in ordered:
        for number, rule in enumerate(r.rules, 1):
            for name in {*rule.source_sets, *rule.destination_sets}:
                uses.setdefault(name, []).append(f"{r.name}/{rule.id or f'rule-{number}'}")
    holders = {each.name: r for r in reversed(ordered) for each in r.address_sets}
    return {
        name: Declared(each, holders[name], tuple(uses.get(name, ())))
        for name, each in sorted(collect(ordered).sets.items())
    }


def dynamic(name: str, rulesets: Mapping[str, Ruleset]) -> Declared:
    """Answer a set whose elements may be changed. Raises AddressSetNotFound, AddressSetStatic."""
    found = get(name, rulesets)
    if not found.address_set.dynamic:
        raise AddressSetStatic(
            f"the elements of {name} are those of ruleset {found.ruleset.name}", name=name
        )
    return found


def get(name: str, rulesets: Mapping[str, Ruleset]) -> Declared:
    """Answer the set of that name. Raises AddressSetNotFound."""
    found = declared(rulesets).get(name)
    if found is None:
        raise AddressSetNotFound(f"no ruleset declares an address set {name}", name=name)
    return found


def in_force(name: str, elements: Sequence[Element] | None) -> tuple[Element, ...]:
    """Answer what the kernel has in a set. Raises AddressSetNotInForce if it has no such set."""
    if elements is None:
        raise AddressSetNotInForce(
            f"address set {name} is not in the kernel; apply its ruleset again", name=name
        )
    return tuple(elements)


def add(wanted: Sequence[Element], have: Contents) -> Plan:
    """Have the set hold these too. Raises InvalidRequest, TooMany."""
    place = _Place(have.elements)
    added: list[Element] = []
    removed: list[Element] = []
    widened: list[Span] = []
    faults: list[Violation] = []
    for element in wanted:
        near = place.overlapping(element.span)
        if len(near) == 1 and near[0].span == element.span:
            if not _same_end(near[0], element):
                removed += near
                added.append(element)
        elif any(e.expire_time for e in (element, *near)) and near:
            faults.append(_overlap(element, near[0]))
        elif near:
            removed += near
            widened += [element.span, *(e.span for e in near)]
        else:
            added.append(element)
    _refuse(faults)
    return _change(have, [*added, *map(Element, join(widened))], removed)


def remove(wanted: Sequence[Span], have: Contents) -> Plan:
    """Have the set not hold these. Raises InvalidRequest for a part of an element."""
    place = _Place(have.elements)
    removed: list[Element] = []
    faults: list[Violation] = []
    for span in dict.fromkeys(wanted):
        near = place.overlapping(span)
        removed += [e for e in near if e.span == span]
        faults += [_overlap(Element(span), e) for e in near[:1] if e.span != span]
    _refuse(faults)
    return _change(have, (), removed)


def replace(wanted: Sequence[Element], have: Contents) -> Plan:
    """Have the set hold these and no others. Raises TooMany."""
    before = {e.span: e for e in have.elements}
    kept = {e.span for e in wanted if e.span in before and _same_end(before[e.span], e)}
    added = [e for e in wanted if e.span not in kept]
    return _change(have, added, [e for e in have.elements if e.span not in kept])


class _Place:
    """Elements that do not overlap, by where they lie."""

    def __init__(self, elements: Iterable[Element]) -> None:
        self._sorted = sorted(elements)
        self._starts = [(e.span.version, e.span.first) for e in self._sorted]

    def overlapping(self, span: Span) -> list[Element]:
        number = max(0, bisect_right(self._starts, (span.version, span.first)) - 1)
        end = bisect_right(self._starts, (span.version, span.last))
        return [
            e
            for e in self._sorted[number:end]
            if e.span.version == span.version and e.span.last >= span.first
        ]


def _same_end(have: Element, want: Element) -> bool:
    if not (have.expire_time and want.expire_time):
        return have.expire_time == want.expire_time
    return abs(have.expire_time - want.expire_time) <= _SAME_END_S


def _overlap(element: Element, there: Element) -> Violation:
    words = f"{element.span.nft} overlaps {there.span.nft}, which the set holds"
    return Violation("elements", words)


def _refuse(faults: Sequence[Violation]) -> None:
    if faults:
        raise InvalidRequest.of(faults[:_FAULTS_TOLD])


def _change(have: Contents, added: Iterable[Element], removed: Iterable[Element]) -> Plan:
    comes, goes = sorted(set(added)), sorted(set(removed))
    # Where one given is a part of one that is there, the two are what is there.
    both = set(comes) & set(goes)
    comes, goes = [e for e in comes if e not in both], [e for e in goes if e not in both]
    if len(have.elements) + len(comes) - len(goes) > SET_MOST:
        raise TooMany(f"a set holds at most {SET_MOST} elements", name=have.name)
    if not comes and not goes:
        return Plan()
    return Plan(steps=(ChangeElements(have.name, dump(comes), dump(goes), have.persistent),))
