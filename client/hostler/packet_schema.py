"""The tables of collected packet logs, in SQLite or PostgreSQL.

Times are nanoseconds since 1970, UTC: of records there are many millions. A reader is what a daemon
calls its reading of the kernel's log; its records are counted from 1, so that a reader and a number
name a record, and one that comes twice is stored once.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

VERSION = 1

metadata = MetaData()

# A name of its own: one PostgreSQL database may hold run records too.
schema = Table(
    "packet_schema_version",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
)

# How far each reader has been collected. `last_seq` is written with the records up to it, or not at
# all. `stored` counts what was stored in all, `expired` what retention has taken of it, `unwanted`
# what no filter wanted; `lost` is what the daemon says, `lost_at_socket` a part of it.
readers = Table(
    "packet_readers",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("host", String(253), nullable=False),
    Column("reader", Text, nullable=False),
    Column("last_seq", BigInteger, nullable=False, default=0),
    Column("stored", BigInteger, nullable=False, default=0),
    Column("unwanted", BigInteger, nullable=False, default=0),
    Column("expired", BigInteger, nullable=False, default=0),
    Column("lost", BigInteger, nullable=False, default=0),
    Column("lost_at_socket", BigInteger, nullable=False, default=0),
    Column("begun", BigInteger, nullable=False),
    Column("told", BigInteger, nullable=False),
    UniqueConstraint("host", "reader", name="packet_readers_of_host"),
)

packets = Table(
    "packets",
    metadata,
    # No foreign key: it would be looked up for every row.
    Column("reader_id", Integer, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("time", BigInteger, nullable=False),
    Column("rule", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("in_ifname", Text, nullable=False),
    Column("out_ifname", Text, nullable=False),
    Column("physin_ifname", Text, nullable=False),
    Column("physout_ifname", Text, nullable=False),
    Column("source_mac", Text, nullable=False),
    Column("destination_mac", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("destination", Text, nullable=False),
    Column("protocol_number", Integer, nullable=False),
    Column("source_port", Integer, nullable=False),
    Column("destination_port", Integer, nullable=False),
    Column("length_bytes", BigInteger, nullable=False),
    Column("tcp_flags", Integer, nullable=False),
    Column("connection_state", Integer, nullable=False),
    Column("mark", BigInteger, nullable=False),
    Column("ether_type", Integer, nullable=False),
    Index("packets_by_time", "time"),
    # Rows lie in the order of their key: half the pages of a table with an index beside it.
    sqlite_with_rowid=False,
)

# What a daemon says is missing: so many records after one number and up to another. A later one may
# take back, with a negative number, what was told too much at its socket: sums are right.
gaps = Table(
    "packet_gaps",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("reader_id", ForeignKey("packet_readers.id"), nullable=False),
    Column("after_seq", BigInteger, nullable=False),
    Column("until_seq", BigInteger, nullable=False),
    Column("lost", BigInteger, nullable=False),
    Column("lost_at_socket", BigInteger, nullable=False),
    Column("time", BigInteger, nullable=False, index=True),
)

# Which records are wanted, and since when: a record is stored if one filter that is in force holds
# for it, or if there is none. `added` and `removed` are when that was asked for, `in_force` and
# `out_of_force` when a collector did it. A row stays when its filter is removed.
filters = Table(
    "packet_filters",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(64), nullable=False),
    Column("expression", Text, nullable=False),
    Column("added", BigInteger, nullable=False),
    Column("in_force", BigInteger),
    Column("removed", BigInteger),
    Column("out_of_force", BigInteger),
)
