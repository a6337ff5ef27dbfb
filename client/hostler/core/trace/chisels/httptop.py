"""Which HTTP requests are made most often, take longest, or carry most."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from hostler.core.trace.chisel import Argument, Category, Chisel, Given, Kind
from hostler.core.trace.chisel_cells import text
from hostler.core.trace.chisel_groups import OTHER, Groups, Key, top_argument
from hostler.core.trace.chisel_results import Heading, Row, Table, Unit
from hostler.core.trace.events import Events
from hostler.core.trace.field import Need
from hostler.core.trace.times import finished

MOST_UNANSWERED = 10_000
_REQUEST = re.compile(rb"([A-Z]+) ([!-~]+)")
_HOST = re.compile(rb"\r\nHost: ([!-~]+)\r\n", re.IGNORECASE)
_RESPONSE = re.compile(rb"HTTP/[!-~]+ \d+")
_LENGTH = re.compile(rb"\r\nContent-Length: (\d{1,15})\r\n", re.IGNORECASE)
_COLUMNS = ("ncalls", "bytes", "time")
_HEADINGS = (
    *(Heading("method"), Heading("url"), Heading("ncalls", Unit.COUNT)),
    *(Heading("bytes", Unit.BYTES), Heading("time", Unit.DURATION)),
)


@dataclass(frozen=True, slots=True)
class _Request:
    key: Key
    time_ns: int


class _Transactions:
    def __init__(self, given: Given) -> None:
        self._given = given
        self._unanswered: dict[tuple[str, int, int], _Request] = {}
        self._groups = Groups(3)
        self._skipped = 0

    def take(self, events: Events, host: str) -> None:
        is_http = np.zeros(len(events.texts), bool)
        for row in np.unique(events["data"]).tolist():
            data = events.texts[row]
            is_http[row] = bool(_REQUEST.match(data) or _RESPONSE.match(data))
        pids, times = events.of_process("pid"), finished(events)
        found: list[tuple[Key, tuple[int, int, int]]] = []
        for i in np.flatnonzero(is_http[events["data"]]).tolist():
            end = host, int(pids[i]), int(events["fd"][i])
            data, time_ns = events.texts[events["data"][i]], int(times[i])
            if _RESPONSE.match(data) and end in self._unanswered:
                request = self._unanswered.pop(end)
                found.append((request.key, (1, _length(data), time_ns - request.time_ns)))
            elif end not in self._unanswered and _REQUEST.match(data):
                self._ask(end, _Request(self._key(data, host), time_ns))
        if found:
            values = np.array([measured for _, measured in found], np.int64)
            self._groups.add(np.arange(len(found)), [key for key, _ in found], list(values.T))

    def _ask(self, end: tuple[str, int, int], request: _Request) -> None:
        if len(self._unanswered) < MOST_UNANSWERED:
            self._unanswered[end] = request
        else:
            self._skipped += 1

    def _key(self, data: bytes, host: str) -> Key:
        request, named = _REQUEST.match(data), _HOST.search(data)
        method, path = request.groups() if request else (b"", b"")
        start = (host,) if self._given.per_host else ()
        return (*start, text(method), text(named[1] if named else b"") + text(path))

    def result(self) -> Table:
        host = (Heading("host"),) if self._given.per_host else ()
        table = self._groups.table((*host, *_HEADINGS), 0)
        by = _COLUMNS.index(self._given.text("by"))
        ordered = sorted(table.rows, key=lambda row: (-_shown(row)[by], str(row)))
        top = self._given.number("top") or len(ordered)
        left = [*ordered[top:], *((table.other,) if table.other else ())]
        total = tuple(sum(each) for each in zip(*map(_totals, left), strict=True))
        other: Row | None = (OTHER, *(None for _ in host), None, *total) if left else None
        rows = tuple((*row[:-3], *_shown(row)) for row in ordered[:top])
        return Table(
            table.headings, rows, other and (*other[:-3], *_shown(other)), self._notes(table)
        )

    def _notes(self, table: Table) -> tuple[str, ...]:
        if not self._skipped:
            return table.notes
        skipped = f"{self._skipped} requests were skipped: too many had no answer yet"
        return (*table.notes, skipped)


def _length(response: bytes) -> int:
    found = _LENGTH.search(response)
    return int(found[1]) if found else 0


def _totals(row: Row) -> tuple[int, ...]:
    return tuple(cell for cell in row[-3:] if isinstance(cell, int))


def _shown(row: Row) -> tuple[int, ...]:
    """The numbers of a row, with the mean time in place of the sum."""
    count, size, time_ns = _totals(row)
    return count, size, time_ns // count


CHISEL = Chisel(
    "httptop",
    Category.APPLICATION,
    "HTTP requests by number, bytes of the answers, or mean time",
    _Transactions,
    "Requests and answers are read from the first bytes of what is sent and received as text. "
    "Bytes are what Content-Length says. A request that two traced processes see counts twice.",
    filter="evt.is_io=true and evt.buflen > 0 and fd.sockfamily in (ip, unix)",
    arguments=(
        Argument("by", Kind.CHOICE, "what to sort by", "ncalls", _COLUMNS),
        top_argument(30),
    ),
    needs=Need.DATA,
)
