"""The engine for whole hosts without BPF, tracefs: beside the tracer in the kernel, and perf."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stream_daemon import running
from traced import waiting

from hostler.api.tracing.v1 import trace_pb2 as pb
from hostler.api.tracing.v1 import trace_pb2_grpc
from hostler.core.trace.blocks import decode
from hostler.core.trace.events import Events, Flag, concatenate
from hostler.core.trace.syscalls import name_of
from hostlerd.tracing.kernel import frames
from hostlerd.tracing.kernel.collecting import argv_of_collector, line_for
from hostlerd.tracing.kernel.frames import Block, Kind
from hostlerd.tracing.model.trace import DEFAULT, Budget, Payload, Spec

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(180)]

INSTANCES = Path("/sys/kernel/tracing/instances")
GETPPID, SCHED_SETAFFINITY = 110, 203
PROGRAM = """
from hostlerd.tracing.__main__ import build
from hostlerd.runtime.server import main
main("tracing", build)
"""
CALLER = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(15, sys.argv[1].encode())
sys.stdin.readline()
for _ in range(int(sys.argv[2])):
    os.getppid()
"""
# Whoever brings it back goes by another name: of its own calls the ends are on a full ring.
MOVER = """
import ctypes, os, sys
name = ctypes.CDLL(None).prctl
name(15, sys.argv[1].encode())
first, *_, last = sorted(os.sched_getaffinity(0)) * 2
me, (asked, ask), (done, tell) = os.getpid(), os.pipe(), os.pipe()
if not os.fork():
    name(15, b"other")
    os.close(ask)
    while os.read(asked, 1):
        os.sched_setaffinity(me, {last})
        os.write(tell, b"x")
    os._exit(0)
sys.stdin.readline()
for i in range(int(sys.argv[2])):
    os.sched_setaffinity(0, {first})
for _ in range(200):
    os.write(ask, b"x"), os.read(done, 1)
    os.sched_setaffinity(0, {first})
"""
SCRIPT = """
cat /etc/hostname nothing-here
(cd /usr && ls . > /dev/null)
echo hi | wc -c
exec md5sum /etc/passwd
"""
# getppid and poll for 20 ms, as programs of 32 bits count.
SMALL = """
.globl _start
_start: mov $64, %eax
        int $0x80
        mov $168, %eax
        xor %ebx, %ebx
        xor %ecx, %ecx
        mov $20, %edx
        int $0x80
        jmp _start
"""
# As packaging/systemd/hostler-tracing.service has them.
_OF_THE_UNIT = "+bpf,+perfmon,+sys_ptrace,+dac_read_search"


class Collector:
    """A collector that serves by tracefs, in a session of its own."""

    def __init__(self, spec: Spec, through: Sequence[str] = ()) -> None:
        self.process = subprocess.Popen(
            [*through, *argv_of_collector()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self.process.stdin
        self.process.stdin.write(line_for(spec, Payload()))
        self.process.stdin.flush()
        self.kind, self.said = self.frame()

    def frame(self) -> tuple[Kind, Mapping[str, Any]]:
        assert self.process.stdout
        kind, content = frames.read(self.process.stdout) or (None, {})
        assert kind
        assert isinstance(content, Mapping)
        return kind, content

    def rest(self, *, stop: bool = True) -> Events:
        """All events, once it has ended: now, or by itself."""
        assert self.process.stdin
        assert self.process.stdout
        if stop:
            self.process.stdin.close()
        found = [Events.empty()]
        while (frame := frames.read(self.process.stdout)) is not None:
            if isinstance(frame[1], Block):
                found.append(decode(frame[1].data))
            elif frame[0] is Kind.END:
                self.said = frame[1]
        self.process.wait(30)
        return concatenate(found)


@contextmanager
def collecting(spec: Spec, through: Sequence[str] = ()) -> Iterator[Collector]:
    made = Collector(spec, through)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.wait()
        for pipe in (made.process.stdin, made.process.stdout):
            if pipe:
                pipe.close()


def eventually(holds: Callable[[], Any]) -> Any:
    end = time.monotonic() + 60
    while not (found := holds()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def caller(
    program: str, name: str, count: int, through: Sequence[str] = ()
) -> subprocess.Popen[bytes]:
    argv = [*through, sys.executable, "-c", program, name, str(count)]
    return subprocess.Popen(argv, stdin=subprocess.PIPE)


def instance_of(process: subprocess.Popen[bytes]) -> Path:
    found = sorted(INSTANCES.glob(f"hostler-{process.pid}-*"))
    assert [each.name.endswith("-tasks") for each in found] == [False, True]
    return found[0]


def counted(witness: Path) -> int:
    """What perf stat -x, has counted."""
    (line,) = (x for x in witness.read_text().splitlines() if "raw_syscalls" in x)
    return int(line.split(",")[0])


def test_each_call_is_counted_as_perf_and_the_tracer_count_it(tmp_path: Path) -> None:
    """Of the whole host, by a filter that the kernel compares names by."""
    name, witness = f"c{os.getpid()}", tmp_path / "perf.txt"
    perf = ["/usr/bin/perf", "stat", "-x,", "-o", str(witness), "-e", "raw_syscalls:sys_exit"]
    process = caller(CALLER, name, 500, [*perf, "--filter", f"id == {GETPPID}"])
    text = f"proc.name={name} and evt.type=getppid"
    by_name = [Spec(filter=text, budget=DEFAULT, engine=each) for each in ("tracefs", "bpf")]
    with collecting(by_name[0]) as ours, collecting(by_name[1]) as other:
        assert ours.kind is Kind.READY, ours.said
        assert ours.said["engine"] == "tracefs"
        eventually(lambda: name in names_of_children(process.pid))
        process.communicate(b"\n", timeout=60)
        seen, theirs = ours.rest(), other.rest()
    assert len(seen) == len(theirs) == counted(witness) == 500
    assert seen.lost == 0
    assert seen.texts[seen.processes["name"][seen["process"][0]]].decode() == name
    assert set(seen["result"].tolist()) == {process.pid}
    assert (seen["latency_ns"] > 0).all()


def names_of_children(pid: int) -> set[str]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {Path(f"/proc/{each}/comm").read_text().strip() for each in children}


def test_a_run_is_the_same_calls_as_the_tracer_sees(tmp_path: Path) -> None:
    """One run, seen by both at once: pointers are the same, too."""
    with waiting(["/bin/sh", "-c", SCRIPT]) as (pid, go):
        specs = [Spec(pids=(pid,), budget=DEFAULT, engine=each) for each in ("tracefs", "bpf")]
        with collecting(specs[0]) as ours, collecting(specs[1]) as other:
            assert go() == 0
            seen, theirs = (each.rest(stop=False) for each in (ours, other))
            assert ours.said["reason"] == other.said["reason"] == "PROCESSES_ENDED"
    assert seen.lost == theirs.lost == 0
    assert told(seen) == told(theirs)
    assert len({row[0] for row in told(seen)}) == 5
    assert len(seen) > 300


def test_a_program_of_32_bits_counts_calls_its_own_way(tmp_path: Path) -> None:
    source, program = tmp_path / "small.S", tmp_path / "small"
    source.write_text(SMALL)
    argv = ["gcc", "-m32", "-nostdlib", "-static", "-o", program, source]
    subprocess.run(argv, check=True, timeout=60, capture_output=True)
    with subprocess.Popen([program]) as process:
        try:
            budget = replace(DEFAULT, events=10)
            with collecting(Spec(pids=(process.pid,), budget=budget, engine="tracefs")) as ours:
                seen = ours.rest(stop=False)
        finally:
            process.kill()
    assert {name_of(n, True) for n in seen["syscall"].tolist()} == {"getppid", "poll"}
    assert set((seen["flags"] & Flag.IS_32_BIT).tolist()) == {int(Flag.IS_32_BIT)}
    assert set(seen["result"].tolist()) == {os.getpid(), 0}


def told(events: Events) -> list[tuple[Any, ...]]:
    """Each thread's calls, in their order; but for the arguments of those whose begin is lost."""
    columns = {name: events[name].tolist() for name in ("tid", "syscall", "result", "fd", "flags")}
    has_entry = (events["flags"] & Flag.ENTRY_LOST) == 0
    arguments = np.stack([np.where(has_entry, events[f"arg{i}"], 0) for i in range(6)], 1)
    processes = events.processes[events["process"]]
    rows = [
        (
            columns["tid"][i],
            columns["syscall"][i],
            columns["result"][i],
            columns["fd"][i] if has_entry[i] else -1,
            columns["flags"][i],
            tuple(arguments[i].tolist()),
            events.texts[processes["name"][i]],
            *(int(processes[each][i]) for each in ("pid", "ppid", "uid", "gid")),
        )
        for i in np.lexsort((events["time_ns"], events["tid"])).tolist()
    ]
    return rows


@pytest.mark.parametrize(
    ("program", "call", "count", "others"),
    [(CALLER, GETPPID, 20_000, 0), (MOVER, SCHED_SETAFFINITY, 2_000, 200)],
    ids=["whole", "one end on a CPU whose ring is full"],
)
def test_what_does_not_fit_is_lost_and_counted(
    tmp_path: Path, program: str, call: int, count: int, others: int
) -> None:
    name, witness = f"l{os.getpid()}", tmp_path / "perf.txt"
    perf = ["/usr/bin/perf", "stat", "-x,", "-o", str(witness), "-e", "raw_syscalls:sys_enter"]
    counting = f'id == {call} && comm == "{name}"'
    process = caller(program, name, count, [*perf, "--filter", counting])
    eventually(lambda: name in names_of_children(process.pid))
    budget = Budget(3600.0, 0, DEFAULT.size_bytes, 1 << 16, 2.0)
    text = f"proc.name={name} and evt.type={name_of(call)}"
    with collecting(Spec(filter=text, budget=budget, engine="tracefs")) as ours:
        assert ours.kind is Kind.READY
        os.kill(ours.process.pid, signal.SIGSTOP)
        process.communicate(b"\n", timeout=60)
        os.kill(ours.process.pid, signal.SIGCONT)
        seen = ours.rest()
    assert counted(witness) == count + others
    assert seen.lost > 0
    assert len(seen) > 0
    assert len(seen) + seen.lost == count + others
    halves = (seen["flags"] & (Flag.ENTRY_LOST | Flag.UNFINISHED)) != 0
    assert np.count_nonzero(halves) >= others * 0.9


def test_nothing_stays_of_a_trace(tmp_path: Path) -> None:
    spec = Spec(filter="evt.type=getppid", budget=DEFAULT, engine="tracefs")
    with collecting(spec) as ended:
        assert instance_of(ended.process).is_dir()
        ended.rest()
        assert not list(INSTANCES.glob(f"hostler-{ended.process.pid}-*"))
    with collecting(spec) as killed:
        folder = instance_of(killed.process)
        killed.process.kill()
        killed.process.wait()
        eventually(lambda: not list(INSTANCES.glob(f"{folder.name}*")))


def test_a_daemon_serves_by_it_and_takes_it_along_when_it_is_killed(tmp_path: Path) -> None:
    name = f"d{os.getpid()}"
    process = caller(CALLER, name, 500)
    with running(tmp_path, PROGRAM) as daemon:
        stub = trace_pb2_grpc.TraceServiceStub(daemon.channel("vera"))
        eventually(lambda: Path(f"/proc/{process.pid}/comm").read_text().strip() == name)
        spec = pb.TraceSpec(engine="tracefs", filter=f"proc.name={name} and evt.type=getppid")
        spec.budget.events = 500
        asked = pb.StartTraceRequest(spec=spec)
        answer = stub.StartTrace(asked, timeout=60, wait_for_ready=True)
        assert (answer.trace.engine, "no paths" in answer.warnings[0]) == ("tracefs", True)
        process.communicate(b"\n", timeout=60)
        said = list(stub.StreamTrace(pb.StreamTraceRequest(name=answer.trace.name), timeout=90))
        assert sum(each.batch.events for each in said) == 500
        assert said[-1].batch.ended.end_reason == "BUDGET_EVENTS"
        before = set(INSTANCES.iterdir())
        stub.StartTrace(asked, timeout=60)
        made = set(INSTANCES.iterdir()) - before
        assert len(made) == 2
        daemon.process.send_signal(signal.SIGKILL)
        daemon.process.wait()
        eventually(lambda: not made & set(INSTANCES.iterdir()))
        daemon.kill_and_start()


def test_of_a_control_group_only_its_processes_are_told() -> None:
    unified = Path("/sys/fs/cgroup/unified")
    unified = unified if unified.is_dir() else unified.parent
    group, name = unified / f"hostler-{os.getpid()}", f"g{os.getpid()}"
    group.mkdir()
    processes = [caller(CALLER, name, count) for count in (500, 300)]
    try:
        (group / "cgroup.procs").write_text(str(processes[0].pid))
        for process in processes:
            comm = Path(f"/proc/{process.pid}/comm")
            eventually(lambda comm=comm: comm.read_text().strip() == name)
        text = f"proc.name={name} and evt.type=getppid"
        cgroup = str(group).removeprefix("/sys/fs/cgroup")
        spec = Spec(filter=text, cgroup=cgroup, budget=DEFAULT, engine="tracefs")
        with collecting(spec) as ours:
            assert ours.kind is Kind.READY, ours.said
            for process in processes:
                process.communicate(b"\n", timeout=60)
            seen = ours.rest()
        assert len(seen) == 500
        assert seen.texts[seen.processes["cgroup"][seen["process"][0]]] == f"/{group.name}".encode()
        with collecting(replace(spec, cgroup="/nowhere.slice")) as ours:
            assert "No such file" in ours.said["problem"]
    finally:
        for process in processes:
            process.kill()
            process.wait()
        group.rmdir()


def test_what_a_dead_collector_has_left_goes_with_the_next_start() -> None:
    process = subprocess.Popen(["/usr/bin/sleep", "600"])
    start = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19]
    left = [INSTANCES / f"hostler-{process.pid}-{start}", INSTANCES / f"hostler-1-{start}-tasks"]
    try:
        for folder in left:
            folder.mkdir()
        spec = Spec(filter="evt.type=getppid", budget=DEFAULT, engine="tracefs")
        with collecting(spec) as ours:
            assert ours.kind is Kind.READY
            assert [folder.exists() for folder in left] == [True, False]
            process.kill()
            process.wait()
            with collecting(spec):
                assert not left[0].exists()
                assert instance_of(ours.process).is_dir()
    finally:
        process.kill()
        process.wait()
        for folder in left:
            if folder.exists():
                folder.rmdir()


def test_where_there_is_no_bpf_the_host_is_traced_by_tracefs() -> None:
    less = ["/usr/bin/setpriv", "--bounding-set", "-bpf,-perfmon,-sys_admin"]
    spec = Spec(filter=f"evt.type=getppid and proc.pid={os.getpid()}", budget=DEFAULT)
    with collecting(spec, less) as ours:
        assert ours.kind is Kind.READY, ours.said
        assert ours.said["engine"] == "tracefs"
        assert "not permitted" in ours.said["warnings"][0]
        assert "no paths" in ours.said["warnings"][1]
        os.getppid()
        # Whoever starts a collector is never traced by it.
        assert len(ours.rest()) == 0


def test_who_may_not_write_there_is_told_so() -> None:
    for more, kind in (("", Kind.END), (",+dac_override", Kind.READY)):
        held = _OF_THE_UNIT + more
        bounds = "-all," + held
        unit = ["/usr/bin/setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        unit += [f"--inh-caps=-all,{held}", f"--ambient-caps={held}", f"--bounding-set={bounds}"]
        with collecting(Spec(budget=DEFAULT, engine="tracefs"), unit) as ours:
            assert ours.kind is kind
            if kind is Kind.END:
                assert ours.said["problem"].startswith(f"{INSTANCES}/hostler-")
                assert ours.said["problem"].endswith("Permission denied")
