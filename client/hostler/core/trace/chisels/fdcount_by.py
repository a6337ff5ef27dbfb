"""How many different files are used, by any field."""

from __future__ import annotations

from hostler.core.trace.chisel import Category, Chisel, Given
from hostler.core.trace.chisel_cells import distinct, shown, shown_field
from hostler.core.trace.chisel_groups import KEY, OTHER, Key, key_codes, top_argument
from hostler.core.trace.chisel_results import Cell, Heading, Row, Table, Unit
from hostler.core.trace.events import Events

MOST_FILES = 200_000
_FD, _NAME = shown("fd", "fd.num"), shown("file", "fd.name")


class _Counting:
    def __init__(self, given: Given) -> None:
        self._given = given
        key = given.field("key")
        self._key = shown_field(key.name, key)
        self._files: dict[Key, set[tuple[Cell, ...]]] = {}
        self._count = self._skipped = 0

    def take(self, events: Events, host: str) -> None:
        columns = [distinct(column, events) for column in (self._key, _FD, _NAME)]
        _, keys = key_codes(columns, len(events))
        for key in keys:
            if key is not None and key[2] != "":
                group = (host, key[0]) if self._given.per_host else (key[0],)
                self._add(group, (host, *key[1:]))

    def _add(self, group: Key, file: tuple[Cell, ...]) -> None:
        files = self._files.get(group, set())
        if file in files:
            return
        if self._count >= MOST_FILES:
            self._skipped += 1
            return
        self._files.setdefault(group, files).add(file)
        self._count += 1

    def result(self) -> Table:
        largest = sorted(self._files.items(), key=lambda item: (-len(item[1]), str(item[0])))
        counts = [len(files) for _, files in largest]
        rows = [(*group, len(files)) for group, files in largest]
        top = self._given.number("top") or len(rows)
        host = (Heading("host"),) if self._given.per_host else ()
        headings = (*host, self._key.heading, Heading("files", Unit.COUNT))
        other: Row = (OTHER, *(None for _ in host), sum(counts[top:]))
        return Table(headings, tuple(rows[:top]), other if rows[top:] else None, self._notes())

    def _notes(self) -> tuple[str, ...]:
        if not self._skipped:
            return ()
        return (f"more than {MOST_FILES} files: what came after is not counted",)


CHISEL = Chisel(
    "fdcount_by",
    Category.IO,
    "how many different fds are used, by a field of your choice",
    _Counting,
    "An fd is counted once for each number and name. fd 0 is not counted, as in sysdig.",
    filter="fd.num > 0 and fd.name exists",
    arguments=(KEY, top_argument(0)),
)
