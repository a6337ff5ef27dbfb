"""What of a filter the kernel can decide, so that other events cost nothing. Pure.

A Pushdown passes all that the filter passes, and more: what it passes must go through the filter
still. Each part is a bound of its own: an event must be within all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np

from hostler.core.trace import calls
from hostler.core.trace.arguments import MOST_ERRNO
from hostler.core.trace.events import COLUMNS, Column, Events, Flag
from hostler.core.trace.fields_args import calls_with_argument
from hostler.core.trace.filter import Filter
from hostler.core.trace.filter_parse import AllOf, AnyOf, Node, Not, Test

FIRST_UNBOUND_CALL = 1024
"""Calls with this number or a higher one pass, whatever `syscalls` says: no kernel has them."""

MOST_COMM_BYTES = 15

Item = TypeVar("Item", int, bytes)


@dataclass(frozen=True, slots=True)
class Pushdown:
    """Bounds of what a filter passes. None means any; an empty set means none.

    `syscalls` are the numbers of 64-bit programs, `syscalls_32` those of 32-bit ones, each below
    FIRST_UNBOUND_CALL. `comms` are names as the process table has them, of at most 15 bytes; the
    kernel must compare the same name that goes into the table, at the same time: the call's end.
    An event is within the bounds of processes if its tgid is in `pids`, or if it is one of
    `roots`, or below one; both are None together. `cgroups` are paths in the unified hierarchy.
    `failed_only` leaves out calls that answered no error, and `min_latency_ns` those that were
    faster; calls that did not return pass neither.
    """

    syscalls: frozenset[int] | None = None
    syscalls_32: frozenset[int] | None = None
    comms: frozenset[bytes] | None = None
    pids: frozenset[int] | None = None
    roots: frozenset[int] | None = None
    cgroups: frozenset[bytes] | None = None
    failed_only: bool = False
    min_latency_ns: int = 0


def push_down(wanted: Filter) -> Pushdown:
    """Answer the bounds of what a filter passes."""
    if wanted.node is None:
        return Pushdown()
    return _bounds(wanted.node, is_negated=False)


def _bounds(node: Node, *, is_negated: bool) -> Pushdown:
    if isinstance(node, Not):
        return _bounds(node.term, is_negated=not is_negated)
    if isinstance(node, AllOf | AnyOf):
        terms = [_bounds(term, is_negated=is_negated) for term in node.terms]
        return _both(terms) if isinstance(node, AllOf) != is_negated else _either(terms)
    bounds = [_of_call(node, is_negated), _of_failure(node, is_negated)]
    # The contrary of a test passes where the value is absent, which no bound of values knows.
    return _both(bounds if is_negated else [*bounds, _of_value(node)])


def _both(terms: Iterable[Pushdown]) -> Pushdown:
    """The bounds of what is within all of these bounds."""
    bounds = Pushdown()
    for term in terms:
        pids, roots = _both_processes(bounds, term)
        bounds = Pushdown(
            _intersection(bounds.syscalls, term.syscalls),
            _intersection(bounds.syscalls_32, term.syscalls_32),
            _intersection(bounds.comms, term.comms),
            pids,
            roots,
            _intersection(bounds.cgroups, term.cgroups),
            bounds.failed_only or term.failed_only,
            max(bounds.min_latency_ns, term.min_latency_ns),
        )
    return bounds


def _both_processes(
    one: Pushdown, other: Pushdown
) -> tuple[frozenset[int] | None, frozenset[int] | None]:
    if one.pids is None or one.roots is None:
        return other.pids, other.roots
    if other.pids is None or other.roots is None:
        return one.pids, one.roots
    if one.roots or other.roots:
        # Who is below whom is not known here. Either bound is right: pids are the sharper one.
        chosen = other if one.roots else one
        return chosen.pids, chosen.roots
    return one.pids & other.pids, frozenset()


def _either(terms: list[Pushdown]) -> Pushdown:
    """The bounds of what is within any of these bounds."""
    bounds, *others = terms
    for term in others:
        bounds = Pushdown(
            _union(bounds.syscalls, term.syscalls),
            _union(bounds.syscalls_32, term.syscalls_32),
            _union(bounds.comms, term.comms),
            _union(bounds.pids, term.pids),
            _union(bounds.roots, term.roots),
            _union(bounds.cgroups, term.cgroups),
            bounds.failed_only and term.failed_only,
            min(bounds.min_latency_ns, term.min_latency_ns),
        )
    return bounds


def _intersection(
    one: frozenset[Item] | None, other: frozenset[Item] | None
) -> frozenset[Item] | None:
    if one is None or other is None:
        return other if one is None else one
    return one & other


def _union(one: frozenset[Item] | None, other: frozenset[Item] | None) -> frozenset[Item] | None:
    return None if one is None or other is None else one | other


# Fields that depend on the call alone.
_OF_CALL = frozenset(
    (
        *("evt.type", "syscall.type", "evt.syscall.name", "evt.syscall.number"),
        *("evt.syscall.is32", "evt.is_io", "evt.is_io_read", "evt.is_io_write", "evt.io_dir"),
        "evt.is_wait",
    )
)
_WITH_VALUE: Mapping[str, frozenset[str]] = {
    "evt.buflen": calls.READS | calls.WRITES,
    "evt.wait_latency": calls.WAITS,
    "syslog.": calls.WRITES,
}
"""Fields, and classes of them, that only these calls have."""

_TRUE_FOR: Mapping[str, frozenset[str]] = {
    "evt.is_syslog": calls.WRITES,
    "evt.is_open_read": calls.OPENS,
    "evt.is_open_write": calls.OPENS,
    "evt.is_open_exec": calls.OPENS,
}
"""Fields that are false for all but these calls, of which _SOME_CALL is none."""

_SOME_CALL = 39
"""getpid."""


def _of_call(test: Test, is_negated: bool) -> Pushdown:
    """The calls that a test, or its contrary, may pass."""
    mask = _possible(test, is_negated)
    if mask is None:
        return Pushdown()
    numbers = np.arange(FIRST_UNBOUND_CALL)
    return Pushdown(
        frozenset(numbers[mask[:FIRST_UNBOUND_CALL]].tolist()),
        frozenset(numbers[mask[FIRST_UNBOUND_CALL:]].tolist()),
    )


def _possible(test: Test, is_negated: bool) -> Column | None:
    """Which of _each_call() may pass: a mask; None if the call says nothing."""
    name = test.field.name
    if name in _OF_CALL or name.startswith("evt.type.is."):
        passing = _passing(test, _each_call())
        return ~passing if is_negated else passing
    if name == "evt.category":
        # That of I/O depends on the fd.
        does_io = calls.of_category(_each_call(), *calls.IO_CATEGORIES)
        passing = _passing(test, _each_call())
        return does_io | (~passing if is_negated else passing)
    if name in _TRUE_FOR:
        passes_false = _passing(test, _each_call())[_SOME_CALL] != is_negated
        return None if passes_false else calls.among(_each_call(), _TRUE_FOR[name])
    if is_negated:
        return None
    for start, names in _WITH_VALUE.items():
        if name.startswith(start):
            return calls.among(_each_call(), names)
    for family in ("evt.arg.", "evt.rawarg."):
        argument = name.removeprefix(family)
        if argument != name and argument not in ("res", "data"):
            return calls.among(_each_call(), calls_with_argument(argument))
    return None


def _passing(test: Test, events: Events) -> Column:
    return Filter("", test, test.field.needs).matches(events)


@cache
def _each_call() -> Events:
    """One event of each call: first those of 64-bit programs by number, then those of others."""
    count = 2 * FIRST_UNBOUND_CALL
    columns = {name: np.zeros(count, kind) for name, kind in COLUMNS.items()}
    columns["syscall"] = np.tile(np.arange(FIRST_UNBOUND_CALL, dtype="<u2"), 2)
    columns["flags"][FIRST_UNBOUND_CALL:] = Flag.IS_32_BIT
    return Events(columns)


def _of_failure(test: Test, is_negated: bool) -> Pushdown:
    """Whether a test, or its contrary, passes failed calls alone."""
    name = test.field.name
    if name not in ("evt.failed", "evt.res") and not name.startswith("evt.count.error"):
        return Pushdown()
    passing = _passing(test, _not_failed())
    return Pushdown(failed_only=bool((passing == is_negated).all()))


@cache
def _not_failed() -> Events:
    """A call that succeeded, and one that did not return."""
    columns = {name: np.zeros(2, kind) for name, kind in COLUMNS.items()}
    columns["flags"][1] = Flag.UNFINISHED
    return Events(columns)


def _of_value(test: Test) -> Pushdown:
    find = _BOUNDS.get(test.field.name)
    if find is None and test.field.name.startswith("proc.apid["):
        find = _of_pid if test.field.name == "proc.apid[0]" else _of_root
    return Pushdown() if find is None else find(test)


def _integers(test: Test) -> list[int]:
    return [value for value in test.operands if isinstance(value, int)]


def _texts(test: Test) -> list[bytes]:
    return [value for value in test.operands if isinstance(value, bytes)]


def _pids(test: Test) -> frozenset[int]:
    return frozenset(pid for pid in _integers(test) if 0 <= pid <= 0xFFFFFFFF)


def _is_equality(test: Test) -> bool:
    return test.operator in ("=", "in")


def _of_pid(test: Test) -> Pushdown:
    if not _is_equality(test):
        return Pushdown()
    return Pushdown(pids=_pids(test), roots=frozenset())


def _of_root(test: Test) -> Pushdown:
    if not _is_equality(test):
        return Pushdown()
    return Pushdown(pids=frozenset(), roots=_pids(test))


def _of_comm(test: Test) -> Pushdown:
    if not _is_equality(test):
        return Pushdown()
    return Pushdown(comms=frozenset(text[:MOST_COMM_BYTES] for text in _texts(test)))


def _of_cgroup(test: Test) -> Pushdown:
    if not _is_equality(test):
        return Pushdown()
    return Pushdown(cgroups=frozenset(_texts(test)))


def _of_result(test: Test) -> Pushdown:
    failures = all(-MOST_ERRNO <= value < 0 for value in _integers(test))
    return Pushdown(failed_only=_is_equality(test) and failures)


def _of_latency(test: Test) -> Pushdown:
    least = min(_integers(test), default=0)
    bounds = {"=": least, "in": least, ">=": least, ">": least + 1}
    return Pushdown(min_latency_ns=bounds.get(test.operator, 0))


_BOUNDS: Mapping[str, Callable[[Test], Pushdown]] = {
    "proc.pid": _of_pid,
    "proc.ppid": _of_root,
    "proc.apid": _of_root,
    "proc.name": _of_comm,
    "thread.cgroup": _of_cgroup,
    "thread.cgroups": _of_cgroup,
    "evt.rawres": _of_result,
    "evt.latency": _of_latency,
    "evt.wait_latency": _of_latency,
}
