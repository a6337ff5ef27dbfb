"""The traces of the host: who watches them, and when they end."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from hostlerd.tracing.errors import CaptureExists, NotTheOwner, TooManyTraces, TraceNotFound
from hostlerd.tracing.kernel.collecting import Collecting, argv_of_collector
from hostlerd.tracing.kernel.store import Store
from hostlerd.tracing.kernel.traceable import check_traceable
from hostlerd.tracing.model.trace import End, Payload, Spec

RUNNING_MOST = 4
"""How many traces run at once: each one slows every system call of the host."""
KEPT_MOST = 8
UNWATCHED_S = 10.0
"""How long a trace goes on when nobody watches."""
KEPT_S = 60.0
"""How long one that has ended is there for those who watch it, and to be asked for."""


@dataclass(slots=True)
class Trace:
    """A trace, with who started it. `watched_s` is when the last watcher was seen."""

    name: str
    spec: Spec
    payload: Payload
    owner: str
    started_unix_s: float
    collecting: Collecting
    watchers: int = 0
    watched_s: float = field(default_factory=time.monotonic)

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self.collecting.standing.end is None

    @property
    def is_needed(self) -> bool:
        """Whether somebody has something of it: a watcher, or who reads its capture later."""
        return bool(self.watchers) or (self.runs and self.spec.keep is not None)


class Traces:
    """All traces. Any thread may call."""

    def __init__(self, store: Store, argv: Callable[[], Sequence[str]] = argv_of_collector) -> None:
        self._store = store
        self._argv = argv
        self._lock = threading.Lock()
        self._traces: dict[str, Trace] = {}
        self._starting = 0

    def start(self, spec: Spec, payload: Payload, owner: str) -> Trace:
        """Start a trace, and return once it sees events. Blocks.

        Raises ProcessNotFound, ProcessUntraceable, TooManyTraces, EngineUnavailable, CaptureExists,
        StoreFull.
        """
        check_traceable(spec.pids, by_strace=spec.engine == "strace")
        with self._lock:
            running = sum(trace.runs for trace in self._traces.values()) + self._starting
            if running >= RUNNING_MOST:
                raise TooManyTraces(f"{running} traces run already", most=RUNNING_MOST)
            self._starting += 1
        try:
            trace = self._begin(spec, payload, owner)
        finally:
            with self._lock:
                self._starting -= 1
        try:
            trace.collecting.wait_ready()
        except BaseException:
            with self._lock:
                del self._traces[trace.name]
            if spec.keep is not None:
                self._store.discard(trace.name)
            raise
        with self._lock:
            trace.watchers -= 1
            trace.watched_s = time.monotonic()
        return trace

    def _begin(self, spec: Spec, payload: Payload, owner: str) -> Trace:
        name = (spec.keep and spec.keep.name) or f"t{secrets.token_hex(6)}"
        keeping = None
        if spec.keep is not None:
            with self._lock:
                if name in self._traces:
                    raise CaptureExists("there is a trace of that name", name=name)
            keeping = self._store.begin(name, spec, payload, owner)
        try:
            collecting = Collecting(self._argv(), spec, payload, keeping)
        except BaseException:
            if keeping is not None:
                keeping.discard()
            raise
        # Whoever starts it waits for it, however long a busy host takes to load it.
        trace = Trace(name, spec, payload, owner, time.time(), collecting, watchers=1)
        with self._lock:
            self._traces[name] = trace
        return trace

    def get(self, name: str) -> Trace:
        """Answer a trace. Raises TraceNotFound."""
        with self._lock:
            trace = self._traces.get(name)
        if trace is None:
            raise TraceNotFound("there is no such trace, or it has ended a while ago", name=name)
        return trace

    def all(self) -> tuple[Trace, ...]:
        """All traces that are known, oldest first."""
        with self._lock:
            return tuple(self._traces.values())

    @contextmanager
    def watched(self, name: str) -> Iterator[Trace]:
        """Keep a trace going while the block goes on. Raises TraceNotFound."""
        trace = self.get(name)
        with self._lock:
            trace.watchers += 1
        try:
            yield trace
        finally:
            with self._lock:
                trace.watchers -= 1
                trace.watched_s = time.monotonic()

    def stop(self, name: str, caller: str, is_local_root: bool) -> Trace:
        """End a trace; one that has ended stays as it is. Raises TraceNotFound, NotTheOwner."""
        trace = self.get(name)
        if caller != trace.owner and not is_local_root:
            raise NotTheOwner("only who started a trace may end it", owner=trace.owner)
        trace.collecting.end(End.STOPPED)
        return trace

    def due(self) -> float | None:
        """In how many seconds `end_unwatched` has something to do; None if there is no trace."""
        now_s = time.monotonic()
        left = [_left_s(trace, now_s) for trace in self.all()]
        return min(left, default=None)

    def end_unwatched(self) -> tuple[str, ...]:
        """End what nobody watches, and forget what has ended; answers what was done. Blocks."""
        now_s = time.monotonic()
        done = []
        for trace in self.all():
            if trace.runs and not trace.is_needed and _left_s(trace, now_s) <= 0:
                trace.collecting.end(End.NOBODY_WATCHED)
                done.append(f"end trace {trace.name}, which nobody watches")
        self._forget()
        return tuple(done)

    def close(self) -> None:
        """End all, whoever watches. Blocks."""
        for trace in self.all():
            trace.collecting.end(End.STOPPED)

    def _forget(self) -> None:
        with self._lock:
            ended = [t for t in self._traces.values() if not t.runs and not t.watchers]
            old = [t for t in ended if time.time() - t.collecting.standing.ended_unix_s > KEPT_S]
            for trace in {t.name: t for t in (*old, *ended[: -KEPT_MOST or None])}.values():
                del self._traces[trace.name]


def _left_s(trace: Trace, now_s: float) -> float:
    if trace.is_needed:
        return UNWATCHED_S
    if trace.runs:
        return trace.watched_s + UNWATCHED_S - now_s
    return max(0.0, trace.collecting.standing.ended_unix_s + KEPT_S - time.time())
