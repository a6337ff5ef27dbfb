"""Retention of collected packet logs: the oldest records go first, in small transactions."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hostler.packet_store import PacketStore

_AT_ONCE = 5_000
_EVERY_S = 1.0


@dataclass
class Retention:
    """What is kept: records of the last `keep_s` seconds, at most `keep_records`; None for all.

    A record is as old as its host says.
    """

    keep_s: float | None = None
    keep_records: int | None = None
    _next: float = 0.0

    def step(self, store: PacketStore, most: int = 2 * _AT_ONCE) -> int:
        """Remove records that are too many, at most so many; answers how many.

        Looks once a second, or again at once while there is more to do.
        """
        if (self.keep_s is None and self.keep_records is None) or time.monotonic() < self._next:
            return 0
        gone = 0
        while gone < most:
            some = self._once(store)
            gone += some
            if some < _AT_ONCE:
                self._next = time.monotonic() + _EVERY_S
                break
        return gone

    def _once(self, store: PacketStore) -> int:
        from sqlalchemy import func, select

        from hostler.packet_schema import readers

        gone = 0
        if self.keep_s is not None:
            before = time.time_ns() - round(self.keep_s * 1e9)
            gone += _remove_oldest(store, _AT_ONCE, before)
        if self.keep_records is not None and gone < _AT_ONCE:
            query = select(func.coalesce(func.sum(readers.c.stored - readers.c.expired), 0))
            with store.begin(reading=True) as connection:
                kept = int(connection.execute(query).scalar_one())
            if kept > self.keep_records:
                gone += _remove_oldest(store, min(_AT_ONCE - gone, kept - self.keep_records))
        return gone


def _remove_oldest(store: PacketStore, most: int, before_ns: int | None = None) -> int:
    """Remove the oldest records, at most so many; answers how many."""
    from collections import Counter

    from sqlalchemy import delete, select, tuple_, update

    from hostler.packet_schema import packets, readers

    key = (packets.c.reader_id, packets.c.seq)
    oldest = select(*key).order_by(packets.c.time, *key).limit(most)
    if before_ns is not None:
        oldest = oldest.where(packets.c.time < before_ns)
    query = delete(packets).where(tuple_(*key).in_(oldest)).returning(packets.c.reader_id)
    with store.begin() as connection:
        gone = Counter(connection.execute(query).scalars())
        for reader, count in sorted(gone.items()):
            counted = update(readers).where(readers.c.id == reader)
            connection.execute(counted.values(expired=readers.c.expired + count))
    return sum(gone.values())
