"""The tables of stored scans, in SQLite or PostgreSQL. Times are nanoseconds since 1970, UTC."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, String, Table, Text

VERSION = 1

metadata = MetaData()

# A name of its own: one PostgreSQL database may hold other records of ours too.
schema = Table(
    "ssl_schema_version",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
)

# What was asked of whom, and all that was found, as JSON.
scans = Table(
    "ssl_scans",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("endpoint", String(300), nullable=False),
    Column("name", String(253), nullable=False),
    Column("starttls", String(16), nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("grade", String(2), nullable=False),
    Column("result", Text, nullable=False),
    Index("ssl_scans_of_endpoint", "endpoint", "name", "starttls", "id"),
)
