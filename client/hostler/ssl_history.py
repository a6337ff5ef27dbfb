"""Scans of TLS endpoints: where they are kept, so that what has changed can be told.

SQLite at ~/.local/state/hostler/ssl.sqlite by default, PostgreSQL by URL.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hostler.config import HostlerError
from hostler.runs import default_path
from hostler.store import Store

_MOST_OF_ONE = 200
_MOST_ENDPOINTS = 100_000


class HistoryError(HostlerError):
    """A store of scans cannot be read or written, or has not what is asked for."""


@dataclass(frozen=True, slots=True)
class Key:
    """What was scanned: `endpoint` is HOST:PORT."""

    endpoint: str
    name: str = ""
    starttls: str = ""


@dataclass(frozen=True, slots=True)
class Stored:
    """A scan as it was stored; `time` in ns since 1970."""

    key: Key
    time: int
    result: Mapping[str, Any]


def default_url() -> str:
    """The URL of the default store."""
    return f"sqlite:///{default_path().with_name('ssl.sqlite')}"


def open_history(url: str = "") -> History:
    """Open a store, making it if it is not there. Raises HistoryError."""
    from hostler.ssl_history_schema import VERSION, metadata, schema
    from hostler.store_engine import Kind, open_engine

    kind = Kind("scans", metadata, schema, VERSION, HistoryError)
    return History(*open_engine(url or default_url(), kind))


class History(Store):
    """A store of scans. Blocking; safe to use from several threads and processes."""

    words = "scans"
    error = HistoryError

    def add(self, results: Sequence[Mapping[str, Any]]) -> None:
        """Store scans, all or none; of each endpoint the newest 200 are kept."""
        from sqlalchemy import delete, insert, select

        from hostler.ssl_history_schema import scans

        now = time.time_ns()
        rows = [_row(result, now) for result in results]
        if not rows:
            return
        with self.begin() as connection:
            connection.execute(insert(scans), rows)
            for row in rows:
                of_one = _of_one(Key(row["endpoint"], row["name"], row["starttls"]))
                kept = select(scans.c.id).where(*of_one).order_by(scans.c.id.desc())
                last = connection.execute(kept.offset(_MOST_OF_ONE).limit(1)).scalar()
                if last is not None:
                    connection.execute(delete(scans).where(*of_one, scans.c.id <= last))

    def endpoints(self) -> list[Key]:
        """What has been scanned, in order of their names."""
        from sqlalchemy import select

        from hostler.ssl_history_schema import scans

        columns = (scans.c.endpoint, scans.c.name, scans.c.starttls)
        query = select(*columns).distinct().order_by(*columns).limit(_MOST_ENDPOINTS)
        with self.begin(reading=True) as connection:
            return [Key(*row) for row in connection.execute(query)]

    def newest(self, key: Key, *, before: int | None = None, limit: int = 1) -> list[Stored]:
        """The newest scans of an endpoint, newest first; only those before a time in ns."""
        from sqlalchemy import select

        from hostler.ssl_history_schema import scans

        query = select(scans.c.time, scans.c.result).where(*_of_one(key))
        if before is not None:
            query = query.where(scans.c.time < before)
        query = query.order_by(scans.c.id.desc()).limit(limit)
        with self.begin(reading=True) as connection:
            rows = connection.execute(query).all()
        return [Stored(key, row.time, json.loads(row.result)) for row in rows]


def _of_one(key: Key) -> tuple[Any, ...]:
    from hostler.ssl_history_schema import scans

    return (
        scans.c.endpoint == key.endpoint,
        scans.c.name == key.name,
        scans.c.starttls == key.starttls,
    )


def _row(result: Mapping[str, Any], now: int) -> dict[str, Any]:
    grade = result.get("grade") or {}
    return {
        "endpoint": result["endpoint"],
        "name": result["name"],
        "starttls": result["starttls"],
        "time": now,
        "grade": grade.get("letter", ""),
        "result": json.dumps(result),
    }
