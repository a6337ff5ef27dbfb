"""Decisions to keep certificates whose keys others may know: why, whose, and until when.

SQLite at ~/.local/state/hostler/ssl-decisions.sqlite by default, PostgreSQL by URL. Decisions are
added and never changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hostler.config import HostlerError
from hostler.core.ssl.compromise import Decision, Way
from hostler.runs import default_path
from hostler.store import Store

# As many variables as every SQLite takes in a statement.
_MOST_AT_ONCE = 500


class DecisionsError(HostlerError):
    """A store of decisions cannot be read or written."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A decision as it was recorded: who made it, and when."""

    decision: Decision
    who: str
    time: datetime

    def is_overdue(self, now: datetime) -> bool:
        """Whether it was to be looked at again before now."""
        return self.decision.review is not None and self.decision.review <= now

    def as_dict(self, now: datetime) -> dict[str, Any]:
        """As JSON has it."""
        review = self.decision.review
        return {
            "way": self.decision.way.value,
            "reason": self.decision.reason,
            "owner": self.decision.owner,
            "review": review and review.isoformat(),
            "overdue": self.is_overdue(now),
            "who": self.who,
            "time": self.time.isoformat(),
        }


def default_place() -> Path:
    """The file of the default store."""
    return default_path().with_name("ssl-decisions.sqlite")


def open_decisions(url: str = "") -> Decisions:
    """Open a store, making it if it is not there. Raises DecisionsError."""
    from hostler.ssl_decisions_schema import VERSION, metadata, schema
    from hostler.store_engine import Kind, open_engine

    kind = Kind("decisions", metadata, schema, VERSION, DecisionsError)
    return Decisions(*open_engine(url or f"sqlite:///{default_place()}", kind))


class Decisions(Store):
    """A store of decisions. Blocking; safe to use from several threads and processes."""

    words = "decisions"
    error = DecisionsError

    def add(self, decisions: Sequence[Decision], who: str) -> None:
        """Record decisions, all or none. They are checked by who made them: `Decision.check`."""
        from sqlalchemy import insert

        from hostler.ssl_decisions_schema import decisions as table

        now = datetime.now(UTC).isoformat()
        rows = [
            {
                "fingerprint": each.fingerprint,
                "time": now,
                "who": who,
                "way": each.way.value,
                "reason": each.reason,
                "owner": each.owner,
                "review": each.review.isoformat() if each.review else "",
            }
            for each in decisions
        ]
        if rows:
            with self.begin() as connection:
                connection.execute(insert(table), rows)

    def newest(self, fingerprints: Sequence[str]) -> Mapping[str, Recorded]:
        """What was decided last about certificates, by fingerprint; those without are left out."""
        from sqlalchemy import func, select

        from hostler.ssl_decisions_schema import decisions as table

        found: dict[str, Recorded] = {}
        with self.begin(reading=True) as connection:
            for start in range(0, len(fingerprints), _MOST_AT_ONCE):
                some = fingerprints[start : start + _MOST_AT_ONCE]
                last = select(func.max(table.c.id)).where(table.c.fingerprint.in_(some))
                last = last.group_by(table.c.fingerprint)
                for row in connection.execute(select(table).where(table.c.id.in_(last))):
                    found[row.fingerprint] = _recorded(row)
        return found


def _recorded(row: Any) -> Recorded:
    review = datetime.fromisoformat(row.review) if row.review else None
    decision = Decision(row.fingerprint, Way(row.way), row.reason, row.owner, review)
    return Recorded(decision, row.who, datetime.fromisoformat(row.time))
