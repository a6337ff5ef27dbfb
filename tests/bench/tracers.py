"""What traces in the benchmarks: our collector, read as a daemon reads it, and its peers."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from hostlerd.tracing.kernel import frames
from hostlerd.tracing.kernel.collecting import argv_of_collector, line_for
from hostlerd.tracing.kernel.frames import Block, Kind
from hostlerd.tracing.model.trace import DEFAULT, Payload, Spec

STRACE, PERF, BPFTRACE = "/usr/bin/strace", "/usr/bin/perf", "/usr/bin/bpftrace"
# What it prints is little: a line for each call, without what it had begun with.
SCRIPT = """
tracepoint:raw_syscalls:sys_exit /{which}/ {{ printf("%d %d %d\\n", tid, args->id, args->ret); }}
"""
# More than ours has by default, so that a trace is not ended for what it costs.
BUDGET = replace(DEFAULT, cpu_share=2.0, size_bytes=16 << 30)
END_S = 120.0
AUTOGROUP = Path("/proc/self/autogroup")


def install() -> None:
    """Install bpftrace if it is missing; the others are there for the tests."""
    if not Path(BPFTRACE).exists():
        argv = ["/usr/bin/apt-get", "-qq", "-y", "install", "--no-install-recommends", "bpftrace"]
        subprocess.run(argv, check=True, capture_output=True, timeout=300)


@contextmanager
def foremost() -> Iterator[None]:
    """Let this session have the CPUs before all others: what those do is not the question.

    Where sessions have shares of the CPU, niceness counts within one alone. Source: sched(7).
    """
    if not AUTOGROUP.exists():
        yield
        return
    before = AUTOGROUP.read_text().split()[-1]
    AUTOGROUP.write_text("-20")
    try:
        yield
    finally:
        AUTOGROUP.write_text(before)


def command(name: str, which: str, output: Path | None = None) -> tuple[str, ...]:
    """The command of a peer, up to what it traces; bpftrace traces those that `which` tells.

    Without a file for its output, it writes each event as soon as it has it.
    """
    into = () if output is None else ("-o", str(output))
    return {
        "strace": (STRACE, "-f", *into),
        "perf": (PERF, "trace", "-m64M", *into),
        "bpftrace": (BPFTRACE, *(into or ("-B", "line")), "-e", SCRIPT.format(which=which)),
    }[name]


def attached(name: str, pid: int, output: Path | None = None) -> tuple[str, ...]:
    """The command by which a peer traces a process that runs."""
    which = () if name == "bpftrace" else ("-p", str(pid))
    return (*command(name, f"pid == {pid}", output), *which)


def said_lost(output: Path, stderr: str) -> int:
    """How many events a peer says that it has lost."""
    with output.open(errors="replace") as lines:
        texts = [stderr, *(line for line in lines if "ost" in line)]
    found = re.findall(r"(?:LOST|Lost) (\d+) events", "\n".join(texts))
    return sum(map(int, found))


@dataclass(slots=True)
class Told:
    """What a collector has told, complete once it has ended. Memory is the most it had, bytes."""

    blocks: int = 0
    events: int = 0
    lost: int = 0
    size_bytes: int = 0
    cpu_s: float = 0.0
    memory_bytes: int = 0
    reason: str = ""


def memory_bytes(pid: int) -> int:
    """The most memory that a process had. Source: proc(5), VmHWM."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024 if found else 0


@contextmanager
def ours(spec: Spec, take: Callable[[Block], object] = lambda _: None) -> Iterator[Told]:
    """Trace; every block goes to `take`."""
    argv = argv_of_collector()
    collector = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert collector.stdin and collector.stdout
    source, told = collector.stdout, Told()
    collector.stdin.write(line_for(spec, Payload()))
    collector.stdin.flush()
    first = frames.read(source)
    if first is None or first[0] is not Kind.READY:
        raise RuntimeError(f"the collector could not start: {first}")

    def drain() -> None:
        while (frame := frames.read(source)) is not None:
            kind, content = frame
            if isinstance(content, Block):
                told.blocks += 1
                told.events += content.events
                told.lost += content.lost
                told.size_bytes += len(content.data)
                take(content)
            else:
                told.memory_bytes = max(told.memory_bytes, memory_bytes(collector.pid))
                told.cpu_s = float(content["cpu_s"])
                told.reason = str(content["reason"]) if kind is Kind.END else ""

    reader = threading.Thread(target=drain)
    reader.start()
    started_s = cpu_s_of(collector.pid)
    try:
        yield told
    finally:
        collector.stdin.close()
        reader.join(END_S)
        told.cpu_s -= started_s
        collector.wait(END_S)
        source.close()


def cpu_s_of(pid: int) -> float:
    """The CPU that a process has used, in steps of a clock tick. Source: proc(5), stat."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
