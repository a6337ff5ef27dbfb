"""What a store of packet logs has seen: who, where to, by which rule, and when; by SQL."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from hostler.core.packet_filter import compile_filter
from hostler.packet_row import protocol

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row, Select

    from hostler.packet_store import PacketStore

HOUR_NS = 3600 * 10**9
MOST_HOURS = 24 * 366
TOP = 10
_AT_ONCE = 10_000

Key = tuple[Any, ...]

# What is counted: the columns that are equal within a line of each table.
_SORTS: Mapping[str, tuple[str, ...]] = {
    "sources": ("source",),
    "destinations": ("destination",),
    "ports": ("protocol_number", "destination_port"),
    "rules": ("rule", "action"),
    "actions": ("action",),
    "hosts": ("host",),
}


@dataclass(frozen=True, slots=True)
class Loss:
    """What a host says was lost of its log in the time of the report."""

    host: str
    lost: int
    lost_at_socket: int


@dataclass(frozen=True, slots=True)
class Report:
    """Counts of records from `since` to `until`, ns since 1970; tables have the most first.

    `hours` has every hour from the first to the last with a record, by its start, and the records
    of each action in it. `unwanted` is what no filter wanted since the store was made.
    """

    place: str
    where: str
    since: int
    until: int
    records: int
    first: int | None
    last: int | None
    tables: Mapping[str, Sequence[tuple[str, int]]]
    hours: Sequence[tuple[int, Mapping[str, int]]]
    losses: Sequence[Loss]
    unwanted: int

    @property
    def lost(self) -> int:
        """How many were lost in all."""
        return sum(each.lost for each in self.losses)


def make_report(store: PacketStore, since_ns: int = 0, where: str = "", top: int = TOP) -> Report:
    """Count what is stored. Raises WhereInvalid, PacketStoreError."""
    from hostler.packets import compile_where

    # Asked first: what is wrong with it is told before millions of rows are read.
    compile_where(where)
    until = time.time_ns()
    with store.begin(reading=True) as connection:
        if where.strip():
            counts, hours, span = _counted_here(connection, since_ns, where)
        else:
            counts, hours, span = _counted_there(connection, since_ns, top)
        losses = _losses(connection, since_ns)
        unwanted = _unwanted(connection)
    return Report(
        place=store.place,
        where=where.strip(),
        since=since_ns,
        until=until,
        records=sum(sum(each.values()) for each in hours.values()),
        first=span[0],
        last=span[1],
        tables={name: _most(found, top) for name, found in counts.items()},
        hours=_every_hour(hours),
        losses=losses,
        unwanted=unwanted,
    )


Counted = tuple[
    Mapping[str, Mapping[str, int]], Mapping[int, Mapping[str, int]], tuple[int | None, int | None]
]


def _counted_there(connection: Connection, since_ns: int, top: int) -> Counted:
    """Count by SQL."""
    from sqlalchemy import func, select

    from hostler.packet_schema import packets, readers

    number = func.count().label("number")
    found: dict[str, dict[str, int]] = {}
    for name, columns in _SORTS.items():
        chosen = [readers.c.host if c == "host" else packets.c[c] for c in columns]
        query = select(*chosen, number).where(packets.c.time >= since_ns).group_by(*chosen)
        if name == "hosts":
            query = query.join_from(packets, readers, readers.c.id == packets.c.reader_id)
        query = query.order_by(number.desc(), *chosen)
        if name != "actions":
            query = query.limit(top)
        found[name] = {_words(name, row[:-1]): row.number for row in connection.execute(query)}
    hour = (packets.c.time // HOUR_NS).label("hour")
    query = select(hour, packets.c.action, number).where(packets.c.time >= since_ns)
    hours: dict[int, dict[str, int]] = {}
    for row in connection.execute(query.group_by(hour, packets.c.action)):
        hours.setdefault(int(row.hour), {})[row.action] = row.number
    ends = select(func.min(packets.c.time), func.max(packets.c.time))
    first, last = connection.execute(ends.where(packets.c.time >= since_ns)).one()
    return found, hours, (first, last)


def _counted_here(connection: Connection, since_ns: int, where: str) -> Counted:
    """Count rows that a filter holds for: the filter language is not SQL's."""
    from sqlalchemy import select

    from hostler.packet_schema import packets, readers

    holds = compile_filter(where, read_row)
    query = select(packets, readers.c.host).where(packets.c.time >= since_ns)
    query = query.join_from(packets, readers, readers.c.id == packets.c.reader_id)
    counts: dict[str, Counter[Key]] = {name: Counter() for name in _SORTS}
    hours: dict[int, Counter[str]] = {}
    first, last = None, None
    for row in _streamed(connection, query):
        if not holds(row):
            continue
        for name, columns in _SORTS.items():
            counts[name][tuple(getattr(row, column) for column in columns)] += 1
        hours.setdefault(row.time // HOUR_NS, Counter())[row.action] += 1
        first = row.time if first is None else min(first, row.time)
        last = row.time if last is None else max(last, row.time)
    found = {
        name: {_words(name, key): number for key, number in counter.items()}
        for name, counter in counts.items()
    }
    return found, hours, (first, last)


def _streamed(connection: Connection, query: Select[Any]) -> Any:
    """Rows in parts: millions of them are not to be had at once."""
    return connection.execution_options(yield_per=_AT_ONCE).execute(query)


def read_row(name: str) -> Callable[[Any], Any]:
    """Read a row of the store as compile_filter wants to: with the types of a PacketRecord."""
    if name in ("source", "destination"):
        return lambda row: _packed(getattr(row, name))
    if name in ("source_mac", "destination_mac"):
        return lambda row: bytes.fromhex(getattr(row, name).replace(":", ""))
    if name == "time_unix_ns":
        return lambda row: row.time
    return lambda row: getattr(row, name)


def _packed(address: str) -> bytes:
    try:
        return ip_address(address).packed
    except ValueError:
        return b""


def _words(name: str, key: Sequence[Any]) -> str:
    if name == "ports":
        number, port = key
        return f"{protocol(number)}/{port}" if port else protocol(number)
    if name == "rules":
        rule, action = key
        return _visible(f"{rule or '-'} ({action or '-'})")
    return _visible(str(key[0])) or "-"


def _visible(text: str) -> str:
    """Text of a host without what drives a terminal or turns the order of what is read."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _most(found: Mapping[str, int], top: int) -> list[tuple[str, int]]:
    return sorted(found.items(), key=lambda each: (-each[1], each[0]))[:top]


def _every_hour(hours: Mapping[int, Mapping[str, int]]) -> list[tuple[int, Mapping[str, int]]]:
    """Hours without a record too, but where a clock was wrong by years: then the newest that have.

    No host can make the table endless.
    """
    if not hours:
        return []
    first, last = min(hours), max(hours)
    if last - first >= MOST_HOURS:
        return [(hour * HOUR_NS, hours[hour]) for hour in sorted(hours)[-MOST_HOURS:]]
    return [(hour * HOUR_NS, hours.get(hour, {})) for hour in range(first, last + 1)]


def _losses(connection: Connection, since_ns: int) -> list[Loss]:
    from sqlalchemy import func, select

    from hostler.packet_schema import gaps, readers

    lost = func.sum(gaps.c.lost)
    query = (
        select(readers.c.host, lost, func.sum(gaps.c.lost_at_socket))
        .join_from(gaps, readers, readers.c.id == gaps.c.reader_id)
        .where(gaps.c.time >= since_ns)
        .group_by(readers.c.host)
        # What was told too much is taken back later, maybe all of it.
        .having(lost > 0)
        .order_by(lost.desc(), readers.c.host)
    )
    return [Loss(host, int(n), int(at_socket)) for host, n, at_socket in connection.execute(query)]


def _unwanted(connection: Connection) -> int:
    from sqlalchemy import func, select

    from hostler.packet_schema import readers

    query = select(func.coalesce(func.sum(readers.c.unwanted), 0))
    row: Row[Any] = connection.execute(query).one()
    return int(row[0])
