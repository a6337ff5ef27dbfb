"""The filter language of traces: any filter passes what a plain reading of it, row by row, does."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import Any

from hypothesis import given
from trace_trees import BATCHES, TREES, shown

from hostler.core.trace.events import Events
from hostler.core.trace.field import Field, Kind
from hostler.core.trace.filter import compile_filter


def passes(tree: Any, events: Events, i: int) -> bool:
    if tree[0] == "not":
        return not passes(tree[1], events, i)
    if tree[0] in ("and", "or"):
        return {"and": all, "or": any}[tree[0]](passes(term, events, i) for term in tree[1])
    _, field, operator, chosen = tree
    there = [value for side in field.sides(events) if (value := side.at(i)) is not None]
    if operator == "!=" and not field.differs_in_any:
        return bool(there) and not any(holds(field, "=", value, chosen) for value in there)
    return any(holds(field, operator, value, chosen) for value in there)


def holds(field: Field, operator: str, value: Any, chosen: list[Any]) -> bool:
    if operator == "exists":
        return True
    if operator == "in":
        return any(holds(field, "=", value, [each]) for each in chosen)
    if operator == "pmatch":
        return any(holds(field, "path", value, [each]) for each in chosen)
    wanted = chosen[0]
    if field.kind is Kind.ADDRESS:
        inside = ip_address(value).version == ip_network(wanted, strict=False).version and (
            ip_address(value) in ip_network(wanted, strict=False)
        )
        return inside == (operator == "=")
    if field.kind is Kind.NEARNESS:
        return bool(value <= wanted * 1_000_000)
    if isinstance(wanted, str):
        wanted = wanted.encode()
    return bool(COMPARED[operator](value, wanted))


COMPARED: dict[str, Callable[[Any, Any], Any]] = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "contains": lambda a, b: b in a,
    "icontains": lambda a, b: b.lower() in a.lower(),
    "startswith": lambda a, b: a[: len(b)] == b,
    "endswith": lambda a, b: a[len(a) - len(b) :] == b if len(b) <= len(a) else False,
    "glob": lambda a, b: fnmatch.fnmatchcase(a, b),
    "path": lambda a, b: a.rstrip(b"/") == b.rstrip(b"/") or a.startswith(b.rstrip(b"/") + b"/"),
}


@given(TREES, BATCHES)
def test_a_filter_passes_what_a_plain_reading_does(tree: Any, events: Events) -> None:
    mask = compile_filter(shown(tree)).matches(events)
    assert mask.dtype == bool
    assert mask.tolist() == [passes(tree, events, i) for i in range(len(events))]
