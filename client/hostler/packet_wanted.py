"""Which records a collector stores: the named filters of its store, as they come and go."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from hostler.packet_store import NamedFilter, PacketStore
from hostler.packets import WhereInvalid, compile_where

_EVERY_S = 1.0


class Wanted:
    """The filters in force. `holds` says whether a record is wanted; None if every one is.

    One that this version cannot read holds for everything: what was not stored is gone for good.
    """

    def __init__(self, store: PacketStore, say: Callable[[str], None]) -> None:
        self.holds: Callable[[Any], bool] | None = None
        self._store = store
        self._say = say
        self._named: dict[int, NamedFilter] = {}
        self._looked = 0.0

    def refresh(self) -> None:
        """Look for filters that were added or removed, once in a while."""
        now = time.monotonic()
        if self._looked and now - self._looked < _EVERY_S:
            return
        asked = {each.id: each for each in self._store.filters()}
        begun = [each for key, each in asked.items() if key not in self._named]
        ended = [each for key, each in self._named.items() if key not in asked]
        if begun or ended:
            self._store.note_filters([each.id for each in begun], [each.id for each in ended])
            self._named = asked
            self.holds = self._compiled()
        for each in begun:
            self._say(f"filter {each.name} is in force: {each.expression}")
        for each in ended:
            self._say(f"filter {each.name} is no longer in force")
        self._looked = now

    def _compiled(self) -> Callable[[Any], bool] | None:
        terms = []
        for each in self._named.values():
            try:
                terms.append(compile_where(each.expression))
            except WhereInvalid as error:
                self._say(f"filter {each.name} holds for everything: {error}")
                return None
        if not terms:
            return None
        if len(terms) == 1:
            return terms[0]
        return lambda record: any(term(record) for term in terms)
