"""How a host is, as far as its daemons could be asked. Pure.

What is None could not be asked or was refused; `notes` says why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

_DAY_S = 86400


class Level(StrEnum):
    """How a host is, in one word; the worst first."""

    DOWN = "down"
    """No door answers."""
    BAD = "bad"
    """Something is broken, differs from what was applied, or has ended."""
    ATTENTION = "attention"
    """Something waits for somebody, or will be bad."""
    WELL = "well"


@dataclass(frozen=True, slots=True)
class Waiting:
    """The pending group of a host: what is taken back unless it is confirmed."""

    group: str
    identity: str
    remaining_s: float
    changes: tuple[str, ...]
    reverting: bool = False


@dataclass(frozen=True, slots=True)
class Work:
    """A job that goes on. `total` is 0 while nobody knows it."""

    name: str
    what: str
    activity: str
    done: int
    total: int
    unit: str


@dataclass(frozen=True, slots=True)
class Ending:
    """A certificate that ends soon, or has ended."""

    subject: str
    place: str
    end_unix_s: int


@dataclass(frozen=True, slots=True)
class Dropping:
    """A rule that drops or rejects, and what it has counted."""

    rule: str
    packets: int


@dataclass(frozen=True, slots=True)
class HostStatus:
    """One host. `doors` has of each domain why its door does not answer, empty if it does."""

    host: str
    address: str = ""
    asked_unix_s: float = 0.0
    answered_unix_s: float = 0.0
    doors: Mapping[str, str] = field(default_factory=dict)
    version: str = ""
    waiting: Waiting | None = None
    jobs: tuple[Work, ...] | None = None
    drift: tuple[str, ...] | None = None
    health: tuple[str, ...] | None = None
    health_is_bad: bool = False
    ending: tuple[Ending, ...] | None = None
    drops: tuple[Dropping, ...] | None = None
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def is_asked(self) -> bool:
        """Whether an answer, or that there is none, is known by now."""
        return bool(self.doors)

    @property
    def level(self) -> Level:
        """How it is, in one word."""
        if self.doors and all(self.doors.values()):
            return Level.DOWN
        has_ended = any(each.end_unix_s <= self.asked_unix_s for each in self.ending or ())
        if self.drift or self.health_is_bad or has_ended or any(self.doors.values()):
            return Level.BAD
        if self.waiting or self.health or self.ending or self.problems:
            return Level.ATTENTION
        return Level.WELL

    def days_left(self, ending: Ending) -> int:
        """Whole days until a certificate ends, negative once it has."""
        return int((ending.end_unix_s - self.asked_unix_s) // _DAY_S)

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        ending = [{**asdict(each), "days_left": self.days_left(each)} for each in self.ending or ()]
        told = {**asdict(self), "doors": dict(self.doors), "level": str(self.level)}
        return {**told, "ending": None if self.ending is None else ending}


def summary(statuses: Iterable[HostStatus]) -> str:
    """The fleet in words: how many hosts there are, and how they are."""
    known = list(statuses)
    counts = Counter(each.level for each in known if each.is_asked)
    unasked = sum(not each.is_asked for each in known)
    parts = [f"{counts[level]} {level}" for level in Level if counts[level]]
    if unasked:
        parts.append(f"{unasked} not asked yet")
    return f"{len(known)} host{'' if len(known) == 1 else 's'}: {', '.join(parts) or 'none'}"


def worst_first(statuses: Iterable[HostStatus]) -> Sequence[HostStatus]:
    """In the order of their levels, and by name within one."""
    order = {level: number for number, level in enumerate(Level)}
    return sorted(statuses, key=lambda each: (order[each.level], each.host))
