"""What a chisel is: a canned analysis of a trace, described, with arguments. Pure.

A chisel is one file in `hostler.core.trace.chisels`, or in a folder of the user's, that has a
CHISEL. It works on a live trace, on a stored one, and on those of several hosts alike: started
with arguments, it is given the events batch by batch and asked for a result whenever one is
wanted. Most are sysdig's by name and meaning; a call is one event here, and two in sysdig.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeVar

from hostler.core.trace import fields
from hostler.core.trace.chisel_results import Result
from hostler.core.trace.events import Column, Events
from hostler.core.trace.field import Field, Need
from hostler.core.trace.filter import Filter, FilterInvalid, compile_filter
from hostler.core.trace.nearest import suggestion

MOST_MS = 86_400_000
"""The longest time that an argument may say: a day."""
MOST_NUMBER = 1_000_000


class ArgumentsInvalid(ValueError):
    """A chisel was given an argument that it does not take, or not one that it needs."""


class Category(StrEnum):
    """What a chisel is about."""

    APPLICATION = "application"
    CPU = "CPU usage"
    ERRORS = "errors"
    IO = "I/O"
    LOGS = "logs"
    MISC = "misc"
    NET = "net"
    PERFORMANCE = "performance"
    SECURITY = "security"
    STATE = "system state"


class Kind(StrEnum):
    """What an argument is."""

    TEXT = "text"
    NUMBER = "number"
    MILLISECONDS = "milliseconds"
    CHOICE = "choice"
    FIELD = "field"
    """A field of the filter language that has one value for each event."""
    FILTER = "filter"


Value = str | int | Field | Filter
_T = TypeVar("_T", str, int, Field, Filter)


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument of a chisel.

    `default` is written as a user would write it; without one the argument is required. `needs`
    is what the trace must keep if it is given.
    """

    name: str
    kind: Kind
    help: str
    default: str | None = None
    choices: tuple[str, ...] = ()
    needs: Need = Need.NOTHING

    def read(self, text: str) -> Value:
        """The value that a user wrote. Raises ArgumentsInvalid."""
        try:
            return self._read(text)
        except (FilterInvalid, fields.FieldUnknown) as e:
            raise ArgumentsInvalid(f"{self.name}: {e}") from e

    def _read(self, text: str) -> Value:
        if self.kind is Kind.FILTER:
            return compile_filter(text)
        if self.kind is Kind.FIELD:
            return self._field(text)
        if self.kind is Kind.NUMBER:
            return self._number(text, MOST_NUMBER)
        if self.kind is Kind.MILLISECONDS:
            return self._number(text, MOST_MS)
        if self.kind is Kind.CHOICE and text not in self.choices:
            raise ArgumentsInvalid(
                f"{self.name} is one of {', '.join(self.choices)}, not {text[:40]!r}"
                f"{suggestion(text, self.choices)}"
            )
        return text

    def _field(self, text: str) -> Field:
        field = fields.find(text)
        if field.has_sides:
            raise ArgumentsInvalid(
                f"{self.name}: {text} has several values for one event, which cannot be one group"
            )
        return field

    def _number(self, text: str, most: int) -> int:
        if not text.isascii() or not text.isdigit() or len(text) > 12 or int(text) > most:
            raise ArgumentsInvalid(
                f"{self.name} is a number of 0 to {most}, not {text[:40]!r}: {self.help}"
            )
        return int(text)


class State(Protocol):
    """A chisel at work."""

    def take(self, events: Events, host: str) -> None:
        """Look at a batch, of which only those events are left that the chisel's filter wants."""

    def result(self) -> Result:
        """Answer what is known so far; of lines and kept events, those that are new."""


@dataclass(frozen=True, slots=True)
class Selecting:
    """A chisel at work that hands on only some events, as its arguments say, to another."""

    wanted: Callable[[Events], Column]
    state: State

    def take(self, events: Events, host: str) -> None:
        """Look at a batch."""
        chosen = events.select(self.wanted(events))
        if len(chosen):
            self.state.take(chosen, host)

    def result(self) -> Result:
        """Answer what the other does."""
        return self.state.result()


@dataclass(frozen=True, slots=True)
class Given:
    """The arguments that a chisel was started with, and whether it keeps hosts apart."""

    values: Mapping[str, Value]
    per_host: bool = False

    def text(self, name: str) -> str:
        """A TEXT or CHOICE."""
        return self._of_type(name, str)

    def number(self, name: str) -> int:
        """A NUMBER."""
        return self._of_type(name, int)

    def nanoseconds(self, name: str) -> int:
        """A time given in MILLISECONDS."""
        return self._of_type(name, int) * 1_000_000

    def field(self, name: str) -> Field:
        """A FIELD."""
        return self._of_type(name, Field)

    def filter(self, name: str) -> Filter:
        """A FILTER."""
        return self._of_type(name, Filter)

    def _of_type(self, name: str, kind: type[_T]) -> _T:
        value = self.values[name]
        if not isinstance(value, kind):
            raise TypeError(f"argument {name} is no {kind.__name__}")
        return value


@dataclass(frozen=True, slots=True)
class Chisel:
    """A canned analysis.

    `summary` is one line, `description` what else is to be known before its numbers are believed.
    `filter` says which events it looks at, so that a trace need not bring others. `needs` is what
    the trace must keep beside the calls, which it does only for who may see it. `streams` says that
    it answers Lines or Kept, which are worth asking for after each batch; else one answer at the
    end has all.
    """

    name: str
    category: Category
    summary: str
    make: Callable[[Given], State]
    description: str = ""
    filter: str = ""
    arguments: tuple[Argument, ...] = ()
    needs: Need = Need.NOTHING
    streams: bool = False

    def start(self, given: Mapping[str, str], *, per_host: bool = False) -> Running:
        """Begin, with arguments as a user writes them. Raises ArgumentsInvalid.

        With `per_host` the answer tells hosts apart, without it sums them up.
        """
        known = {argument.name: argument for argument in self.arguments}
        for name in given:
            if name not in known:
                raise ArgumentsInvalid(f"{self.name} has no argument {name[:40]!r}{self._takes()}")
        values, needs = {}, self.needs
        for argument in self.arguments:
            text = given.get(argument.name, argument.default)
            if text is None:
                raise ArgumentsInvalid(f"{self.name} needs {argument.name}: {argument.help}")
            value = values[argument.name] = argument.read(text)
            needs |= argument.needs if argument.name in given else Need.NOTHING
            needs |= value.needs if isinstance(value, Field | Filter) else Need.NOTHING
        state = self.make(Given(values, per_host))
        return Running(self, needs, compile_filter(self.filter), state)

    def named(self, words: Iterable[str]) -> dict[str, str]:
        """Arguments by name: a word is NAME=VALUE, or the next argument's value.

        Raises ArgumentsInvalid.
        """
        names = [argument.name for argument in self.arguments]
        given: dict[str, str] = {}
        for word in words:
            name, equals, value = word.partition("=")
            if not equals or name not in names:
                # Filters have = as well.
                name = next((each for each in names if each not in given), "")
                value = word
            if not name or name in given:
                what = f"{name} twice" if name else f"one argument too many, {word[:40]!r}"
                raise ArgumentsInvalid(f"{self.name} was given {what}{self._takes()}")
            given[name] = value
        return given

    def _takes(self) -> str:
        names = ", ".join(argument.name for argument in self.arguments)
        return f"; it takes {names}" if names else "; it takes none"


@dataclass(frozen=True, slots=True)
class Running:
    """A chisel that was started. `needs` counts in what its arguments need."""

    chisel: Chisel
    needs: Need
    filter: Filter
    state: State

    def take(self, events: Events, host: str = "") -> None:
        """Look at a batch of a host's events."""
        if self.chisel.filter:
            events = events.select(self.filter.matches(events))
        if len(events):
            self.state.take(events, host)

    def result(self) -> Result:
        """Answer what is known so far; of lines and kept events, those that are new."""
        return self.state.result()
