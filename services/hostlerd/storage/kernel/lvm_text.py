"""The text that LVM describes groups with: sections, numbers, strings and lists of them.

Source: lvm.conf(5), which has the same form; LVM2 libdm/libdm-config.c.
"""

from __future__ import annotations

import re
from typing import Any

_TOKEN = re.compile(
    r"""\s+|\#[^\n]*|(?P<text>"(?:[^"\\]|\\.)*")|(?P<mark>[{}\[\]=,])|(?P<word>[^\s{}\[\]=,"\#]+)"""
)
_DEPTH_MOST = 16


def parse(said: str) -> dict[str, Any]:
    """Read it into tables. Raises ValueError."""
    tokens = []
    at = 0
    while at < len(said):
        found = _TOKEN.match(said, at)
        if found is None:
            raise ValueError(f"character {at} is in no place")
        if found.lastgroup:
            tokens.append(found[0])
        at = found.end()
    tokens.reverse()
    return _table(tokens, 0)


def _table(tokens: list[str], depth: int) -> dict[str, Any]:
    """Take tokens from the end of a list until the section is closed."""
    if depth > _DEPTH_MOST:
        raise ValueError("sections lie too deep")
    table: dict[str, Any] = {}
    while tokens:
        name = tokens.pop()
        if name == "}" and depth:
            return table
        mark = tokens.pop() if tokens else ""
        if mark == "{":
            table[name] = _table(tokens, depth + 1)
        elif mark == "=":
            table[name] = _value(tokens)
        else:
            raise ValueError(f"{name} has no value")
    if depth:
        raise ValueError("a section is not closed")
    return table


def _value(tokens: list[str]) -> Any:
    word = tokens.pop() if tokens else "}"
    if word != "[":
        return _plain(word)
    values: list[Any] = []
    while tokens:
        word = tokens.pop()
        if word == "]":
            return values
        if word != ",":
            values.append(_plain(word))
    raise ValueError("a list is not closed")


def _plain(word: str) -> str | int:
    if word.startswith('"'):
        return re.sub(r"\\(.)", r"\1", word[1:-1])
    if word in "{}[]=,":
        raise ValueError(f"{word} is no value")
    return int(word) if word.removeprefix("-").isdecimal() and word.isascii() else word
