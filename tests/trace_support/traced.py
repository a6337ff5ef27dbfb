"""Programs that run under the capture engine, and what it saw of them."""

import json
import os
import re
import subprocess
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from hostler.core.trace.events import Events, Flag, concatenate
from hostler.core.trace.syscalls import name_of
from hostlerd.tracing.kernel import frames
from hostlerd.tracing.kernel.capture.engine import Engine
from hostlerd.tracing.kernel.collecting import argv_of_collector, line_for
from hostlerd.tracing.model.capture import Capture, Filter
from hostlerd.tracing.model.trace import Payload, Spec

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}


@contextmanager
def waiting(argv: Sequence[str], prepare: Callable[[], None] = lambda: None):
    """A process that becomes `argv` when what this yields is called, and is waited for."""
    gate_out, gate_in = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(gate_in)
            prepare()
            os.read(gate_out, 1)
            os.close(gate_out)
            quiet = os.open("/dev/null", os.O_RDWR)
            for fd in (0, 1, 2):
                os.dup2(quiet, fd)
            os.close(quiet)
            os.execve(argv[0], list(argv), ENVIRONMENT)  # noqa: S606
        finally:
            os._exit(127)
    os.close(gate_out)
    status = []

    def go(wait: bool = True) -> int:
        os.write(gate_in, b"x")
        if wait:
            status.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            return status[0]
        return 0

    try:
        yield pid, go
    finally:
        os.close(gate_in)
        if not status:
            os.waitpid(pid, 0)


def trace(argv: Sequence[str], **wanted) -> Events:
    """All events of a program and of what it starts, its first execve included."""
    with waiting(argv) as (pid, go), Engine(Capture(Filter(pids=(pid,)), **wanted)) as engine:
        engine.start()
        assert go() == 0
        events = drained(engine)
        assert engine.losses.events == engine.losses.names == engine.losses.entries == 0
        return from_exec(events)


def drained(engine: Engine) -> Events:
    """All that is left to be read."""
    batches = []
    while len(batch := engine.read(0.2)):
        batches.append(batch)
    return concatenate(batches)


def from_exec(events: Events) -> Events:
    first = int(np.flatnonzero(events["syscall"] == 59)[0])
    return events.select(np.arange(first, len(events)))


def names(events: Events) -> list[str]:
    is_32 = (events["flags"] & Flag.IS_32_BIT) != 0
    return [
        name_of(n, bool(b)) for n, b in zip(events["syscall"].tolist(), is_32.tolist(), strict=True)
    ]


def calls_by_thread(events: Events) -> list[list[str]]:
    """The names of the calls of each thread in order of entry, threads by their first call.

    Without those of which only the end was seen: a child returning from a clone that its parent
    had called, which strace does not show.
    """
    events = events.select((events["flags"] & Flag.ENTRY_LOST) == 0)
    events = events.select(np.argsort(events["time_ns"], kind="stable"))
    calls: dict[int, list[str]] = {}
    for tid, name in zip(events["tid"].tolist(), names(events), strict=True):
        calls.setdefault(tid, []).append(name)
    return list(calls.values())


def strace(argv: Sequence[str], place: Path) -> list[list[str]]:
    """The same of `strace -f`, which writes a call down when it begins."""
    output = place / "strace.txt"
    with Path(os.devnull).open("r+b") as quiet:
        subprocess.run(
            ["strace", "-f", "-qq", "-e", "signal=none", "-o", output, *argv],
            check=True,
            env=ENVIRONMENT,
            timeout=60,
            stdin=quiet,
            stdout=quiet,
            stderr=quiet,
        )
    calls: dict[str, list[str]] = {}
    for line in output.read_text(errors="replace").splitlines():
        found = re.match(r"(\d+) +(\w+)\(", line)
        if found:
            calls.setdefault(found[1], []).append(found[2])
    return list(calls.values())


def collector(spec: Spec, payload: Payload | None = None) -> subprocess.Popen:
    """A collector that has been told what to trace."""
    process = subprocess.Popen(argv_of_collector(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdin.write(line_for(spec, payload or Payload()))
    process.stdin.flush()
    return process


def next_frame(process: subprocess.Popen) -> tuple[frames.Kind, Any]:
    """The next frame that a collector writes, but for those that tell how it stands."""
    while (told := frames.read(process.stdout))[0] is frames.Kind.STANDING:
        pass
    return told


def bpftool(what):
    shown = subprocess.run(
        ["/usr/sbin/bpftool", "--json", what, "show"],
        check=True,
        capture_output=True,
        timeout=30,
    )
    return json.loads(shown.stdout)


def programs_of(pid: int) -> set[int]:
    """The programs that a process holds, by what /proc shows of its fds."""
    found = set()
    for fd in Path(f"/proc/{pid}/fdinfo").iterdir():
        lines = dict(line.split(":", 1) for line in fd.read_text().splitlines() if ":" in line)
        if "prog_id" in lines and "link_id" not in lines:
            found.add(int(lines["prog_id"]))
    return found


def program_ids():
    """The programs in the kernel."""
    return {each["id"] for each in bpftool("prog")}
