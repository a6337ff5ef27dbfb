"""The words of which a closed grammar of requests is made.

A check notes all that is wrong with a value by its path; it never quotes the value itself. A key
that is not listed, a value of another type or out of its bounds: each is a fault.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from hostlerd.privileged.refused import Fault

Check = Callable[[Any, str, list[Fault]], None]
"""A check of a value at a path, which adds to the faults."""

ACCOUNT = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,30}\$?|[0-9]{1,10}")
"""The name or number of a user or a group."""


def text(pattern: re.Pattern[str], max_bytes: int = 4096) -> Check:
    """A string that the pattern matches in full."""

    def check(value: Any, path: str, faults: list[Fault]) -> None:
        if not isinstance(value, str):
            faults.append((path, "must be a string"))
        elif not encodable(value) or len(value.encode()) > max_bytes:
            faults.append((path, f"must be UTF-8 of at most {max_bytes} bytes"))
        elif not pattern.fullmatch(value):
            faults.append((path, "has characters that are not allowed there, or none at all"))

    return check


def whole(low: int, high: int) -> Check:
    """A whole number within bounds, both included."""

    def check(value: Any, path: str, faults: list[Fault]) -> None:
        # bool is an int to Python, and not to us.
        if type(value) is not int or not low <= value <= high:
            faults.append((path, f"must be a whole number from {low} to {high}"))

    return check


def flag(value: Any, path: str, faults: list[Fault]) -> None:
    """True or false."""
    if type(value) is not bool:
        faults.append((path, "must be true or false"))


def one_of(*words: str) -> Check:
    """One of some words."""

    def check(value: Any, path: str, faults: list[Fault]) -> None:
        if not isinstance(value, str) or value not in words:
            faults.append((path, f"must be one of {', '.join(words)}"))

    return check


def array(item: Check, low: int, high: int, max_bytes: int = 0) -> Check:
    """A list, bounded in its length and, if `max_bytes` is given, in the bytes of its strings."""

    def check(value: Any, path: str, faults: list[Fault]) -> None:
        if not isinstance(value, list) or not low <= len(value) <= high:
            faults.append((path, f"must be a list of {low} to {high} items"))
            return
        for i, each in enumerate(value):
            item(each, f"{path}[{i}]", faults)
        if max_bytes and sum(len(str(v).encode(errors="replace")) + 1 for v in value) > max_bytes:
            faults.append((path, f"must have at most {max_bytes} bytes in all"))

    return check


def record(keys: Mapping[str, Check], required: tuple[str, ...] = ()) -> Check:
    """An object with these keys and no others."""

    def check(value: Any, path: str, faults: list[Fault]) -> None:
        if not isinstance(value, dict):
            faults.append((path, "must be an object"))
            return
        dot = f"{path}." if path else ""
        faults += [(f"{dot}{k[:64]}", "is not known") for k in value if k not in keys]
        faults += [(f"{dot}{k}", "is missing") for k in required if k not in value]
        for key, its in keys.items():
            if key in value:
                its(value[key], f"{dot}{key}", faults)

    return check


def encodable(value: str) -> bool:
    """Whether it has no lone surrogates."""
    return not any("\ud800" <= c <= "\udfff" for c in value)
