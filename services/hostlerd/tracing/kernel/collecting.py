"""One trace: its collector, a process of its own, and the blocks that have come from it.

The collector loads the BPF program and has the events; this process only hands blocks on, so that
a fault there, or a hostile event, is not a fault here. It ends when its standard input does.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import IO, Any

from hostlerd.runtime.log import get_log
from hostlerd.tracing.errors import EngineUnavailable, StoreFull
from hostlerd.tracing.kernel import frames
from hostlerd.tracing.kernel.frames import Block, Kind
from hostlerd.tracing.kernel.store import Keeping
from hostlerd.tracing.model.trace import End, Payload, Spec, Standing

log = get_log("tracing.collector")

READY_S = 60.0
"""How long a collector may take to be there: half a second, and much more on a busy host."""
END_S = 5.0
KEPT_BYTES = 32 << 20
"""How much of a trace is held for watchers that are slow, or come later."""
_ERROR_BYTES_MOST = 4096


@dataclass(frozen=True, slots=True)
class Taken:
    """Blocks with their numbers, how many were missed before them, and the last number."""

    blocks: tuple[tuple[int, Block], ...]
    missed: int
    seq: int


class Blocks:
    """The last blocks of a trace, numbered from 1. Any thread may call."""

    def __init__(self, most_bytes: int = KEPT_BYTES) -> None:
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._kept: deque[Block] = deque()
        self._bytes = 0
        self._seq = 0

    def put(self, block: Block) -> None:
        """Add one; the oldest make room for it."""
        with self._lock:
            self._kept.append(block)
            self._seq += 1
            self._bytes += len(block.data)
            while self._bytes > self._most_bytes and len(self._kept) > 1:
                self._bytes -= len(self._kept.popleft().data)

    def take(self, after_seq: int, most: int) -> Taken:
        """Answer at most so many that come after a number."""
        with self._lock:
            first = self._seq - len(self._kept) + 1
            begin = max(after_seq + 1, first)
            missed = max(0, begin - after_seq - 1)
            end = min(self._seq, begin + most - 1)
            found = [(seq, self._kept[seq - first]) for seq in range(begin, end + 1)]
            return Taken(tuple(found), missed, max(end, after_seq))


class Collecting:
    """A running trace, or one that has ended."""

    def __init__(
        self,
        argv: Sequence[str],
        spec: Spec,
        payload: Payload,
        keeping: Keeping | None = None,
    ) -> None:
        self.blocks = Blocks()
        self._keeping = keeping
        self._not_kept = ""
        self.warnings: tuple[str, ...] = ()
        self._standing = Standing()
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._asked_to_end: End | None = None
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
            cwd="/",
            close_fds=True,
        )
        self._tell(spec, payload)
        self._threads = [
            threading.Thread(target=run, name="trace", daemon=True)
            for run in (self._read, self._read_errors)
        ]
        self._error = b""
        for thread in self._threads:
            thread.start()

    def _tell(self, spec: Spec, payload: Payload) -> None:
        stdin = self._process.stdin
        if stdin is None:
            raise AssertionError("the collector has no standard input")
        try:
            stdin.write(line_for(spec, payload))
            stdin.flush()
        except BrokenPipeError:
            # It has ended before it was told anything; why is what it has written.
            return

    @property
    def standing(self) -> Standing:
        """How it stands."""
        with self._lock:
            return self._standing

    def wait_ready(self) -> None:
        """Return once events are seen. Raises EngineUnavailable with the reason. Blocks."""
        self._ready.wait(READY_S)
        standing = self.standing
        if standing.end is End.FAILED:
            raise EngineUnavailable(standing.problem)
        if not self._ready.is_set():
            self.end(End.FAILED)
            raise EngineUnavailable(f"the collector was not ready within {READY_S:.0f} s")

    def end(self, why: End) -> Standing:
        """End it, if it has not ended; answers how it stands then. Blocks."""
        with self._lock:
            if self._standing.end is None and self._asked_to_end is None:
                self._asked_to_end = why
        self._close_stdin()
        for thread in self._threads:
            thread.join(END_S)
        if self._process.poll() is None and self._threads[0].is_alive():
            self._process.kill()
        self._process.wait()
        self._threads[0].join()
        return self.standing

    def _close_stdin(self) -> None:
        stdin = self._process.stdin
        if stdin is not None and not stdin.closed:
            try:
                stdin.close()
            except BrokenPipeError:
                log.debug("the collector has ended already")

    def _read(self) -> None:
        source = self._process.stdout
        if source is None:
            raise AssertionError("the collector has no standard output")
        problem = "the collector ended without a word"
        try:
            while (frame := frames.read(source)) is not None:
                self._take(*frame)
        except frames.FrameInvalid as e:
            problem = f"the collector's answer: {e}"
            self._process.kill()
        with self._lock:
            if self._standing.end is None:
                why = self._asked_to_end or End.FAILED
                self._standing = replace(
                    self._standing,
                    end=why,
                    ended_unix_s=time.time(),
                    problem=problem if why is End.FAILED else "",
                )
        self._finish(source)

    def _finish(self, source: IO[bytes]) -> None:
        source.close()
        self._process.wait()
        self._threads[1].join(END_S)
        with self._lock:
            if self._standing.end is End.FAILED and self._error:
                last = self._error.decode(errors="replace").strip().splitlines()[-1:]
                words = ": ".join([self._standing.problem, *last])
                self._standing = replace(self._standing, problem=words)
        if self._keeping is not None:
            try:
                self._keeping.close(self.standing)
            except OSError as e:
                log.error("a capture could not be completed", problem=e)
        self._ready.set()
        log.info("a trace has ended", end=self.standing.end, problem=self.standing.problem)

    def _take(self, kind: Kind, content: Mapping[str, Any] | Block) -> None:
        if isinstance(content, Block):
            with self._lock:
                self._standing = replace(
                    self._standing,
                    events=self._standing.events + content.events,
                    lost=self._standing.lost + content.lost,
                    size_bytes=self._standing.size_bytes + len(content.data),
                )
            self.blocks.put(content)
            self._keep(content)
            return
        with self._lock:
            told = _told(self._standing, kind, content, self._asked_to_end)
            self._standing = replace(told, problem=told.problem or self._not_kept)
        if kind is Kind.READY:
            self.warnings = tuple(map(str, content.get("warnings", ())))
            self._ready.set()

    def _keep(self, block: Block) -> None:
        """Write a block down; where that is not to be done, the trace ends."""
        if self._keeping is None or self._not_kept:
            return
        try:
            self._keeping.put(block.data)
        except (StoreFull, OSError) as e:
            is_full = isinstance(e, StoreFull) or e.errno in (errno.ENOSPC, errno.EDQUOT)
            why = End.STORE_FULL if is_full else End.FAILED
            with self._lock:
                self._not_kept = e.message if isinstance(e, StoreFull) else str(e.strerror)
                self._asked_to_end = self._asked_to_end or why
            self._close_stdin()

    def _read_errors(self) -> None:
        source = self._process.stderr
        if source is None:
            raise AssertionError("the collector has no standard error")
        with source:
            while piece := os.read(source.fileno(), _ERROR_BYTES_MOST):
                self._error = (self._error + piece)[-_ERROR_BYTES_MOST:]


def line_for(spec: Spec, payload: Payload) -> bytes:
    """What a collector is told; it never traces this process."""
    asked = {
        **asdict(replace(spec, keep=None)),
        "payload": asdict(payload),
        "ignored_pids": [os.getpid()],
    }
    return json.dumps(asked).encode() + b"\n"


def argv_of_collector() -> tuple[str, ...]:
    """The command of the collector: this interpreter, with the path that this process has."""
    program = (
        "import sys, runpy; sys.path[:] = sys.argv.pop(1).split(chr(0x1f)); "
        "runpy.run_module('hostlerd.tracing.collector', run_name='__main__', alter_sys=True)"
    )
    return (sys.executable, "-I", "-S", "-c", program, "\x1f".join(sys.path))


def _told(before: Standing, kind: Kind, content: Mapping[str, Any], asked: End | None) -> Standing:
    try:
        if kind is Kind.READY:
            return replace(before, engine=str(content["engine"]), load_s=float(content["load_s"]))
        if kind is Kind.STANDING:
            return replace(before, cpu_s=float(content["cpu_s"]))
        return replace(
            before,
            cpu_s=float(content["cpu_s"]),
            end=asked or End[content["reason"]],
            ended_unix_s=time.time(),
            problem=str(content["problem"]),
        )
    except (KeyError, TypeError, ValueError) as e:
        raise frames.FrameInvalid(f"{kind.name} without {e}") from e
