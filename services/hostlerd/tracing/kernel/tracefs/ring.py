"""Reads the rings of all CPUs, as many pages at once as there are."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hostlerd.tracing.kernel.tracefs.formats import PageFormat
from hostlerd.tracing.kernel.tracefs.pages import Words

PAGES_MOST = 1024
"""How many are taken at once: more do not stay in the caches of a CPU."""
# What has a time is in the ring after this, by far: nothing interrupts the kernel for as long.
_SETTLE_NS = 1_000_000
# Of a ring that is as far ahead of another nothing could be told yet, and all would have to wait.
_AHEAD_NS = 20_000_000
_ALL_NS = np.iinfo(np.int64).max
# Pages that are not full tell that the writer is nearly caught up with.
_FULL = 3 / 4
_MEAGRE_MOST = 2


@dataclass(frozen=True, slots=True)
class Taken:
    """Pages, a row of words each, and their CPUs.

    All that was made before `settled_ns` has been taken by now. `is_all` if nothing is left.
    """

    words: Words
    cpus: npt.NDArray[np.uint16]
    settled_ns: int
    is_all: bool


class Rings:
    """`pipes` are read without waiting; `cpus` are their numbers."""

    def __init__(self, pipes: Sequence[int], cpus: Sequence[int], form: PageFormat) -> None:
        self._form = form
        self._pipes = pipes
        self._cpus = np.array(cpus, np.uint16)
        self._room = np.zeros((max(PAGES_MOST, len(pipes)), form.size_bytes), np.uint8)
        # Up to when all of a ring has been taken.
        self._until_ns = [0] * len(pipes)

    def take(self, *, is_over: bool) -> Taken:
        """What there is, up to a limit; `is_over` if nothing is written any more."""
        now_ns = _ALL_NS if is_over else time.monotonic_ns() - _SETTLE_NS
        near_ns = min(self._until_ns) + _AHEAD_NS
        chosen = [row for row, until_ns in enumerate(self._until_ns) if until_ns <= near_ns]
        each, used = len(self._room) // len(chosen), 0
        rows: list[int] = []
        for row in chosen:
            count, is_empty = self._read(self._pipes[row], used, each)
            used += count
            rows += [row] * count
            last = self._room[used - 1, :8].view("<u8")
            self._until_ns[row] = now_ns if is_empty else int(last[0])
        settled_ns = min(self._until_ns)
        words = self._room[:used].view("<u4")
        return Taken(words, self._cpus[rows], settled_ns, settled_ns == _ALL_NS)

    def _read(self, pipe: int, begin: int, most: int) -> tuple[int, bool]:
        """How many pages came, and whether there are no more."""
        meagre = 0
        for count in range(most):
            page = self._room[begin + count]
            try:
                length = os.readv(pipe, [page.data])
            except BlockingIOError:
                return count, True
            if not length:
                return count, True
            page[length:] = 0
            held = int(page[self._form.commit : self._form.commit + 4].view("<u4")[0]) & 0xFFFFF
            meagre = meagre + 1 if held < _FULL * (self._form.size_bytes - self._form.data) else 0
            if meagre >= _MEAGRE_MOST:
                return count + 1, False
        return most, False
