"""The collector of one trace: `python -m hostlerd.tracing.collector`.

Reads what to trace as one line of JSON on standard input, writes frames on standard output, and
ends when its standard input does, when a budget is used up, or with its parent.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

import numpy as np

from hostler.core.trace.blocks import MAX_EVENTS, encode, exit_ns, split
from hostler.core.trace.events import Column, Events, concatenate
from hostler.core.trace.filter import compile_filter
from hostlerd.tracing.collector.choice import AnyEngine, start, words
from hostlerd.tracing.collector.wanted import Wanted, wanted_from
from hostlerd.tracing.kernel import frames
from hostlerd.tracing.kernel.frames import Block, Kind
from hostlerd.tracing.kernel.strace.engine import StraceFailed
from hostlerd.tracing.model.trace import End

_PR_SET_PDEATHSIG = 1
# What a batch takes is kept for the next one: given back to the kernel and taken anew, it costs
# as much as all the rest. Source: mallopt(3), M_TRIM_THRESHOLD and M_MMAP_THRESHOLD.
_MALLOC = {-1: 64 << 20, -3: 32 << 20}
_LINE_BYTES_MOST = 1 << 20
# Under load it must keep up with all other CPUs.
_NICENESS = -15
_READ_S = 0.05
# Small blocks cost more than they hold; nobody minds a tenth of a second.
_BLOCK_S = 0.1
_TELL_S = 1.0
# What the engine calls the limits that it keeps.
_ENDS = {
    "cpu": End.BUDGET_CPU,
    "done": End.PROCESSES_ENDED,
}


def main() -> int:
    """Collect until the end."""
    parent = os.getppid()
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        # It had died before it could take this process with it.
        return 1
    for option, value in _MALLOC.items():
        libc.mallopt(option, value)
    out = sys.stdout.buffer
    line = sys.stdin.buffer.readline(_LINE_BYTES_MOST)
    wanted = wanted_from(json.loads(line))
    # Before what else runs in this session; as a unit, CPUWeight= puts it before other units.
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, _NICENESS)
    try:
        Collector(wanted, out).run()
    except BrokenPipeError:
        return 1
    return 0


@dataclass(frozen=True, slots=True)
class Ended(Exception):
    """The trace is over."""

    why: End
    problem: str = ""


class Collector:
    """Takes events from the engine, and hands on those that are wanted."""

    def __init__(self, wanted: Wanted, out: IO[bytes]) -> None:
        self._wanted = wanted
        self._out = out
        self._filter = compile_filter(wanted.spec.filter)
        self._capture = wanted.capture(self._filter)
        self._engine: AnyEngine
        self._held: list[Events] = []
        self._events = self._bytes = 0
        self._span_ns = (0, 0)
        self._told_s = self._sent_s = time.monotonic()

    def run(self) -> None:
        """Collect, and tell how it ended. Raises BrokenPipeError."""
        began_s = time.monotonic()
        try:
            self._engine, name, warnings = start(self._wanted.spec, self._capture)
        except OSError as e:
            self._tell_end(Ended(End.FAILED, words(e)))
            return
        # Before anybody is told: what happens after that is to be seen.
        begin_ns = max(time.time_ns(), self._wanted.spec.start_unix_ns)
        ready = {"engine": name, "load_s": time.monotonic() - began_s, "warnings": warnings}
        frames.write(self._out, Kind.READY, ready)
        with self._engine:
            try:
                self._collect(begin_ns)
            except Ended as ended:
                self._engine.stop()
                self._rest(ended)
                self._tell_end(ended)
            except StraceFailed as e:
                self._tell_end(Ended(End.FAILED, str(e)))

    def _collect(self, begin_ns: int) -> None:
        end_ns = begin_ns + round(self._wanted.spec.budget.duration_s * 1e9)
        self._span_ns = (begin_ns, end_ns)
        # Even while whoever reads what is written here stands still.
        signal.signal(signal.SIGALRM, lambda *_: self._engine.stop())
        signal.setitimer(signal.ITIMER_REAL, max(0.001, end_ns / 1e9 - time.time()))
        while True:
            self._look_for_end()
            self._take(self._engine.read(_READ_S))
            if self._engine.ended:
                raise Ended(_ENDS[self._engine.ended])
            if self._engine.has_ended or time.time_ns() >= end_ns:
                raise Ended(End.BUDGET_DURATION)

    def _take(self, events: Events) -> None:
        """Hold what passes the filter, and send it once it is old or large enough."""
        # A filter may ask for it, as evt.reltime does.
        events.start_ns = self._span_ns[0]
        if len(events):
            passing = self._passing(events)
            if not passing.all():
                events = events.select(passing).compact()
        held = sum(map(len, self._held))
        if held and held + len(events) > MAX_EVENTS:
            self._send()
        if len(events) or events.lost:
            self._held.append(events)
        held = sum(map(len, self._held))
        if self._held and (held >= MAX_EVENTS or time.monotonic() - self._sent_s > _BLOCK_S):
            self._send()

    def _passing(self, events: Events) -> Column:
        begin_ns, end_ns = self._span_ns
        passing = self._filter.matches(events) & (events["time_ns"] >= np.uint64(begin_ns))
        passing &= exit_ns(events) <= np.uint64(end_ns)
        spec = self._wanted.spec
        if spec.pids and not spec.with_children:
            passing &= np.isin(events.of_process("pid"), spec.pids)
        return passing

    def _send(self) -> None:
        whole, self._held = concatenate(self._held), []
        for part in split(whole):
            self._send_part(part)
        self._sent_s = time.monotonic()

    def _send_part(self, part: Events) -> None:
        budget = self._wanted.spec.budget
        left = budget.events - self._events if budget.events else len(part)
        if left < len(part):
            part = part.select(np.arange(left)).compact()
        data = encode(part)
        if budget.size_bytes and self._bytes + len(data) > budget.size_bytes:
            raise Ended(End.BUDGET_SIZE)
        frames.write_block(self._out, Block(data, len(part), part.lost))
        self._events += len(part)
        self._bytes += len(data)
        if budget.events and self._events >= budget.events:
            raise Ended(End.BUDGET_EVENTS)

    def _rest(self, ended: Ended) -> None:
        """Send what is on its way, unless there is no room for it."""
        if ended.why in (End.BUDGET_EVENTS, End.BUDGET_SIZE):
            return
        try:
            while len(events := self._engine.read(0)) or events.lost:
                self._take(events)
            if self._held:
                self._send()
        except Ended:
            return

    def _look_for_end(self) -> None:
        readable, _, _ = select.select([sys.stdin], [], [], 0)
        if readable and not os.read(sys.stdin.fileno(), 4096):
            raise Ended(End.STOPPED)
        if time.monotonic() - self._told_s > _TELL_S:
            self._told_s = time.monotonic()
            frames.write(self._out, Kind.STANDING, {"cpu_s": time.process_time()})

    def _tell_end(self, ended: Ended) -> None:
        content = {"reason": ended.why.name, "problem": ended.problem, "cpu_s": time.process_time()}
        frames.write(self._out, Kind.END, content)


if __name__ == "__main__":
    sys.exit(main())
