"""The tables of decisions about compromised keys, in SQLite or PostgreSQL. Times are UTC, ISO."""

from __future__ import annotations

from sqlalchemy import Column, Index, Integer, MetaData, String, Table, Text

VERSION = 1

metadata = MetaData()

# A name of its own: one PostgreSQL database may hold other records of ours too.
schema = Table(
    "ssl_decisions_schema_version",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
)

# One row for each decision, never changed: the newest of a certificate stands.
decisions = Table(
    "ssl_decisions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("fingerprint", String(64), nullable=False),
    Column("time", String(32), nullable=False),
    Column("who", Text, nullable=False),
    Column("way", String(32), nullable=False),
    Column("reason", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("review", String(32), nullable=False),
    Index("ssl_decisions_of_certificate", "fingerprint", "id"),
)
