"""Opening a database of ours: SQLite with a file of our own, or PostgreSQL."""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine, event, insert, inspect, make_url, select, text
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine, MetaData, Table

    from hostler.config import HostlerError

READING = "hostler_reading"
"""The execution option of a transaction that only reads."""
_BUSY_S = 30.0
_CONNECT_S = 10
# Any number, as long as every client takes the same one. Source: pg_advisory_xact_lock.
_ADVISORY_LOCK = 0x686F73746C6572


@dataclass(frozen=True, slots=True)
class Kind:
    """What a database holds: in words, its tables, the one that has their version, the error.

    `synchronous` is SQLite's: FULL has what was written down there after a power cut too, NORMAL
    may then have lost the newest transactions, each as a whole.
    """

    words: str
    metadata: MetaData
    schema: Table
    version: int
    error: type[HostlerError]
    synchronous: str = "FULL"


def open_engine(url: str, kind: Kind) -> tuple[Engine, str]:
    """Open a database and see to its tables; answer it, and how people call it.

    Raises the error of its kind: not such a URL, cannot be opened, or made by a newer version.
    """
    parsed = _parse(url, kind)
    place = parsed.render_as_string(hide_password=True)
    try:
        if parsed.get_backend_name() == "sqlite":
            place = str(parsed.database)
            engine = _sqlite(parsed, kind)
        else:
            engine = _postgresql(parsed)
        _see_to_tables(engine, place, kind)
    except ModuleNotFoundError as error:
        message = (
            f"{kind.words} at {place}: {error.name} is missing: pip install hostler[postgresql]"
        )
        raise kind.error(message) from error
    except OSError as error:
        raise kind.error(f"{kind.words} at {place}: {error.strerror}") from error
    except SQLAlchemyError as error:
        raise kind.error(f"{kind.words} at {place}: {cause_of(error)}") from error
    return engine, place


@contextmanager
def transaction(
    engine: Engine, place: str, error_type: type[HostlerError], *, reading: bool = False
) -> Iterator[Connection]:
    """A transaction. Raises the error with where it was, instead of the database's errors."""
    options: dict[str, Any] = {READING: reading}
    driver: Any = engine.dialect.dbapi
    try:
        with engine.connect().execution_options(**options) as connection:
            with connection.begin():
                yield connection
    except (SQLAlchemyError, driver.Error) as error:
        # The driver's own errors are those of statements that went past SQLAlchemy.
        raise error_type(f"{place}: {cause_of(error)}") from error


def cause_of(error: Exception) -> str:
    """The database's own words, without the statement and its values."""
    return str(getattr(error, "orig", None) or error).strip().splitlines()[0]


def _parse(url: str, kind: Kind) -> URL:
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        # Not told in its own words: they may hold a password.
        raise kind.error(f"the URL of {kind.words} cannot be read") from error
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if backend == "sqlite" and parsed.database:
        return parsed.set(drivername="sqlite+pysqlite")
    raise kind.error(f"the URL of {kind.words} must begin with sqlite:/// or postgresql://")


def _postgresql(url: URL) -> Engine:
    options = {"connect_timeout": _CONNECT_S, "application_name": "hostler"}
    # A run may pause for longer than its server, or a firewall between, keeps a connection.
    return create_engine(url, connect_args=options, pool_pre_ping=True)


def _sqlite(url: URL, kind: Kind) -> Engine:
    path = Path(str(url.database))
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _make(path, kind)
    options = {"timeout": _BUSY_S, "isolation_level": None}
    engine = create_engine(url, connect_args=options)

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        _switch_to_wal(connection)
        for pragma in (f"synchronous = {kind.synchronous}", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        # A transaction that began as a reader could not write while another one does.
        reads = connection.get_execution_options().get(READING)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def _make(path: Path, kind: Kind) -> None:
    """Make the file for its owner alone; SQLite would go by the umask, and makes its WAL alike."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise kind.error(f"{kind.words} at {path}: not a file")
        if status.st_uid == os.geteuid() and status.st_mode & 0o077:
            os.fchmod(handle, 0o600)
    finally:
        os.close(handle)


def _switch_to_wal(connection: Any) -> None:
    """Have readers and one writer work at once. Another that switches is not waited for by SQLite.

    Where there is no shared memory, as on NFS, the database stays as it is, which is slower only.
    """
    give_up = time.monotonic() + _BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                raise
            time.sleep(0.05)
        else:
            return


def _see_to_tables(engine: Engine, place: str, kind: Kind) -> None:
    with engine.connect().execution_options(**{READING: True}) as connection:
        with connection.begin():
            found = _version(connection, kind)
    if found == 0:
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                # Two that make the tables at once would both find none.
                lock = text("SELECT pg_advisory_xact_lock(:key)")
                connection.execute(lock, {"key": _ADVISORY_LOCK})
            if not (found := _version(connection, kind)):
                kind.metadata.create_all(connection)
                connection.execute(insert(kind.schema).values(version=kind.version))
                found = kind.version
    if found > kind.version:
        raise kind.error(
            f"{kind.words} at {place} are of version {found}, made by a newer hostler; "
            f"this one knows version {kind.version}"
        )


def _version(connection: Connection, kind: Kind) -> int:
    """The version of the tables, 0 if there are none."""
    if not inspect(connection).has_table(kind.schema.name):
        return 0
    return connection.execute(select(kind.schema.c.version)).scalar() or 0
