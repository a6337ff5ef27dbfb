"""The record of what was issued and revoked: SQLite, on disk before a certificate leaves.

Source: https://www.sqlite.org/pragma.html#pragma_synchronous; EXTRA syncs the folder too, so that
what was committed is there after a power cut.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MOST = 1000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS issued (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  body TEXT NOT NULL,
  issuer TEXT NOT NULL,
  serial TEXT NOT NULL UNIQUE,
  profile TEXT NOT NULL,
  requester TEXT NOT NULL,
  spki TEXT NOT NULL,
  der BLOB NOT NULL,
  issue_time INTEGER NOT NULL,
  not_after INTEGER NOT NULL,
  revoke_time INTEGER,
  reason TEXT
);
CREATE INDEX IF NOT EXISTS issued_spki ON issued (spki);
CREATE INDEX IF NOT EXISTS issued_revoked ON issued (revoke_time) WHERE revoke_time IS NOT NULL;
CREATE INDEX IF NOT EXISTS issued_not_after ON issued (not_after);
CREATE TABLE IF NOT EXISTS names (name TEXT NOT NULL, number INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS names_name ON names (name);
CREATE TABLE IF NOT EXISTS crl_numbers (issuer TEXT PRIMARY KEY, number INTEGER NOT NULL);
"""
_COLUMNS = (
    "number, id, body, issuer, serial, profile, requester, spki, der, issue_time, not_after,"
    " revoke_time, reason"
)


@dataclass(frozen=True, slots=True)
class Row:
    """One certificate that was issued. Times are seconds of Unix time; serial and hashes hex."""

    number: int
    id: str
    body: str
    issuer: str
    serial: str
    profile: str
    requester: str
    spki: str
    der: bytes
    issue_time: int
    not_after: int
    revoke_time: int | None = None
    reason: str | None = None


class Record:
    """The record in a file. Its users take turns; see `files.locked`."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = DELETE")
        self._db.execute("PRAGMA synchronous = EXTRA")
        self._db.executescript(_SCHEMA)
        path.chmod(0o600)
        self._path = path
        self._inode = path.stat().st_ino

    @property
    def is_gone(self) -> bool:
        """Whether another file has taken its place, or none: a restore has put one there."""
        try:
            return self._path.stat().st_ino != self._inode
        except FileNotFoundError:
            return True

    def close(self) -> None:
        """Let the file go."""
        self._db.close()

    def add(self, row: Row, names: Sequence[str]) -> None:
        """Have a certificate on disk; its number is drawn here. Raises sqlite3.Error."""
        marks = ", ".join("?" * 10)
        with self._transaction():
            cursor = self._db.execute(
                "INSERT INTO issued (id, body, issuer, serial, profile, requester, spki, der,"  # noqa: S608
                f" issue_time, not_after) VALUES ({marks})",
                (
                    *(row.id, row.body, row.issuer, row.serial, row.profile, row.requester),
                    *(row.spki, row.der, row.issue_time, row.not_after),
                ),
            )
            rows = [(name, cursor.lastrowid) for name in names]
            self._db.executemany("INSERT INTO names VALUES (?, ?)", rows)

    def by_id(self, issue_id: str) -> Row | None:
        """The certificate that was issued under an id."""
        return self._one("id = ?", issue_id)

    def by_serial(self, serial: str) -> Row | None:
        """The certificate of a serial number."""
        return self._one("serial = ?", serial)

    def revoke(self, serial: str, time: int, reason: str) -> None:
        """Have it on disk that a certificate is revoked."""
        with self._transaction():
            self._db.execute(
                "UPDATE issued SET revoke_time = ?, reason = ? WHERE serial = ?",
                (time, reason, serial),
            )

    def revoked(self, issuer: str, ended_after: int) -> list[Row]:
        """What is revoked of an issuer and has not ended before a time."""
        where = "issuer = ? AND revoke_time IS NOT NULL AND not_after >= ?"
        return self._rows(where, (issuer, ended_after))

    def living(self, issuer: str, now: int) -> Iterator[tuple[str, int | None, str | None]]:
        """Serial number, time and reason of its revocation, of all that have not ended."""
        yield from self._db.execute(
            "SELECT serial, revoke_time, reason FROM issued WHERE issuer = ? AND not_after >= ?",
            (issuer, now),
        )

    def page(
        self, *, before: int = 0, most: int = MOST, spki: str = "", name: str = "", revoked: bool
    ) -> list[Row]:
        """The newest, at most so many of them, with numbers below `before` if that is not 0."""
        where, values = ["1"], list[Any]()
        for condition, value in (("number < ?", before), ("spki = ?", spki)):
            if value:
                where.append(condition)
                values.append(value)
        if name:
            where.append("number IN (SELECT number FROM names WHERE name = ?)")
            values.append(name)
        if revoked:
            where.append("revoke_time IS NOT NULL")
        ordered = f"{' AND '.join(where)} ORDER BY number DESC LIMIT ?"
        return self._rows(ordered, (*values, min(most, MOST)))

    def counts(self, now: int) -> tuple[int, int]:
        """How many have not ended, and how many of those are revoked."""
        query = "SELECT count(*), count(revoke_time) FROM issued WHERE not_after >= ?"
        issued, revoked = self._db.execute(query, (now,)).fetchone()
        return int(issued), int(revoked)

    def next_crl_number(self, issuer: str) -> int:
        """Draw the number of the next CRL: greater than any before. RFC 5280, 5.2.3."""
        with self._transaction():
            (number,) = self._db.execute(
                "INSERT INTO crl_numbers VALUES (?, 1) ON CONFLICT (issuer)"
                " DO UPDATE SET number = number + 1 RETURNING number",
                (issuer,),
            ).fetchone()
        return int(number)

    def _one(self, where: str, *values: Any) -> Row | None:
        return next(iter(self._rows(where, values)), None)

    def _rows(self, where: str, values: Sequence[Any]) -> list[Row]:
        query = f"SELECT {_COLUMNS} FROM issued WHERE {where}"  # noqa: S608 - words of ours alone
        return [Row(*row) for row in self._db.execute(query, values)]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
