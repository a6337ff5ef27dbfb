"""Which processes compute: the time between their calls."""

from __future__ import annotations

import numpy as np

from hostler.core.trace import calls
from hostler.core.trace.chisel import Category, Chisel, Given
from hostler.core.trace.chisel_cells import distinct
from hostler.core.trace.chisel_groups import Groups, key_codes, top_argument
from hostler.core.trace.chisel_lines import columns
from hostler.core.trace.chisel_results import Heading, Table, Unit
from hostler.core.trace.events import Column, Events, Flag
from hostler.core.trace.times import finished

MOST_THREADS = 65_536
_KEYS = columns(("process", "proc.name"), ("pid", "proc.pid"))
_TIME = Heading("outside_calls", Unit.DURATION)
_EXITS = frozenset({"exit", "exit_group"})


class _Gaps:
    """When each thread returned from its last call, and the time that was between calls."""

    def __init__(self, given: Given) -> None:
        self._given = given
        self._groups = Groups(1)
        self._returned: dict[tuple[str, int], int] = {}
        self._lost = 0

    def take(self, events: Events, host: str) -> None:
        self._lost += events.lost
        keys = [distinct(key, events) for key in _KEYS]
        if self._given.per_host:
            keys.insert(0, (np.zeros(len(events), np.int64), [host]))
        self._groups.add(*key_codes(keys, len(events)), [self._gaps(events, host)])

    def _gaps(self, events: Events, host: str) -> Column:
        """How long before each call its thread was in none."""
        order = np.lexsort((events["time_ns"], events["tid"]))
        tids, entered = events["tid"][order], events["time_ns"][order].astype(np.int64)
        returned = finished(events)[order].astype(np.int64)
        # A number that is free again is another thread's.
        ended = calls.among(events, _EXITS)[order]
        is_first = np.append(True, tids[1:] != tids[:-1])
        before = np.append(0, np.where(ended[:-1], entered[1:], returned[:-1]))
        for i in np.flatnonzero(is_first).tolist():
            before[i] = self._returned.get((host, int(tids[i])), entered[i])
        self._remember(host, tids, returned, ended)
        # Of a call whose entry was lost only the exit is known.
        known = events["flags"][order] & np.uint16(Flag.ENTRY_LOST) == 0
        gaps = np.zeros(len(events), np.int64)
        gaps[order] = np.where(known, np.maximum(entered - before, 0), 0)
        return gaps

    def _remember(self, host: str, tids: Column, returned: Column, ended: Column) -> None:
        is_last = np.append(tids[1:] != tids[:-1], True)
        for i in np.flatnonzero(is_last).tolist():
            key = host, int(tids[i])
            self._returned.pop(key, None)
            if not ended[i]:
                self._returned[key] = int(returned[i])
        for key in list(self._returned)[: max(0, len(self._returned) - MOST_THREADS)]:
            del self._returned[key]

    def result(self) -> Table:
        host = (Heading("host"),) if self._given.per_host else ()
        headings = (*host, *(key.heading for key in _KEYS), _TIME)
        table = self._groups.table(headings, self._given.number("top"))
        lost = (f"{self._lost} calls were lost, whose time is counted in",) if self._lost else ()
        return Table(table.headings, table.rows, table.other, (_NOTE, *table.notes, *lost))


_NOTE = (
    "calls do not tell CPU time: outside of calls a thread computes, or waits for a CPU or a page"
)

CHISEL = Chisel(
    "topprocs_cpu",
    Category.CPU,
    "processes by time between their calls, the most they computed",
    _Gaps,
    "sysdig's reads samples of the scheduler, which a trace of calls does not have. A thread "
    "outside of a call computes, or waits for a CPU or a page. Time in the kernel is not counted, "
    "and with a filter the calls that it hides count as computing.",
    arguments=(top_argument(10),),
)
