"""Collected packet logs: where they are kept, and how far they have come.

SQLite at ~/.local/state/hostler/packets.sqlite by default, PostgreSQL by URL. Records and the
position after them are written in one transaction: a collector that is killed at any moment goes on
without a gap and without a double.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hostler.config import HostlerError
from hostler.packet_row import COLUMNS, Row
from hostler.runs import default_path
from hostler.store import Store

if TYPE_CHECKING:
    from sqlalchemy import Connection

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_LONGEST_EXPRESSION = 4096
_MOST_FILTERS = 100


class PacketStoreError(HostlerError):
    """A store of packet logs cannot be read or written, or does not say what is needed."""


class OtherCollector(PacketStoreError):
    """Another collector writes the records of the same host into the same store."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far a reader of a host has been stored."""

    id: int
    reader: str
    last_seq: int = 0
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Gap:
    """So many records are missing after one number and up to another; `time` in ns since 1970.

    Negative if an earlier gap has told too many.
    """

    after_seq: int
    until_seq: int
    lost: int
    lost_at_socket: int
    time: int


@dataclass(frozen=True, slots=True)
class Portion:
    """What comes next of a reader that is at `before`; its rows' numbers are above that one's."""

    host: str
    before: Position
    last_seq: int
    rows: Sequence[Row]
    gaps: Sequence[Gap] = ()
    unwanted: int = 0

    @property
    def after(self) -> Position:
        """Where the reader is once this is stored."""
        lost = self.before.lost + sum(gap.lost for gap in self.gaps)
        return Position(self.before.id, self.before.reader, self.last_seq, lost)


@dataclass(frozen=True, slots=True)
class NamedFilter:
    """Which records are wanted, and since when and until when; times in ns since 1970."""

    id: int
    name: str
    expression: str
    added: int
    in_force: int | None
    removed: int | None
    out_of_force: int | None


def default_url() -> str:
    """The URL of the default store."""
    return f"sqlite:///{default_path().with_name('packets.sqlite')}"


def open_packets(url: str = "") -> PacketStore:
    """Open a store, making it if it is not there. Raises PacketStoreError."""
    from hostler.packet_schema import VERSION, metadata, schema
    from hostler.store_engine import Kind, open_engine

    # A power cut may take the newest transactions as a whole, and then the position with them.
    kind = Kind("packet logs", metadata, schema, VERSION, PacketStoreError, synchronous="NORMAL")
    return PacketStore(*open_engine(url or default_url(), kind))


class PacketStore(Store):
    """A store of packet logs. Blocking; safe to use from several threads and processes."""

    words = "packet logs"
    error = PacketStoreError

    def newest(self, host: str) -> Position | None:
        """Where the host's newest reader is; None if nothing of it has been collected."""
        return self._position(host, None)

    def position(self, host: str, reader: str) -> Position:
        """Where a reader is; one that is not known is entered, at its start."""
        from sqlalchemy import insert

        from hostler.packet_schema import readers

        found = self._position(host, reader)
        if found is None:
            now = time.time_ns()
            entry = insert(readers).values(host=host, reader=reader, begun=now, told=now)
            with self.begin() as connection:
                key = connection.execute(entry.returning(readers.c.id)).scalar_one()
            found = Position(key, reader)
        return found

    def _position(self, host: str, reader: str | None) -> Position | None:
        from sqlalchemy import select

        from hostler.packet_schema import readers as table

        query = select(table).where(table.c.host == host).order_by(table.c.id.desc()).limit(1)
        if reader is not None:
            query = query.where(table.c.reader == reader)
        with self.begin(reading=True) as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else Position(row.id, row.reader, row.last_seq, row.lost)

    def write(self, portions: Sequence[Portion]) -> None:
        """Store portions, all or none, at most one of each reader.

        Raises OtherCollector if a reader is no longer where its portion begins.
        """
        from sqlalchemy import insert

        from hostler.packet_schema import gaps

        missing = [_gap_values(p, gap) for p in portions for gap in p.gaps]
        with self.begin() as connection:
            # In one order, or two collectors could wait for each other.
            for portion in sorted(portions, key=lambda each: each.before.id):
                _advance(connection, portion)
            _insert_rows(connection, portions)
            if missing:
                connection.execute(insert(gaps), missing)

    def add_filter(self, name: str, expression: str) -> None:
        """Have collectors store what a filter holds for. Raises PacketStoreError."""
        from sqlalchemy import insert

        from hostler.packet_schema import filters
        from hostler.packets import compile_where

        if _NAME.fullmatch(name) is None:
            raise PacketStoreError(
                "the name of a filter has 1 to 64 letters, digits, dots, dashes and underscores"
            )
        if not expression.strip() or len(expression) > _LONGEST_EXPRESSION:
            raise PacketStoreError(f"a filter has 1 to {_LONGEST_EXPRESSION} characters")
        compile_where(expression)
        with self.begin() as connection:
            _lock_filters(connection)
            there = [row.name for row in connection.execute(_in_force())]
            if name in there:
                raise PacketStoreError(f"there is a filter {name!r}: remove it first")
            if len(there) >= _MOST_FILTERS:
                raise PacketStoreError(f"there are {_MOST_FILTERS} filters, which is the most")
            values = {"name": name, "expression": expression, "added": time.time_ns()}
            connection.execute(insert(filters).values(**values))

    def remove_filter(self, name: str) -> None:
        """Have collectors use a filter no more. Raises PacketStoreError if there is none."""
        from sqlalchemy import update

        from hostler.packet_schema import filters as table

        query = update(table).where(table.c.name == name, table.c.removed.is_(None))
        with self.begin() as connection:
            if not connection.execute(query.values(removed=time.time_ns())).rowcount:
                raise PacketStoreError(f"there is no filter {name!r}")

    def filters(self, *, history: bool = False) -> list[NamedFilter]:
        """The filters that are asked for; with `history` also those that were removed."""
        from sqlalchemy import select

        from hostler.packet_schema import filters as table

        query = select(table).order_by(table.c.id) if history else _in_force()
        with self.begin(reading=True) as connection:
            return [NamedFilter(**row._mapping) for row in connection.execute(query)]

    def note_filters(self, begun: Sequence[int], ended: Sequence[int]) -> None:
        """Write down that a collector has begun and ended to use filters."""
        from sqlalchemy import update

        from hostler.packet_schema import filters as table

        now = time.time_ns()
        with self.begin() as connection:
            for ids, column in ((begun, table.c.in_force), (ended, table.c.out_of_force)):
                if ids:
                    query = update(table).where(table.c.id.in_(ids), column.is_(None))
                    connection.execute(query.values({column.name: now}))


def _in_force() -> Any:
    from sqlalchemy import select

    from hostler.packet_schema import filters as table

    return select(table).where(table.c.removed.is_(None)).order_by(table.c.id)


def _lock_filters(connection: Connection) -> None:
    """Let nobody add a filter until the end of the transaction; SQLite lets nobody anyway."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("LOCK TABLE packet_filters IN SHARE ROW EXCLUSIVE MODE")


def _gap_values(portion: Portion, gap: Gap) -> dict[str, int]:
    return {
        "reader_id": portion.before.id,
        "after_seq": gap.after_seq,
        "until_seq": gap.until_seq,
        "lost": gap.lost,
        "lost_at_socket": gap.lost_at_socket,
        "time": gap.time,
    }


def _advance(connection: Connection, portion: Portion) -> None:
    from sqlalchemy import update

    from hostler.packet_schema import readers as table

    before, after = portion.before, portion.after
    at_socket = sum(gap.lost_at_socket for gap in portion.gaps)
    done = connection.execute(
        update(table)
        .where(table.c.id == before.id, table.c.last_seq == before.last_seq)
        .where(table.c.lost == before.lost)
        .values(
            last_seq=after.last_seq,
            lost=after.lost,
            lost_at_socket=table.c.lost_at_socket + at_socket,
            stored=table.c.stored + len(portion.rows),
            unwanted=table.c.unwanted + portion.unwanted,
            told=time.time_ns(),
        )
    )
    if done.rowcount != 1:
        raise OtherCollector(
            f"another collector stores the packet log of {portion.host} in the same place"
        )


def _insert_rows(connection: Connection, portions: Sequence[Portion]) -> None:
    """Insert by the driver's own means: SQLAlchemy's take twice as long for so many rows."""
    driver: Any = connection.connection.driver_connection
    names = ", ".join(COLUMNS)
    if connection.dialect.name == "sqlite":
        marks = ", ".join("?" * len(COLUMNS))
        for portion in portions:
            driver.executemany(f"INSERT INTO packets ({names}) VALUES ({marks})", portion.rows)  # noqa: S608 - names of our own
        return
    with driver.cursor() as cursor, cursor.copy(f"COPY packets ({names}) FROM STDIN") as copy:
        for portion in portions:
            for row in portion.rows:
                copy.write_row(row)
