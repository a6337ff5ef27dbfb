"""What of a trace the kernel decides: filters in tracefs' own language. Pure.

Source: Documentation/trace/events.rst, "Event filtering".
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from hostler.core.trace.syscalls import all_syscalls
from hostlerd.tracing.model.capture import Filter

BYTES_MOST = 4000
"""How long a filter may be: the kernel takes less than a page."""
# What has no meaning of its own in the language.
_PLAIN = re.compile(rb"[A-Za-z0-9_./:+@-]{1,15}")
# Their task may be called otherwise when they end.
_RENAMING = ("execve", "execveat", "prctl")
# The kernel forgets which call a signal's handler returns from: sigreturn, rt_sigreturn.
_FORGOTTEN = -1
_FORGETTING = frozenset(("sigreturn", "rt_sigreturn"))


def filters(wanted: Filter) -> tuple[str, str]:
    """The filters of entries and of exits; empty for all: never less than what is wanted."""
    enters, exits = _of_calls(wanted.syscalls), _of_calls(wanted.syscalls)
    if wanted.syscalls & _FORGETTING and exits:
        exits = f"({exits} || id == {_FORGOTTEN})"
    names = _of_names(wanted.names)
    if names:
        renaming = _of_calls(frozenset(_RENAMING))
        enters = _all(enters, f"({names} || {renaming})")
        exits = _all(exits, f"({names})")
    return tuple(each if len(each) <= BYTES_MOST else "" for each in (enters, exits))  # type: ignore[return-value]


def _all(*terms: str) -> str:
    return " && ".join(filter(None, terms))


def _of_names(names: Iterable[bytes]) -> str:
    if not all(map(_PLAIN.fullmatch, names)):
        return ""
    return " || ".join(f'comm == "{name.decode()}"' for name in sorted(names))


def _of_calls(names: frozenset[str]) -> str:
    """Both ways of counting calls are one to the kernel here: what either means is kept."""
    calls = [all_syscalls()[name] for name in names if name in all_syscalls()]
    if len(calls) < len(names) or not calls:
        return ""
    numbers = {n for call in calls for n in (call.number, call.number_32) if n is not None}
    terms = [
        f"id == {first}" if first == last else f"(id >= {first} && id <= {last})"
        for first, last in _ranges(sorted(numbers))
    ]
    return "(" + " || ".join(terms) + ")"


def _ranges(numbers: list[int]) -> Iterable[tuple[int, int]]:
    first = last = numbers[0]
    for number in numbers[1:]:
        if number != last + 1:
            yield first, last
            first = number
        last = number
    yield first, last
