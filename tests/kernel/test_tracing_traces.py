"""Traces of a whole daemon: what they tell, to whom, and when they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from stream_daemon import Daemon, running
from traced import program_ids, programs_of

from hostler.api.tracing.v1 import trace_pb2 as pb
from hostler.api.tracing.v1 import trace_pb2_grpc
from hostler.core.trace.blocks import decode
from hostler.core.trace.events import Events, Flag, concatenate
from hostler.core.trace.syscalls import name_of
from hostlerd.tracing.kernel import traces
from hostlerd.tracing.kernel.collecting import argv_of_collector
from hostlerd.tracing.model.trace import DEFAULT, End, Payload, Spec

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(180)]

PROGRAM = """
from hostlerd.tracing.__main__ import build
from hostlerd.runtime.server import main
main("tracing", build)
"""
SECRET = "correct horse battery staple"  # noqa: S105 - what must not be seen


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("tracing")
    # systemd-socket-activate names the local socket.
    with running(folder, PROGRAM) as made:
        yield made


def start(daemon: Daemon, user: str = "vera", **spec: Any) -> tuple[Any, Any]:
    stub = trace_pb2_grpc.TraceServiceStub(daemon.channel(user))
    answer = stub.StartTrace(
        pb.StartTraceRequest(spec=pb.TraceSpec(**spec)), timeout=60, wait_for_ready=True
    )
    return stub, answer


def collected(stub: Any, name: str, with_payload: bool = False) -> tuple[Events, Any, list[str]]:
    """Everything up to the end."""
    make, call = (
        (pb.StreamPayloadTraceRequest, stub.StreamPayloadTrace)
        if with_payload
        else (pb.StreamTraceRequest, stub.StreamTrace)
    )
    found, warnings, ended = [], [], None
    for answer in call(make(name=name), timeout=90):
        batch = answer.batch
        assert not batch.batches_dropped
        if batch.block:
            found.append(decode(batch.block))
        warnings += batch.warnings
        ended = batch.ended if batch.HasField("ended") else None
    return concatenate(found), ended, warnings


def calls(events: Events) -> list[str]:
    return [name_of(int(number)) for number in events["syscall"]]


def cat(path: Path) -> subprocess.Popen[bytes]:
    """A process that can be traced from its beginning: it waits for a line before it reads."""
    program = f"import sys; sys.stdin.readline(); open({str(path)!r}, 'rb', 0).read()"
    argv = [sys.executable, "-I", "-S", "-c", program]
    return subprocess.Popen(argv, stdin=subprocess.PIPE)


def go(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin
    process.stdin.write(b"go\n")
    process.stdin.close()
    assert process.wait(30) == 0


def test_a_process_is_traced_until_it_ends(daemon: Daemon, tmp_path: Path) -> None:
    path = tmp_path / "read-me"
    path.write_text(SECRET)
    process = cat(path)
    stub, started = start(daemon, pids=[process.pid])
    assert started.trace.engine == "bpf"
    go(process)
    events, ended, _ = collected(stub, started.trace.name)
    assert ended.end_reason == "PROCESSES_ENDED"
    assert ended.lost == 0
    assert ended.events == len(events)
    assert set(events.of_process("pid").tolist()) == {process.pid}
    names = [events.texts[row].decode() for row in events.of_file("name")]
    reads = [
        int(result)
        for call, name, result in zip(calls(events), names, events["result"], strict=True)
        if call == "read" and name == str(path)
    ]
    assert reads == [len(SECRET), 0]
    assert calls(events)[-1] == "exit_group"


def test_only_what_passes_the_filter_is_told(daemon: Daemon) -> None:
    stub, started = start(
        daemon, filter="evt.type=openat and fd.name=/etc/hostname", budget=pb.TraceBudget(events=2)
    )
    for _ in range(3):
        subprocess.run(["/bin/cat", "/etc/hostname"], stdout=subprocess.DEVNULL, check=True)
    events, ended, _ = collected(stub, started.trace.name)
    assert ended.end_reason == "BUDGET_EVENTS"
    assert calls(events) == ["openat", "openat"]
    assert {events.texts[row] for row in events.of_file("name")} == {b"/etc/hostname"}


def test_a_trace_begins_at_its_time_and_lasts_as_long_as_it_may(daemon: Daemon) -> None:
    begin_ns = time.time_ns() + 5_000_000_000
    spec = pb.TraceSpec(filter="evt.type=getppid")
    spec.start_time.FromNanoseconds(begin_ns)
    spec.budget.duration.seconds = 2
    process = subprocess.Popen(
        [sys.executable, "-c", "import os, time\nwhile True: os.getppid(); time.sleep(0.01)"]
    )
    try:
        stub = trace_pb2_grpc.TraceServiceStub(daemon.channel("vera"))
        started = stub.StartTrace(pb.StartTraceRequest(spec=spec), timeout=60)
        events, ended, _ = collected(stub, started.trace.name)
    finally:
        process.kill()
        process.wait()
    assert ended.end_reason == "BUDGET_DURATION"
    times = events["time_ns"].astype("<i8") - begin_ns
    assert len(times) > 50
    assert times.min() >= 0
    assert times.max() <= 2_000_000_000


@pytest.mark.parametrize("engine", ["bpf", "strace"])
def test_events_know_when_their_trace_began(daemon: Daemon, engine: str) -> None:
    program = (
        "import os, select, sys\nwhile not select.select([sys.stdin], [], [], 0.1)[0]: os.getppid()"
    )
    process = subprocess.Popen([sys.executable, "-I", "-S", "-c", program], stdin=subprocess.PIPE)
    before_ns = time.time_ns()
    text = "evt.type=getppid and evt.reltime > 1s"
    stub, started = start(daemon, filter=text, pids=[process.pid], engine=engine)
    after_ns = time.time_ns()
    # However long the engine takes to begin.
    time.sleep(3)
    process.communicate(timeout=30)
    events, _, _ = collected(stub, started.trace.name)
    assert before_ns <= events.start_ns <= after_ns
    assert len(events) > 3
    first_ns = int((events["time_ns"] + events["latency_ns"]).min())
    assert first_ns - events.start_ns > 1_000_000_000


def test_who_may_not_see_payloads_does_not(daemon: Daemon, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text(SECRET)
    viewer = trace_pb2_grpc.TraceServiceStub(daemon.channel("vera"))
    admin = trace_pb2_grpc.TraceServiceStub(daemon.channel("alice"))
    payload = pb.PayloadSpec(data_bytes=1000, command_lines=True, environments=True)
    process = cat(path)
    asked = pb.StartPayloadTraceRequest(spec=pb.TraceSpec(pids=[process.pid]), payload=payload)
    for name in ("vera", "olga"):
        with pytest.raises(grpc.RpcError) as denied:
            next(trace_pb2_grpc.TraceServiceStub(daemon.channel(name)).StartPayloadTrace(asked))
        assert denied.value.code() is grpc.StatusCode.PERMISSION_DENIED
    started = next(admin.StartPayloadTrace(asked, timeout=60))
    go(process)
    seen, _, said = collected(admin, started.trace.name, with_payload=True)
    assert SECRET.encode() in seen.texts
    assert not said
    with pytest.raises(grpc.RpcError) as denied:
        collected(viewer, started.trace.name, with_payload=True)
    assert denied.value.code() is grpc.StatusCode.PERMISSION_DENIED
    shown, _, said = collected(viewer, started.trace.name)
    assert "left out" in said[0]
    assert len(shown) == len(seen)
    joined = b"\0".join(shown.texts)
    assert SECRET.encode() not in joined
    assert str(path).encode() in joined
    # The path was an argument of the command line too, which has more in it than the call shows.
    assert b"readline" not in joined
    assert (shown["flags"] & Flag.DATA_WITHHELD).any()


def test_a_filter_cannot_ask_for_what_is_withheld(daemon: Daemon) -> None:
    for text in ("evt.buffer contains horse", "proc.cmdline contains password"):
        with pytest.raises(grpc.RpcError) as refused:
            start(daemon, filter=text)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "does not carry" in refused.value.details()


def test_a_filter_that_is_wrong_is_shown_where(daemon: Daemon) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        start(daemon, filter="proc.nmae=cat")
    assert "proc.name" in refused.value.details()
    assert "\n^" in refused.value.details()


def test_a_process_that_is_gone_or_may_not_be_traced_is_refused_with_the_reason(
    daemon: Daemon,
) -> None:
    def refused(pid: int) -> tuple[str, str]:
        with pytest.raises(grpc.RpcError) as caught:
            start(daemon, pids=[os.getpid(), pid])
        return caught.value.code().name, caught.value.details()

    ended = subprocess.Popen(["/bin/true"])
    until(lambda: "Z" in stat_of(ended.pid))
    no_process = ("NOT_FOUND", f"there is no process {ended.pid}")
    assert refused(ended.pid) == no_process
    ended.wait()
    assert refused(ended.pid) == no_process
    code, words = refused(daemon.process.pid)
    assert (code, "the daemon that traces" in words) == ("FAILED_PRECONDITION", True), words
    with threads(2) as (pid, tid):
        code, words = refused(tid)
        assert (code, f"a thread of process {pid}" in words) == ("FAILED_PRECONDITION", True), words
    for thread in kernel_threads():
        code, words = refused(thread)
        assert (code, "the kernel" in words) == ("FAILED_PRECONDITION", True), words


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def stat_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]


THREADS = """
import threading, time
threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
print("ready", flush=True)
if {leaves}:
    import ctypes
    ctypes.CDLL(None).syscall(60, 0)
time.sleep(600)
"""


@contextmanager
def threads(number: int, *, leaves: bool = False) -> Iterator[tuple[int, int]]:
    """A process with a second thread: both ids. Its first thread ends if it `leaves`."""
    argv = [sys.executable, "-I", "-S", "-c", THREADS.format(leaves=leaves)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout and process.stdout.readline() == "ready\n"
        if leaves:
            until(lambda: "Z" in stat_of(process.pid))
        tids = {int(path.name) for path in Path(f"/proc/{process.pid}/task").iterdir()}
        assert len(tids) == number
        yield process.pid, (tids - {process.pid}).pop()
    finally:
        process.kill()
        process.communicate()


def kernel_threads() -> list[int]:
    """One, if this host shows its own: those of containers are not shown theirs."""
    shown = subprocess.run(
        ["/usr/bin/ps", "--ppid", "2", "-o", "pid="], capture_output=True, text=True, check=False
    )
    return [int(pid) for pid in shown.stdout.split()[:1]]


def test_a_process_goes_on_without_its_first_thread(daemon: Daemon) -> None:
    with threads(2, leaves=True) as (pid, _):
        stub, started = start(daemon, pids=[pid])
        stub.StopTrace(pb.StopTraceRequest(name=started.trace.name), timeout=30)


def test_only_its_owner_ends_a_trace(daemon: Daemon) -> None:
    stub, started = start(daemon, filter="evt.type=getppid")
    other = trace_pb2_grpc.TraceServiceStub(daemon.channel("olga"))
    with pytest.raises(grpc.RpcError) as denied:
        other.StopTrace(pb.StopTraceRequest(name=started.trace.name))
    assert denied.value.code() is grpc.StatusCode.PERMISSION_DENIED
    stopped = stub.StopTrace(pb.StopTraceRequest(name=started.trace.name), timeout=30)
    assert stopped.trace.end_reason == "STOPPED"
    again = stub.StopTrace(pb.StopTraceRequest(name=started.trace.name), timeout=30)
    assert again.trace.end_time == stopped.trace.end_time
    with pytest.raises(grpc.RpcError) as missing:
        stub.StopTrace(pb.StopTraceRequest(name="t0"))
    assert missing.value.code() is grpc.StatusCode.NOT_FOUND


def test_what_nobody_watches_ends(daemon: Daemon) -> None:
    stub, started = start(daemon, filter="evt.type=getppid")
    stream = stub.StreamTrace(pb.StreamTraceRequest(name=started.trace.name))
    next(stream)
    stream.cancel()
    end = time.monotonic() + 30
    while True:
        (found,) = [
            t
            for t in stub.ListTraces(pb.ListTracesRequest()).traces
            if t.name == started.trace.name
        ]
        if found.end_reason:
            break
        assert time.monotonic() < end
        time.sleep(0.5)
    assert found.end_reason == "NOBODY_WATCHED"


def test_a_trace_that_is_slow_to_load_is_not_taken_for_one_that_nobody_watches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(traces, "UNWATCHED_S", 0.1)
    wait = ("/bin/sh", "-c", 'sleep 1; exec "$@"', "sh")
    made = traces.Traces(lambda: (*wait, *argv_of_collector()))
    asked = Spec(filter="evt.type=getppid", budget=DEFAULT)
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(made.start, asked, Payload(), "test")
        while not starting.done():
            assert made.end_unwatched() == ()
            time.sleep(0.02)
        # The collector ends with the thread that started it.
        assert starting.result().runs
        until(lambda: made.end_unwatched() != ())
        assert starting.result().collecting.standing.end is End.NOBODY_WATCHED


def test_a_daemon_that_is_killed_leaves_nothing_attached(tmp_path: Path) -> None:
    with running(tmp_path, PROGRAM) as daemon:
        start(daemon, filter="evt.type=getppid")
        (collector,) = (
            int(child)
            for task in Path(f"/proc/{daemon.process.pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        )
        ours = programs_of(collector)
        assert ours
        os.kill(daemon.process.pid, signal.SIGKILL)
        daemon.process.wait()
        end = time.monotonic() + 20
        while program_ids() & ours:
            assert time.monotonic() < end
            time.sleep(0.1)


def test_more_traces_than_a_host_bears_are_refused(daemon: Daemon) -> None:
    names = []
    with pytest.raises(grpc.RpcError) as refused:
        for _ in range(6):
            stub, started = start(daemon, filter="evt.type=getppid")
            names.append(started.trace.name)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    for name in names:
        stub.StopTrace(pb.StopTraceRequest(name=name), timeout=30)
