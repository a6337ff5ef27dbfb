"""Tables that add up values of events with the same key, in bounded memory. Pure.

Up to MOST_KEYS keys are counted exactly. If there are more, the smaller half is added to one row
for all others and forgotten; a key that comes back begins anew. So no sum is ever too large, what
is shown and the others make the whole, and the table says that it happened.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hostler.core.trace.chisel import Argument, Category, Chisel, Given, Kind
from hostler.core.trace.chisel_cells import Shown, distinct, shown, shown_field
from hostler.core.trace.chisel_results import Cell, Heading, Row, Table, Unit
from hostler.core.trace.events import Column, Events
from hostler.core.trace.field import Field
from hostler.core.trace.values import Numbers

MOST_KEYS = 65_536
OTHER = "(other)"

Key = tuple[Cell, ...]
Measure = Callable[[Events], Column]
"""What to add up: a number of 64 bits for each event."""


def key_codes(
    columns: Sequence[tuple[Column, list[Cell]]], length: int
) -> tuple[Column, list[Key | None]]:
    """Keys of several columns in one: for each event which one it has, None if a part is absent."""
    codes = np.zeros(length, np.int64)
    keys: list[Key | None] = [()]
    for column, cells in columns:
        # The pairs that occur are few; their numbers stay small, so that nothing overflows.
        pairs, codes = np.unique(codes * len(cells) + column, return_inverse=True)
        keys = [_joined(keys[pair // len(cells)], cells[pair % len(cells)]) for pair in pairs]
    return codes, keys


def _joined(key: Key | None, cell: Cell) -> Key | None:
    return None if key is None or cell is None else (*key, cell)


class Groups:
    """Sums by key. The first measure decides which keys are the largest."""

    def __init__(self, measures: int, most_keys: int = MOST_KEYS) -> None:
        self._most_keys = most_keys
        self._sums: dict[Key, list[int]] = {}
        self._others = [0] * measures
        self._forgotten = 0

    def add(self, codes: Column, keys: Sequence[Key | None], measures: Sequence[Column]) -> None:
        """Add a batch: for each event the number of its key, and what it measures."""
        totals = []
        for measure in measures:
            total = np.zeros(len(keys), np.int64)
            np.add.at(total, codes, measure.astype(np.int64))
            totals.append(total.tolist())
        for key, *values in zip(keys, *totals, strict=True):
            if key is not None and any(values):
                self._add(key, values)
        if len(self._sums) > self._most_keys:
            self._forget()

    def _add(self, key: Key, values: Sequence[int]) -> None:
        sums = self._sums.setdefault(key, [0] * len(values))
        for i, value in enumerate(values):
            sums[i] += value

    def _forget(self) -> None:
        largest = self._largest_first()
        for key, sums in largest[self._most_keys // 2 :]:
            self._others = [a + b for a, b in zip(self._others, sums, strict=True)]
            self._forgotten += 1
            del self._sums[key]

    def _largest_first(self) -> list[tuple[Key, list[int]]]:
        # Ties go by key, so that the same trace makes the same table.
        return sorted(self._sums.items(), key=lambda item: ([-v for v in item[1]], _order(item[0])))

    def table(self, headings: tuple[Heading, ...], top: int) -> Table:
        """The `top` largest keys with their sums; all if it is 0."""
        ordered = self._largest_first()
        top = top or len(ordered)
        rows = tuple((*key, *sums) for key, sums in ordered[:top])
        left = ordered[top:]
        if not left and not self._forgotten:
            return Table(headings, rows)
        sums = [sum(each) for each in zip(self._others, *(s for _, s in left), strict=True)]
        keys = len(headings) - len(sums)
        other: Row = (OTHER, *(None for _ in range(keys - 1)), *sums)
        return Table(headings, rows, other, self._notes(keys))

    def _notes(self, keys: int) -> tuple[str, ...]:
        if not self._forgotten:
            return ()
        return (
            f"more than {self._most_keys} groups: {self._forgotten} times a small one was added "
            f"to {OTHER}, and numbers of small groups may be too low",
        )


def _order(key: Key) -> tuple[tuple[str, int | str], ...]:
    return tuple((type(cell).__name__, cell) for cell in key if cell is not None)


class Grouping:
    """A chisel at work that adds up measures by fields."""

    def __init__(
        self,
        given: Given,
        keys: tuple[Shown, ...],
        measures: tuple[tuple[Heading, Measure], ...],
        most_keys: int = MOST_KEYS,
    ) -> None:
        self._given, self._keys, self._measures = given, keys, measures
        self._groups = Groups(len(measures), most_keys)

    def take(self, events: Events, host: str) -> None:
        """Add a batch."""
        columns = [distinct(key, events) for key in self._keys]
        if self._given.per_host:
            columns.insert(0, (np.zeros(len(events), np.int64), [host]))
        codes, keys = key_codes(columns, len(events))
        self._groups.add(codes, keys, [measure(events) for _, measure in self._measures])

    def result(self) -> Table:
        """The largest groups so far."""
        host = (Heading("host"),) if self._given.per_host else ()
        keys = tuple(key.heading for key in self._keys)
        values = tuple(heading for heading, _ in self._measures)
        return self._groups.table((*host, *keys, *values), self._given.number("top"))


def measured(field: Field) -> Measure:
    """A field as a measure; what is absent or negative adds nothing."""

    def measure(events: Events) -> Column:
        values = field.values(events)
        if not isinstance(values, Numbers):
            raise TypeError(f"{field.name} is no number")
        numbers = values.column.astype(np.int64)
        return np.where(values.present() & (numbers > 0), numbers, 0)

    return measure


def top_argument(default: int) -> Argument:
    """The argument that says how many rows to show."""
    return Argument("top", Kind.NUMBER, "how many rows to show, 0 for all", str(default))


@dataclass(frozen=True, slots=True)
class Value:
    """What the chisels of sysdig's table generator add up."""

    heading: Heading
    field: str


BYTES = Value(Heading("bytes", Unit.BYTES), "evt.rawarg.res")
TIME = Value(Heading("time", Unit.DURATION), "evt.latency")
CALLS = Value(Heading("calls", Unit.COUNT), "evt.count")
ERRORS = Value(Heading("errors", Unit.COUNT), "evt.count")


def top(
    name: str,
    category: Category,
    summary: str,
    *,
    keys: tuple[tuple[str, str], ...],
    value: Value,
    top: int,
    filter: str = "",
) -> Chisel:
    """A chisel that shows for which keys, given as names and fields, a value is largest."""
    columns = tuple(shown(heading, field) for heading, field in keys)
    measure = shown(value.heading.name, value.field)
    return Chisel(
        name,
        category,
        summary,
        lambda given: Grouping(given, columns, ((value.heading, measured(measure.field)),)),
        filter=filter,
        arguments=(top_argument(top),),
    )


def top_by(name: str, summary: str, *, value: Value, top: int, filter: str) -> Chisel:
    """A chisel that shows for which values of a field, which the user names, a value is largest."""
    measure = shown(value.heading.name, value.field)

    def make(given: Given) -> Grouping:
        key = given.field("key")
        columns = (shown_field(key.name, key),)
        return Grouping(given, columns, ((value.heading, measured(measure.field)),))

    return Chisel(
        name,
        Category.IO,
        summary,
        make,
        filter=filter,
        arguments=(KEY, top_argument(top)),
    )


KEY = Argument("key", Kind.FIELD, "the field to group by, such as proc.name or fd.sport")
