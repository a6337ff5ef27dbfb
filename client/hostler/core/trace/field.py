"""What a field of the filter language is. Pure; `hostler.core.trace.fields` lists them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Flag, StrEnum, auto

from hostler.core.trace.events import Events
from hostler.core.trace.values import Values


class Kind(StrEnum):
    """What a field's values are, and so which operators it has and how its values are written."""

    INTEGER = "integer"
    BOOL = "bool"
    DURATION = "duration"
    """Nanoseconds."""
    TIME = "time"
    """Nanoseconds since 1970, UTC."""
    PORT = "port"
    TEXT = "text"
    BYTES = "bytes"
    """A text whose bytes need not be readable."""
    ADDRESS = "address"
    """A packed IP address; compared with addresses and networks."""
    NEARNESS = "nearness"
    """Nanoseconds apart; `=` with a number of milliseconds holds for what is no farther apart."""


class Need(Flag):
    """What a trace must keep for a field to be there, which it keeps only if asked and allowed."""

    NOTHING = 0
    DATA = auto()
    CMDLINE = auto()
    ENVIRON = auto()


@dataclass(frozen=True, slots=True)
class Field:
    """A field: what it is called, and how it is read from a batch of events.

    Most have one value for each event. Those with several (`sides`), such as fd.ip, which is both
    ends' addresses, pass a test if any side does; `!=` if all do, or any, if `differs_in_any`.
    `is_costly` means that it is made anew for each event: tests of it come last. `objection` says
    why a value cannot be equal to any of the field, None if it can.
    """

    name: str
    kind: Kind
    meaning: str
    sides: Callable[[Events], tuple[Values, ...]]
    needs: Need = Need.NOTHING
    is_costly: bool = False
    has_sides: bool = False
    differs_in_any: bool = False
    objection: Callable[[str], str | None] | None = None

    def values(self, events: Events) -> Values:
        """The value for each event. Raises ValueError if this field has several."""
        if self.has_sides:
            raise ValueError(f"{self.name} has more than one value: it is good in filters alone")
        return self.sides(events)[0]


def single(
    name: str,
    kind: Kind,
    meaning: str,
    read: Callable[[Events], Values],
    *,
    needs: Need = Need.NOTHING,
    is_costly: bool = False,
    objection: Callable[[str], str | None] | None = None,
) -> Field:
    """A field with one value for each event."""
    return Field(
        name,
        kind,
        meaning,
        lambda events: (read(events),),
        needs,
        is_costly,
        objection=objection,
    )


def several(
    name: str,
    kind: Kind,
    meaning: str,
    sides: Callable[[Events], tuple[Values, ...]],
    *,
    differs_in_any: bool = False,
) -> Field:
    """A field with several values for each event."""
    return Field(name, kind, meaning, sides, has_sides=True, differs_in_any=differs_in_any)


class ArgumentInvalid(ValueError):
    """A field was asked for with an argument that it does not take, such as evt.arg.colour."""


@dataclass(frozen=True, slots=True)
class Family:
    """Fields that differ by an argument, as in evt.arg.flags or proc.apid[2].

    `make` answers the field of an argument. It raises ArgumentInvalid.
    """

    name: str
    argument: str
    kind: Kind
    meaning: str
    make: Callable[[str], Field]
