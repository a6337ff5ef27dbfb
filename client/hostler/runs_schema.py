"""The tables of run records, in SQLite or PostgreSQL.

Times are text in UTC, so that they sort and can be read in any client of the database. Lists and
mappings are JSON text: nothing here is searched by what is inside them.
"""

from __future__ import annotations

from sqlalchemy import (
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

VERSION = 1

metadata = MetaData()

schema = Table(
    "schema_version", metadata, Column("version", Integer, primary_key=True, autoincrement=False)
)

runs = Table(
    "runs",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("started", String(27), nullable=False, index=True),
    Column("ended", String(27), nullable=False, default=""),
    Column("state", String(16), nullable=False),
    Column("why", Text, nullable=False, default=""),
    Column("who", Text, nullable=False, default=""),
    Column("context", Text, nullable=False, default=""),
    Column("argv", Text, nullable=False, default="[]"),
    Column("methods", Text, nullable=False, default="[]"),
    Column("selectors", Text, nullable=False, default="[]"),
    Column("options", Text, nullable=False, default="{}"),
    Column("version", Text, nullable=False, default=""),
    Column("kind", String(64), nullable=False, default=""),
    Column("not_recorded", Text, nullable=False, default=""),
    Column("holder", Text, nullable=False, default=""),
    Column("lease", Float, nullable=False, default=0.0),
    Column("resumed", Integer, nullable=False, default=0),
)

run_hosts = Table(
    "run_hosts",
    metadata,
    Column("run", String(36), ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("host", String(253), primary_key=True),
    Column("place", Integer, nullable=False),
    Column("wave", Integer, nullable=False, default=0),
    Column("state", String(16), nullable=False),
    Column("outcome", String(16), nullable=False, default=""),
    Column("plan_hash", String(64), nullable=False, default=""),
    Column("error", Text),
    Column("request_id", String(128), nullable=False, default=""),
    Column("group", String(36), nullable=False, default=""),
    Column("record", String(64), nullable=False, default=""),
    Column("attempts", Integer, nullable=False, default=0),
    Column("job", Text, nullable=False, default=""),
    Column("started", String(27), nullable=False, default=""),
    Column("ended", String(27), nullable=False, default=""),
)

plans = Table(
    "plans",
    metadata,
    Column("run", String(36), ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("hash", String(64), primary_key=True),
    Column("steps", Text, nullable=False),
    Column("warnings", Text, nullable=False, default="[]"),
)

# What rebuilds the change, once for all hosts that were asked for the same.
records = Table(
    "records",
    metadata,
    Column("run", String(36), ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("digest", String(64), primary_key=True),
    Column("record", Text, nullable=False),
)

# No foreign key: the newest of each log outlives its run, or a log could be cut unseen.
anchors = Table(
    "anchors",
    metadata,
    Column("run", String(36), primary_key=True),
    Column("host", String(253), primary_key=True),
    Column("domain", String(32), primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("head", String(64), nullable=False),
    Column("time", String(27), nullable=False),
    Index("anchors_of_log", "host", "domain", "seq"),
)
