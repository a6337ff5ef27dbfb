"""Storing packet logs: the collector's writer beside bare executemany of the same rows.

Ours is given answers as a daemon sends them and filters, converts and stores them; the peer is
given rows and does nothing but insert them, in transactions of the same size.
"""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import collect_whole
import daemon
from report import Row
from rounds import in_turn

from hostler.packet_retention import Retention
from hostler.packet_row import COLUMNS, row_of
from hostler.packet_store import open_packets
from hostler.packet_writer import Batch, PacketWriter
from hostler.packets import FOLLOW

RECORDS = 100_000
AT_ONCE = 250
TRANSACTION = 5_000
ROUNDS = 5
BUDGET_S = 60.0
_INSERT = f"INSERT INTO packets VALUES ({', '.join('?' * len(COLUMNS))})"  # noqa: S608 - no value


def rows() -> list[Row]:
    """Measure SQLite, and PostgreSQL where it is. The target, 50 µs, is 20,000 records a second."""
    answers = _answers()
    with daemon.folder() as folder:
        found = in_turn(
            {
                "ours": lambda: _ours(f"sqlite:///{_new(folder)}", answers),
                "peer": lambda: _bare_sqlite(folder, answers),
            },
            ROUNDS,
            BUDGET_S,
        )
        ours, peer = tuple(found["ours"]), tuple(found["peer"])
    told = [
        Row("collect", "µs a record, SQLite", tuple(1e6 / each for each in ours), target=50.0),
        Row("collect", "records/s, SQLite", ours, peer, "bare sqlite3 executemany"),
    ]
    return told + _postgresql_rows(answers) + collect_whole.rows()


def _postgresql_rows(answers: Sequence[Any]) -> list[Row]:
    sys.path.append(str(Path(__file__).parents[1] / "client_support"))
    import postgresql
    from packets_world import new_database

    if postgresql.programs() is None:
        return []
    with postgresql.cluster() as server, daemon.folder() as folder:
        found = in_turn(
            {
                "ours": lambda: _ours(new_database(server), answers),
                "peer": lambda: _bare_sqlite(folder, answers),
            },
            ROUNDS,
            BUDGET_S,
        )
    ours, peer = tuple(found["ours"]), tuple(found["peer"])
    return [Row("collect", "records/s, PostgreSQL", ours, peer, "bare sqlite3 executemany")]


def _answers() -> list[Any]:
    sys.path.append(str(Path(__file__).parents[1] / "client_support"))
    from client_packets import made_records

    records = made_records(RECORDS, 1)
    parts = (records[at : at + AT_ONCE] for at in range(0, RECORDS, AT_ONCE))
    whole = [FOLLOW.response_type(reader="r", records=p, seq=p[-1].seq) for p in parts]
    return [each.SerializeToString() for each in whole]


def _new(folder: Path) -> Path:
    return folder / f"{time.monotonic_ns()}.sqlite"


def _ours(url: str, answers: Sequence[Any]) -> float:
    """Records a second, from the wire's bytes to what is committed."""
    with open_packets(url) as store:
        writer = PacketWriter(store, Retention(), lambda _: None)
        with _timed() as spent_s:
            writer.start()
            for answer in answers:
                while not writer.has_room:
                    time.sleep(0.002)
                writer.offer(Batch("h", FOLLOW.response_type.FromString(answer)))
            if not writer.end(120.0) or writer.totals.stored != RECORDS:
                raise RuntimeError(f"{writer.totals.stored} stored: {writer.failure}")
        return RECORDS / spent_s()


def _bare_sqlite(folder: Path, answers: Sequence[Any]) -> float:
    """Records a second of rows that are there already, into the same tables."""
    path = _new(folder)
    with open_packets(f"sqlite:///{path}"):
        pass
    decoded = (FOLLOW.response_type.FromString(answer) for answer in answers)
    made = [row_of(1, record) for answer in decoded for record in answer.records]
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = NORMAL")
    with _timed() as spent_s:
        for at in range(0, RECORDS, TRANSACTION):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(_INSERT, made[at : at + TRANSACTION])
            connection.execute("COMMIT")
    connection.close()
    return RECORDS / spent_s()


@contextmanager
def _timed() -> Iterator[Callable[[], float]]:
    """Give what answers how many seconds the block took, once it has ended."""
    start, end = time.perf_counter(), [0.0]
    yield lambda: end[0] - start
    end[0] = time.perf_counter()
