r"""The filter language of traces, in sysdig's words: `proc.name=sshd and evt.latency > 1ms`. Pure.

A filter is tests joined by `and`, `or`, `not` and parentheses; `and` binds stronger than `or`. A
test is a field (`hostler.core.trace.fields` has them), an operator and a value:

    = != < <= > >=                       numbers, texts by their bytes
    contains icontains startswith endswith glob      texts
    in (a, b, …)                         any of these
    pmatch (/etc, /srv/www)              texts that are such a path, or a path below
    exists                               whether the event has the field at all

Values with blanks or parentheses are quoted, by " or '. Inside and outside of quotes, \\ \" \' and
\x1f stand for a byte. Durations may have a unit (ns, us, ms, s, m, h) and are nanoseconds without;
addresses may be networks.

What an event has not (fd.name of a call without an fd) passes no test, `!=` neither: `not` does.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import translate
from typing import Any

import numpy as np

from hostler.core.trace.events import Column, Events
from hostler.core.trace.field import Field, Kind, Need
from hostler.core.trace.filter_parse import AnyOf, FilterInvalid, Node, Not, Test, parse
from hostler.core.trace.filter_values import Network, Operand
from hostler.core.trace.values import Numbers, Values

__all__ = ["Filter", "FilterInvalid", "compile_filter"]


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter that was understood. `node` is None if it lets everything pass.

    `needs` says what a trace must keep for it: without, tests of such fields fail.
    """

    text: str
    node: Node | None = field(repr=False)
    needs: Need

    def matches(self, events: Events) -> Column:
        """Which events pass: a mask."""
        if self.node is None:
            return np.ones(len(events), bool)
        return _mask(self.node, _Batch(events))


def compile_filter(text: str) -> Filter:
    """Read a filter; an empty text lets all pass. Raises FilterInvalid."""
    if not text.strip():
        return Filter(text, None, Need.NOTHING)
    node = parse(text)
    return Filter(text, node, _needs(node))


class _Batch:
    """A batch, and the fields that were read from it."""

    def __init__(self, events: Events) -> None:
        self.events = events
        self._read: dict[str, tuple[Values, ...]] = {}

    def sides(self, asked: Field) -> tuple[Values, ...]:
        if asked.name not in self._read:
            self._read[asked.name] = asked.sides(self.events)
        return self._read[asked.name]

    def __len__(self) -> int:
        return len(self.events)


def _needs(node: Node) -> Need:
    if isinstance(node, Test):
        return node.field.needs
    needs = Need.NOTHING
    for term in (node.term,) if isinstance(node, Not) else node.terms:
        needs |= _needs(term)
    return needs


def _is_costly(node: Node) -> bool:
    if isinstance(node, Test):
        return node.field.is_costly
    return any(map(_is_costly, (node.term,) if isinstance(node, Not) else node.terms))


def _mask(node: Node, batch: _Batch) -> Column:
    if isinstance(node, Test):
        return _tested(node, batch)
    if isinstance(node, Not):
        return ~_mask(node.term, batch)
    return _joined(sorted(node.terms, key=_is_costly), batch, decisive=isinstance(node, AnyOf))


def _joined(terms: list[Node], batch: _Batch, *, decisive: bool) -> Column:
    """Join terms by `or` if it is True that decides, by `and` if False; costly ones come last."""
    mask = np.full(len(batch), not decisive)
    for term in terms:
        rows = np.flatnonzero(mask != decisive)
        if not len(rows):
            break
        if _is_costly(term):
            mask[rows] = _mask(term, _Batch(batch.events.select(rows)))
        else:
            found = _mask(term, batch)
            mask = mask | found if decisive else mask & found
    return mask


_ORDERED: Mapping[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def _tested(test: Test, batch: _Batch) -> Column:
    sides = batch.sides(test.field)
    masks = [_side_tested(test, side) for side in sides]
    if test.operator == "!=" and not test.field.differs_in_any:
        # A side that is absent does not differ; one that is there must.
        absent_or_differs = [
            mask | ~side.present() for mask, side in zip(masks, sides, strict=True)
        ]
        differs: Column = np.logical_and.reduce(absent_or_differs) & np.logical_or.reduce(masks)
        return differs
    mask: Column = np.logical_or.reduce(masks) if masks else np.zeros(len(batch), bool)
    return mask


def _side_tested(test: Test, side: Values) -> Column:
    if test.operator == "exists":
        return side.present()
    if isinstance(side, Numbers):
        return _numbers_tested(test, side)
    return side.where(_of_text(test.operator, test.field.kind, test.operands))


def _numbers_tested(test: Test, side: Numbers) -> Column:
    numbers = [value for value in test.operands if isinstance(value, int)]
    if test.field.kind is Kind.NEARNESS:
        return side.where(operator.le, numbers[0])
    if test.operator != "in":
        return side.where(_ORDERED[test.operator], numbers[0])
    # numpy would compare numbers of mixed signs as floats.
    limits = np.iinfo(side.column.dtype)
    possible = [value for value in numbers if limits.min <= value <= limits.max]
    mask: Column = np.isin(side.column, np.array(possible, side.column.dtype))
    return mask & side.present()


def _of_text(name: str, kind: Kind, operands: tuple[Operand, ...]) -> Callable[[bytes], bool]:
    """What a text must be."""
    if kind is Kind.ADDRESS:
        return _of_address(name, operands)
    texts = [value for value in operands if isinstance(value, bytes)]
    wanted = frozenset(texts)
    if name == "in":
        return lambda text: text in wanted
    if name == "pmatch":
        paths = tuple(path.rstrip(b"/") + b"/" for path in texts)
        return lambda text: (text.rstrip(b"/") + b"/").startswith(paths)
    if name in _ORDERED:
        compare = _ORDERED[name]
        return lambda text: compare(text, texts[0])
    return _of_part(name, texts[0])


def _of_part(name: str, part: bytes) -> Callable[[bytes], bool]:
    if name == "glob":
        pattern = re.compile(translate(part.decode("latin-1")).encode("latin-1"))
        return lambda text: pattern.match(text) is not None
    if name == "icontains":
        folded = part.lower()
        return lambda text: folded in text.lower()
    if name == "contains":
        return lambda text: part in text
    if name == "startswith":
        return lambda text: text.startswith(part)
    return lambda text: text.endswith(part)


def _of_address(name: str, operands: tuple[Operand, ...]) -> Callable[[bytes], bool]:
    networks = [value for value in operands if isinstance(value, Network)]
    if name == "!=":
        return lambda packed: packed not in networks[0]
    return lambda packed: any(packed in network for network in networks)
