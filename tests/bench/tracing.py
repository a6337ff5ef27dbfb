"""A trace of all calls, beside strace, perf trace and bpftrace: what it adds, and what it loses.

`dd bs=1` makes two short calls for each byte and says itself how long it took; `find` is timed by
the shell that starts it, below the tracer too, so that what a tracer takes to start is in nobody's
time. An echo server is asked over loopback while a tracer is attached to it. What is added is the
time of a round less that of the untraced one before it.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import tracers
import tracing_load
import tracing_rate
from report import Row
from rounds import in_turn

from hostlerd.tracing.model.trace import Spec

ROUNDS, BUDGET_S = 5, 90.0
PEERS = {"strace": "strace -f", "perf": "perf trace -m 64M", "bpftrace": "bpftrace printf"}
# The greatest part of what a peer adds that ours may add.
TARGETS = {"strace": 0.02, "perf": 0.33}
NAMES = ("plain", "ours", *PEERS)
# Ours by what it traces with: where the kernel runs no BPF program, tracefs.
ENGINES = {"ours": "bpf", "tracefs": "tracefs"}
DD = ("/usr/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=1")
# So many bytes for each: two calls a byte, and each long enough to be timed.
BYTES = {
    **dict.fromkeys(("plain", "ours", "tracefs"), 400_000),
    **{"strace": 10_000, "perf": 50_000, "bpftrace": 50_000},
}
FIND = "TIMEFORMAT=%R; time /usr/bin/find /usr >/dev/null\n"
TRIPS = {"plain": 5_000, "ours": 5_000, "strace": 500, "perf": 2_000, "bpftrace": 2_000}
READY_S = 60.0
GATE = (
    sys.executable,
    "-ISc",
    "import os, sys; os.read(0, 1); os.execv(sys.argv[1], sys.argv[1:])",
)
ECHO = """
import socket
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
connection, _ = server.accept()
while data := connection.recv(64):
    connection.sendall(data)
"""


@dataclass(frozen=True, slots=True)
class Taken:
    """What a round took, in the unit of its row, and how many events its tracer lost.

    `cpu_s` is that of the command and its tracer.
    """

    time: float
    lost: int = 0
    cpu_s: float = 0.0


def rows() -> list[Row]:
    """Measure all in turn."""
    tracers.install()
    with tempfile.TemporaryDirectory(prefix="hostler-bench-trace-") as place, tracers.foremost():
        output = Path(place) / "trace"
        dd, find, echo = (
            in_turn({name: bound(run, name, output) for name in names}, ROUNDS, BUDGET_S)
            for run, names in (
                (run_dd, (*NAMES, "tracefs")),
                (run_find, NAMES),
                (run_echo, NAMES),
            )
        )
        return [
            *added("us added to a call of dd bs=1", dd),
            *added("us added to a call of dd bs=1, by tracefs", dd, {"strace": 0.1}, "tracefs"),
            *added("us of CPU added to a call of dd bs=1, the tracer's with it", cpu_of(dd), {}),
            *added("s added to find /usr", find),
            *added("us added to a round trip of the echo server", echo),
            Row(
                *("tracing", "us for a round trip of the echo server"),
                *(times(echo["ours"]), times(echo["plain"]), "untraced", 1.35),
            ),
            *lost(dd, find, echo),
            *tracing_load.rows(),
            *tracing_rate.rows(Path(place)),
        ]


def bound(run: Callable[[str, Path], Taken], name: str, output: Path) -> Callable[[], Taken]:
    """A contestant."""
    return lambda: run(name, output)


def times(taken: Sequence[Taken]) -> tuple[float, ...]:
    """The time of each round."""
    return tuple(each.time for each in taken)


def cpu_of(dd: Mapping[str, Sequence[Taken]]) -> dict[str, list[Taken]]:
    """The same rounds of dd by the CPU they took: us for each call."""
    return {
        name: [Taken(each.cpu_s / (2 * BYTES[name]) * 1e6) for each in taken]
        for name, taken in dd.items()
    }


def added(
    metric: str,
    found: Mapping[str, Sequence[Taken]],
    targets: Mapping[str, float] = TARGETS,
    mine: str = "ours",
) -> list[Row]:
    """A row for each peer."""
    more = {
        name: tuple(
            each.time - plain.time for each, plain in zip(found[name], found["plain"], strict=True)
        )
        for name in (mine, *PEERS)
    }
    return [
        Row("tracing", metric, more[mine], more[name], words, targets.get(name))
        for name, words in PEERS.items()
    ]


def lost(*found: Mapping[str, Sequence[Taken]]) -> list[Row]:
    """How many events of a round each has lost, by what it says itself."""
    sums = {
        name: tuple(
            float(sum(taken.lost for taken in each))
            for each in zip(*(runs[name] for runs in found), strict=False)
        )
        for name in ("ours", "perf", "bpftrace")
    }
    what = "events of dd, find and the echo server that were lost"
    return [
        Row("tracing", what, sums["ours"], sums[name], PEERS[name], 0.0)
        for name in ("perf", "bpftrace")
    ]


def run_dd(name: str, output: Path) -> Taken:
    """Let dd run: us for a call."""
    calls = 2 * BYTES[name]
    argv = (*DD, f"count={BYTES[name]}")
    stderr, gone, cpu_s = followed(name, output, argv, "dd", calls)
    found = re.search(r"copied, ([0-9.e-]+) s,", stderr)
    if not found:
        raise RuntimeError(f"dd did not say how long it took: {stderr}")
    return Taken(float(found[1]) / calls * 1e6, gone, cpu_s)


def run_find(name: str, output: Path) -> Taken:
    """Let find look at all of /usr: s."""
    script = output.with_name("find")
    script.write_text(FIND)
    stderr, gone, _ = followed(name, output, ("/usr/bin/bash", str(script)), "find", 10_000)
    return Taken(float(re.findall(r"^\d+\.\d+$", stderr, re.MULTILINE)[-1]), gone)


def followed(
    name: str, output: Path, argv: Sequence[str], comm: str, calls: int
) -> tuple[str, int, float]:
    """Run a command below a tracer: what it wrote as errors, events lost, CPU that both took.

    Raises RuntimeError if ours has told of fewer than so many calls.
    """
    if name in ENGINES:
        return gated(argv, calls, ENGINES[name])
    tracer = () if name == "plain" else tracers.command(name, f'comm == "{comm}"', output)
    # bpftrace takes what it has to start as one word, and knows no quotes.
    command = ("-c", " ".join(argv)) if name == "bpftrace" else argv
    before = children_cpu_s()
    done = subprocess.run(
        [*tracer, *command], check=True, capture_output=True, text=True, timeout=300
    )
    cpu_s = children_cpu_s() - before
    return done.stderr, tracers.said_lost(output, done.stderr) if tracer else 0, cpu_s


def gated(argv: Sequence[str], calls: int, engine: str) -> tuple[str, int, float]:
    """The same of ours, from the first call of the command; CPU but for what loading takes."""
    process = subprocess.Popen(
        [*GATE, *argv],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    spec = Spec(pids=(process.pid,), budget=tracers.BUDGET, engine=engine)
    with tracers.ours(spec) as told:
        before = children_cpu_s()
        _, stderr = process.communicate("x", timeout=300)
        cpu_s = children_cpu_s() - before
    if told.events + told.lost < calls:
        raise RuntimeError(f"more calls were made than told: {told}")
    return stderr, told.lost, cpu_s + told.cpu_s


def children_cpu_s() -> float:
    """The CPU that children of this process have used which have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run_echo(name: str, output: Path) -> Taken:
    """Ask an echo server: us for a round trip."""
    server = subprocess.Popen([sys.executable, "-ISc", ECHO], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout
        port = int(server.stdout.readline())
        with socket.create_connection(("127.0.0.1", port)) as connection:
            if name == "plain":
                return Taken(asked(connection, TRIPS[name]))
            if name == "ours":
                with tracers.ours(Spec(pids=(server.pid,), budget=tracers.BUDGET)) as told:
                    taken = asked(connection, TRIPS[name])
                return Taken(taken, told.lost)
            return asked_below(name, output, server.pid, connection)
    finally:
        server.kill()
        server.communicate()


def asked(connection: socket.socket, trips: int) -> float:
    """Send and receive, one after the other; us for each."""
    start = time.monotonic()
    for _ in range(trips):
        connection.sendall(b"x" * 64)
        connection.recv(64)
    return (time.monotonic() - start) / trips * 1e6


def asked_below(name: str, output: Path, pid: int, connection: socket.socket) -> Taken:
    """The same with a peer attached, once it has written what it saw."""
    output.unlink(missing_ok=True)
    peer = subprocess.Popen(
        tracers.attached(name, pid, output), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    try:
        give_up = time.monotonic() + READY_S
        # Which lines it writes first has nothing to do with calls, and it holds some back.
        while not output.exists() or output.stat().st_size < 4096:
            if time.monotonic() > give_up:
                raise TimeoutError(f"{name} has not written anything")
            asked(connection, 20)
        taken = asked(connection, TRIPS[name])
    finally:
        peer.send_signal(signal.SIGINT)
        _, stderr = peer.communicate(timeout=60)
    return Taken(taken, tracers.said_lost(output, os.fsdecode(stderr)))
