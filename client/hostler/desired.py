"""Desired states written as TOML, turned into messages; every mistake named by its place.

Keys are the names of the protos. Enum values may leave out their prefix ("accept", "tcp"),
durations are written as "10s", a port range as 80 or "8000-8010", a moment as TOML writes it, with
its offset.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from hostler.config import ConfigError, parse_toml, read_text
from hostler.toml_places import Places, places

_MAX_PROBLEMS = 50
_RANGES = {
    "int32": (-(2**31), 2**31 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint32": (0, 2**32 - 1),
    "uint64": (0, 2**64 - 1),
}


@dataclass(frozen=True)
class Document:
    """A TOML file, what it says, and where in it."""

    path: Path
    text: str = field(repr=False)
    table: Mapping[str, Any] = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> Document:
        """Read a file of at most 16 MiB. Raises ConfigError that names it."""
        text = read_text(path)
        return cls(path, text, parse_toml(path, text))

    @cached_property
    def _places(self) -> Places:
        # Errors alone need it, and they are few.
        return places(self.text)

    def place(self, key_path: str) -> str:
        """FILE:LINE of a value, or of what would hold it."""
        return f"{self.path}:{self._places.line(key_path)}"


class Problems:
    """Collects what is wrong with one file. `named` says what a key path is in, such as a rule.

    A whole fault reads `FILE:LINE: rule ID: key path: what`.
    """

    def __init__(self, document: Document, named: Callable[[str], str] | None = None) -> None:
        self.document = document
        self._named = named or (lambda _: "")
        self._found: list[tuple[str, str]] = []

    def add(self, where: str, what: str) -> None:
        """Note that something is wrong at a key path."""
        self._found.append((where, what))

    def places(self) -> list[str]:
        """The key paths at which something is wrong."""
        return [where for where, _ in self._found]

    def words(self) -> list[str]:
        """What was noted, a line each."""
        kept = [
            ": ".join(filter(None, (self.document.place(where), self._named(where), where, what)))
            for where, what in self._found[:_MAX_PROBLEMS]
        ]
        if len(self._found) > len(kept):
            kept.append(f"{self.document.path}: … and {len(self._found) - len(kept)} more")
        return kept

    def check(self) -> None:
        """Raise one ConfigError with everything that was noted."""
        if self._found:
            raise ConfigError("\n".join(self.words()))


def load_message(path: Path, message: Any) -> Any:
    """Fill a message from a TOML file; answer it. Raises ConfigError that lists every mistake."""
    document = Document.read(path)
    problems = Problems(document)
    fill(message, document.table, problems)
    problems.check()
    return message


def fill(message: Any, table: Mapping[str, Any], problems: Problems) -> None:
    """Fill a message from a table; mistakes are noted."""
    _fill(message, table, "", problems)


def _fill(message: Any, table: Mapping[str, Any], where: str, problems: Problems) -> None:
    fields = message.DESCRIPTOR.fields_by_name
    chosen: dict[str, str] = {}
    for key, value in table.items():
        place = f"{where}.{key}" if where else key
        descriptor = fields.get(key)
        if descriptor is None:
            problems.add(place, f"unknown key; known: {', '.join(fields)}")
            continue
        oneof = descriptor.containing_oneof
        if oneof is not None and chosen.setdefault(oneof.name, key) != key:
            problems.add(place, f"cannot stand beside {chosen[oneof.name]}")
            continue
        _set(message, descriptor, value, place, problems)


def _set(message: Any, descriptor: Any, value: Any, where: str, problems: Problems) -> None:
    kind = descriptor.message_type
    if kind is not None and kind.GetOptions().map_entry:
        _set_map(message, descriptor, value, where, problems)
    elif descriptor.is_repeated:
        if not isinstance(value, list):
            problems.add(where, "a list is needed")
            return
        target = getattr(message, descriptor.name)
        for index, entry in enumerate(value):
            place = f"{where}[{index}]"
            if kind is not None:
                _set_message(target.add(), entry, place, problems)
            elif (scalar := _scalar(descriptor, entry, place, problems)) is not None:
                target.append(scalar)
    elif kind is not None:
        target = getattr(message, descriptor.name)
        target.SetInParent()
        _set_message(target, value, where, problems)
    elif (scalar := _scalar(descriptor, value, where, problems)) is not None:
        setattr(message, descriptor.name, scalar)


def _set_map(message: Any, descriptor: Any, value: Any, where: str, problems: Problems) -> None:
    if not isinstance(value, dict):
        problems.add(where, "a table is needed")
        return
    entry = descriptor.message_type.fields_by_name["value"]
    for key, each in value.items():
        scalar = _scalar(entry, each, f"{where}.{key}", problems)
        if scalar is not None:
            getattr(message, descriptor.name)[key] = scalar


def _set_message(message: Any, value: Any, where: str, problems: Problems) -> None:
    name = message.DESCRIPTOR.full_name
    if name == "google.protobuf.Duration":
        _set_duration(message, value, where, problems)
    elif name == "google.protobuf.Timestamp":
        _set_moment(message, value, where, problems)
    elif message.DESCRIPTOR.name == "PortRange" and not isinstance(value, dict):
        _set_port_range(message, value, where, problems)
    elif not isinstance(value, dict):
        problems.add(where, "a table is needed")
    else:
        _fill(message, value, where, problems)


def _set_duration(message: Any, value: Any, where: str, problems: Problems) -> None:
    try:
        message.FromJsonString(value if isinstance(value, str) else f"{value}s")
    except (ValueError, AttributeError):
        problems.add(where, 'a time such as "10s" or "0.5s" is needed')


def _set_moment(message: Any, value: Any, where: str, problems: Problems) -> None:
    if not isinstance(value, datetime) or value.tzinfo is None:
        problems.add(where, "a moment such as 2030-01-31T12:00:00Z is needed, with its offset")
        return
    message.FromDatetime(value.astimezone(UTC).replace(tzinfo=None))


def _set_port_range(message: Any, value: Any, where: str, problems: Problems) -> None:
    found = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", str(value))
    if found is None or isinstance(value, bool):
        problems.add(where, 'a port such as 80, or a range such as "8000-8010", is needed')
        return
    message.first = int(found[1])
    message.last = int(found[2] or 0)


def _scalar(descriptor: Any, value: Any, where: str, problems: Problems) -> Any:
    """The value as the field takes it, or None after the mistake was noted."""
    if descriptor.enum_type is not None:
        return _enum(descriptor.enum_type, value, where, problems)
    kind, read = _READERS[descriptor.cpp_type]
    try:
        read_value = read(value)
    except (TypeError, ValueError):
        problems.add(where, f"{kind} is needed, not {value!r}")
        return None
    low, high = _RANGES.get(_integer(descriptor), (None, None))
    if low is not None and high is not None and not low <= read_value <= high:
        problems.add(where, f"{value} is not from {low} to {high}")
        return None
    return read_value


def _enum(enum: Any, value: Any, where: str, problems: Problems) -> int | None:
    names = enum.values_by_name
    prefix = next(iter(names)).removesuffix("UNSPECIFIED")
    if isinstance(value, str):
        name = value.upper().replace("-", "_")
        for candidate in (name, prefix + name):
            if candidate in names:
                return int(names[candidate].number)
    known = [name.removeprefix(prefix).lower() for name in names if names[name].number]
    problems.add(where, f"{value!r} is not one of {', '.join(known)}")
    return None


def _integer(descriptor: Any) -> str:
    return {1: "int32", 2: "int64", 3: "uint32", 4: "uint64"}.get(descriptor.cpp_type, "")


def _exactly(kind: type) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if type(value) is not kind:
            raise TypeError
        return value

    return read


def _number(value: Any) -> float:
    if type(value) not in (int, float):
        raise TypeError
    return float(value)


# By FieldDescriptor.cpp_type; 9 is both string and bytes, and no desired state has bytes.
_READERS: Mapping[int, tuple[str, Callable[[Any], Any]]] = {
    1: ("a whole number", _exactly(int)),
    2: ("a whole number", _exactly(int)),
    3: ("a whole number", _exactly(int)),
    4: ("a whole number", _exactly(int)),
    5: ("a number", _number),
    6: ("a number", _number),
    7: ("true or false", _exactly(bool)),
    9: ("text", _exactly(str)),
}
