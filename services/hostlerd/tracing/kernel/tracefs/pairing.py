"""Entries and exits become calls, by the thread that made them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hostler.core.trace.syscalls import all_syscalls
from hostlerd.tracing.kernel.tracefs.records import ENTER, EXIT, RECORD

# Calls that do not return, by both ways of counting: exit, exit_group. What else has these numbers
# for the other kind of program is not taken for one: that is told by the kind.
_NO_RETURN = ("exit", "exit_group")
# The kernel forgets which call a signal's handler returns from.
_FORGOTTEN = -1
_AGE_BITS = 40
_AGE_MOST = (1 << _AGE_BITS) - 1
_NOTHING = np.zeros(0, RECORD)

Records = npt.NDArray[np.void]
Column = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Paired:
    """Calls: the rows of `records` with their entries and exits, -1 for one that was not seen."""

    records: Records
    entry: Column
    exit: Column
    missing: int
    """How many entries and exits of these calls were made, and not seen."""


class Pairing:
    """Joins records; entries wait for their exits.

    Where the exit of one call is lost, and the entry of the same one's next, they are one of both.
    """

    def __init__(self) -> None:
        self._waiting: Records = _NOTHING
        self._later: Records = _NOTHING
        self._seen: set[int] = set()
        numbers = all_syscalls()
        self._no_return = np.array([numbers[name].number for name in _NO_RETURN], "<i8")
        self._no_return_32 = np.array([numbers[name].number_32 for name in _NO_RETURN], "<i8")

    def take(self, parts: Sequence[Records], settled_ns: int) -> Records:
        """All records until a time, by thread, in their order; later ones wait for the next time.

        Source of what comes when: `ring.Taken`.
        """
        plain = np.concatenate(list(map(_plain, (self._waiting, self._later, *parts))))
        whole = _records(plain)
        times = whole["time_ns"]
        is_later = times > settled_ns
        self._later = _records(plain[is_later])
        newest = int(times.max(initial=0))
        # One number for all: a sort by two takes three times as long. Only entries that wait are
        # older than half an hour, and of these a thread has one.
        age = np.minimum(np.uint64(newest) - times, np.uint64(_AGE_MOST))
        order = whole["tid"].astype("<i8") << (_AGE_BITS + 1)
        order |= (_AGE_MOST - age.astype("<i8")) << 1 | whole["kind"]
        rows = np.argsort(order)
        return _records(plain.take(rows[~is_later[rows]], axis=0))

    def pair(self, whole: Records, is_32: npt.NDArray[np.int32]) -> Paired:
        """The calls that these records end; `is_32` are the threads that run 32-bit programs."""
        enters, exits = whole["kind"] == ENTER, whole["kind"] == EXIT
        follows = _shifted(whole["tid"]) == whole["tid"]
        same = (_shifted(whole["id"]) == whole["id"]) | (_shifted(whole["id"]) == _FORGOTTEN)
        pairs = enters & follows & _shifted(exits) & same
        ended = np.zeros(len(whole), bool)
        ended[1:] = pairs[:-1]
        final = enters & ~pairs & self._never_return(whole, is_32)
        waits = enters & ~pairs & ~final & ~follows
        unended = enters & ~pairs & ~final & follows
        lone = exits & ~ended
        self._waiting = whole[waits]
        missing = int(unended.sum()) + self._lost_entries(whole, lone)
        rows = np.arange(len(whole))
        entry = np.concatenate([rows[pairs | final | unended], np.full(int(lone.sum()), -1)])
        left = np.concatenate([np.where(pairs, rows + 1, -1)[pairs | final | unended], rows[lone]])
        return Paired(whole, entry, left, missing)

    def waiting(self) -> int:
        """How many entries wait for their exits."""
        return len(self._waiting)

    def forget(self, tid: int) -> None:
        """A thread is gone; one that is made later may have its number."""
        self._seen.discard(tid)
        if len(self._waiting):
            self._waiting = self._waiting[self._waiting["tid"] != tid]

    def _never_return(self, whole: Records, is_32: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
        of_32 = np.isin(whole["tid"], is_32)
        return np.where(
            of_32, np.isin(whole["id"], self._no_return_32), np.isin(whole["id"], self._no_return)
        )

    def _lost_entries(self, whole: Records, lone: npt.NDArray[np.bool_]) -> int:
        """Exits without entries, but for those of calls that were being made when all began.

        Those come first of their thread, as does the return of one that has just been made.
        """
        first = np.ones(len(whole), bool)
        first[1:] = whole["tid"][1:] != whole["tid"][:-1]
        tids = whole["tid"][first & lone].tolist()
        begun = sum(tid not in self._seen for tid in tids)
        self._seen.update(whole["tid"][first].tolist())
        return int(lone.sum()) - begun


def _plain(records: Records) -> npt.NDArray[np.uint64]:
    """A row of numbers for each: numpy copies these ten times as fast as what has fields."""
    return records.view("<u8").reshape(-1, RECORD.itemsize // 8)


def _records(plain: npt.NDArray[np.uint64]) -> Records:
    return plain.reshape(-1).view(RECORD)


def _shifted(column: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """What comes after each; the last has nothing that is equal to anything."""
    after = np.empty_like(column)
    after[:-1] = column[1:]
    if len(column):
        after[-1] = 0 if column.dtype == bool else -2
    return after
