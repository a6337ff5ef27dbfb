"""Messages written as the TOML that `hostler.desired` reads back as the same messages."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

Comments = Mapping[str, Sequence[str]]


def to_toml(
    message: Any, *, without: Collection[str] = (), comments: Comments | None = None
) -> str:
    """Write a message. Fields that say nothing are left out, and the top fields in `without`.

    `comments` are put before what has their key path, such as `rules[3]`; those of "" come first,
    those of paths that are not there last. For messages without maps and bytes.
    """
    left = dict(comments or {})
    lines = [*_comments(left.pop("", ()))]
    tables = []
    for field, value in _said(message):
        if field.name in without:
            continue
        if field.is_repeated and field.message_type is not None:
            tables.append((field, value))
            continue
        lines += _comments(left.pop(field.name, ()))
        lines.append(f"{field.name} = {_value(field, value)}")
    for field, value in tables:
        for index, each in enumerate(value):
            lines.append("")
            lines += _comments(left.pop(f"{field.name}[{index}]", ()))
            lines.append(f"[[{field.name}]]")
            lines += [f"{inner.name} = {_value(inner, v)}" for inner, v in _said(each)]
    if left:
        lines.append("")
    for words in left.values():
        lines += _comments(words)
    return "\n".join(lines) + "\n"


def _comments(words: Sequence[str]) -> Iterator[str]:
    for each in words:
        # TOML takes no control characters in comments, and a line end would end one.
        yield "# " + "".join(c if c.isprintable() else " " for c in each)


def _said(message: Any) -> list[tuple[Any, Any]]:
    """The fields that are set, in the order of their names' use: as the proto has them."""
    return [(field, value) for field, value in message.ListFields()]


def _value(field: Any, value: Any) -> str:
    if field.is_repeated:
        return "[" + ", ".join(_one(field, each) for each in value) + "]"
    return _one(field, value)


def _one(field: Any, value: Any) -> str:
    if field.message_type is not None:
        return _message(value)
    if field.enum_type is not None:
        return _enum(field.enum_type, value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return text(value)
    return str(value)


def _message(message: Any) -> str:
    name = message.DESCRIPTOR.full_name
    if name == "google.protobuf.Timestamp":
        return str(message.ToJsonString())
    if name == "google.protobuf.Duration":
        return text(message.ToJsonString())
    if message.DESCRIPTOR.name == "PortRange":
        first, last = message.first, message.last
        return str(first) if last in (0, first) else text(f"{first}-{last}")
    inside = ", ".join(f"{field.name} = {_value(field, value)}" for field, value in _said(message))
    return f"{{ {inside} }}" if inside else "{}"


def _enum(enum: Any, number: int) -> str:
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    known = enum.values_by_number.get(number)
    # What came after this client is written as no word that reads back: a file is never half of it.
    return text(known.name.removeprefix(prefix).lower() if known else f"unknown ({number})")


def text(words: str) -> str:
    """A string of TOML; several lines as several lines."""
    body = words.replace("\n", "").replace("\t", "")
    if "\n" in words and "'''" not in words and not words.endswith("'") and body.isprintable():
        return f"'''\n{words}'''"
    # JSON's escapes are all known to TOML. What a host has said must not drive a terminal either.
    quoted = json.dumps(words, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in quoted)
