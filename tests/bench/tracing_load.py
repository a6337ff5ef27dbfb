"""From the start of a tracer until its first event has arrived, beside the peers."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import tracers
from report import Row
from rounds import in_turn

from hostlerd.tracing.kernel import frames
from hostlerd.tracing.kernel.collecting import argv_of_collector, line_for
from hostlerd.tracing.kernel.frames import Kind
from hostlerd.tracing.model.trace import Payload, Spec

ROUNDS, BUDGET_S = 5, 60.0
# A process that calls all the time, and takes hardly any of it.
TICKING = "import os, time\nwhile True: os.getppid(); time.sleep(0.001)"
EVENT = re.compile(rb"ppid|nanosleep|^\d+ \d+ -?\d+$")
PEERS = {"strace": "strace -p", "perf": "perf trace -p", "bpftrace": "bpftrace printf"}


def rows() -> list[Row]:
    """Measure all in turn."""
    with subprocess.Popen([sys.executable, "-ISc", TICKING]) as ticking:
        try:
            contestants: dict[str, Callable[[], float]] = {"ours": lambda: ours(ticking.pid)}
            contestants |= {name: bound(name, ticking.pid) for name in PEERS}
            found = in_turn(contestants, ROUNDS, BUDGET_S)
        finally:
            ticking.kill()
    what = "s from its start to its first event"
    return [
        Row("tracing", what, tuple(found["ours"]), tuple(found[name]), words)
        for name, words in PEERS.items()
    ]


def bound(name: str, pid: int) -> Callable[[], float]:
    """A contestant."""
    return lambda: peer(name, pid)


def ours(pid: int) -> float:
    """The collector's process: from its start until its first block is here."""
    start = time.monotonic()
    argv = argv_of_collector()
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as collector:
        assert collector.stdin and collector.stdout
        collector.stdin.write(line_for(Spec(pids=(pid,), budget=tracers.BUDGET), Payload()))
        collector.stdin.flush()
        while (frame := frames.read(collector.stdout)) is not None:
            if frame[0] is Kind.BLOCK:
                break
        taken_s = time.monotonic() - start
        collector.stdin.close()
        collector.stdout.read()
    return taken_s


def peer(name: str, pid: int) -> float:
    """The same of a peer, until it has written a line about a call."""
    start = time.monotonic()
    argv = tracers.attached(name, pid)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as tracer:
        assert tracer.stdout
        lines: list[bytes] = []
        for line in tracer.stdout:
            lines.append(line)
            if EVENT.search(line):
                break
        else:
            raise RuntimeError(f"{name} has told no event: {lines}")
        taken_s = time.monotonic() - start
        tracer.send_signal(signal.SIGINT)
        tracer.stdout.read()
    return taken_s
