"""The engine for where there is no BPF, strace: beside the tracer in the kernel, unprivileged."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from stream_daemon import Daemon, running

from hostler.api.common.v1 import host_pb2, host_pb2_grpc
from hostler.api.tracing.v1 import trace_pb2 as pb
from hostler.api.tracing.v1 import trace_pb2_grpc
from hostler.core.trace.blocks import decode
from hostler.core.trace.events import Events, concatenate
from hostler.core.trace.syscalls import name_of
from hostlerd.tracing.kernel import frames
from hostlerd.tracing.kernel.collecting import argv_of_collector, line_for
from hostlerd.tracing.kernel.frames import Block, Kind
from hostlerd.tracing.model.trace import DEFAULT, Payload, Spec

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(180)]

PROGRAM = """
from hostlerd.tracing.__main__ import build
from hostlerd.runtime.server import main
main("tracing", build)
"""
SCRIPT = """
read go
cat /etc/hostname nothing-here
(cd /usr && ls . > /dev/null)
echo hi | wc -c
exec md5sum < /etc/passwd
"""
# What both kinds of engines see differently: whoever was made returns from the call, too, to BPF
# alone; the gate was being read already. When a child's signal comes is not the same twice.
_MADE = frozenset(("fork", "vfork", "clone", "clone3"))
_ANSWER_PIDS = _MADE | {"getpid", "gettid", "getppid", "wait4", "set_tid_address"}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("strace"), PROGRAM) as made:
        yield made


def eventually(holds: Callable[[], Any]) -> Any:
    end = time.monotonic() + 60
    while not (found := holds()):
        assert time.monotonic() < end
        time.sleep(0.1)
    return found


def traced(daemon: Daemon, engine: str, argv: list[str]) -> tuple[Events, int, Any]:
    """What a command did from when its gate was opened, its pid, and how the trace ended."""
    process = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    stub = trace_pb2_grpc.TraceServiceStub(daemon.channel("vera"))
    spec = pb.TraceSpec(pids=[process.pid], engine=engine)
    answer = stub.StartTrace(pb.StartTraceRequest(spec=spec), timeout=60, wait_for_ready=True)
    assert answer.trace.engine == engine
    assert process.stdin
    process.stdin.write(b"go\n")
    process.stdin.close()
    ended, blocks = None, []
    for said in stub.StreamTrace(pb.StreamTraceRequest(name=answer.trace.name), timeout=90):
        if said.batch.block:
            blocks.append(decode(said.batch.block))
        ended = said.batch.ended if said.batch.HasField("ended") else None
    process.wait(30)
    return concatenate(blocks), process.pid, ended


def told(events: Events, root: int) -> list[tuple[tuple[Any, ...], ...]]:
    """What each process did, without what differs from run to run; in any order of processes."""
    found: dict[int, list[tuple[Any, ...]]] = {}
    for i in range(len(events)):
        process = events.processes[events["process"][i]]
        name = name_of(int(events["syscall"][i]))
        result, fd = int(events["result"][i]), int(events["fd"][i])
        pid = int(process["pid"])
        if (name in _MADE and result == 0) or (pid == root and name == "read" and fd == 0):
            continue
        if name == "rt_sigreturn":
            continue
        file = events.texts[events.files[events["file"][i]]["name"]].decode()
        row = (
            name,
            events.texts[events["path"][i]].decode(),
            re.sub(r"\d+", "N", file) if ":[" in file else file,
            "N" if result > 4095 or name in _ANSWER_PIDS else result,
            fd,
            events.texts[process["name"]].decode(),
            events.texts[process["exe"]].decode(),
            events.texts[process["cwd"]].decode(),
            int(process["uid"]),
            pid == root,
            events.texts[process["unit"]].decode(),
        )
        found.setdefault(pid, []).append(row)
    return sorted(tuple(rows) for rows in found.values())


def test_the_same_run_is_the_same_calls(daemon: Daemon) -> None:
    by_engine = {}
    for engine in ("bpf", "strace"):
        events, root, ended = traced(daemon, engine, ["/bin/sh", "-c", SCRIPT])
        assert (ended.end_reason, ended.lost) == ("PROCESSES_ENDED", 0)
        by_engine[engine] = told(events, root)
    assert len(by_engine["bpf"]) == 5
    assert sum(map(len, by_engine["bpf"])) > 400
    for tracer, strace in zip(*by_engine.values(), strict=True):
        differing = [pair for pair in zip(tracer, strace, strict=False) if pair[0] != pair[1]]
        assert not differing[:5]
        assert len(tracer) == len(strace)


def test_text_is_read_without_privileges_and_nothing_stays(daemon: Daemon) -> None:
    sleeper = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    try:
        stub = trace_pb2_grpc.TraceServiceStub(daemon.channel("vera"))
        spec = pb.TraceSpec(pids=[sleeper.pid], engine="strace")
        stub.StartTrace(pb.StartTraceRequest(spec=spec), timeout=60, wait_for_ready=True)
        strace = int(_status(sleeper.pid)["TracerPid"])
        assert Path(f"/proc/{strace}/exe").readlink() == Path("/usr/bin/strace")
        collector = _status(int(_status(strace)["PPid"]))
        assert collector["PPid"] == str(daemon.process.pid)
        assert set(collector["Uid"].split()) == {"65534"}
        assert {int(collector[f"Cap{kind}"], 16) for kind in ("Eff", "Prm", "Inh", "Amb")} == {0}
        assert (collector["NoNewPrivs"], collector["Groups"]) == ("1", "")
        daemon.process.send_signal(signal.SIGKILL)
        daemon.process.wait()
        eventually(lambda: _status(sleeper.pid)["TracerPid"] == "0")
        eventually(lambda: not Path(f"/proc/{strace}").exists())
        assert sleeper.poll() is None
    finally:
        sleeper.kill()
        sleeper.wait()
        daemon.kill_and_start()


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def test_where_there_is_no_bpf_strace_serves_processes() -> None:
    """The collector without the capabilities that the tracer takes, as in a container."""
    less = ["/usr/bin/setpriv", "--bounding-set", "-bpf,-perfmon,-sys_admin"]
    process = subprocess.Popen(
        [sys.executable, "-c", "input(); import os; os.getppid()"], stdin=subprocess.PIPE
    )
    with subprocess.Popen(
        [*less, *argv_of_collector()], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as collector:
        assert collector.stdin
        assert collector.stdout
        collector.stdin.write(line_for(Spec(pids=(process.pid,), budget=DEFAULT), Payload()))
        collector.stdin.flush()
        kind, content = frames.read(collector.stdout) or (None, {})
        assert isinstance(content, Mapping)
        assert (kind, content["engine"]) == (Kind.READY, "strace")
        assert "not permitted" in content["warnings"][0]
        process.communicate(b"\n")
        found = []
        while (frame := frames.read(collector.stdout)) is not None:
            if isinstance(frame[1], Block):
                found.append(decode(frame[1].data))
        assert name_of(int(concatenate(found)["syscall"][-1])) == "exit_group"


def test_what_strace_cannot_do_is_refused_and_why(daemon: Daemon) -> None:
    stub = trace_pb2_grpc.TraceServiceStub(daemon.channel("vera"))
    asked: list[tuple[dict[str, Any], str]] = [
        ({"engine": "strace"}, "must name processes"),
        ({"engine": "dtrace"}, "must be one of bpf, strace, tracefs"),
        ({"engine": "strace", "pids": [os.getpid()], "cgroup": "/a.slice"}, "no control groups"),
    ]
    for spec, words in asked:
        with pytest.raises(grpc.RpcError) as refused:
            request = pb.StartTraceRequest(spec=pb.TraceSpec(**spec))
            stub.StartTrace(request, timeout=60, wait_for_ready=True)
        assert words in refused.value.details()


def test_a_process_that_somebody_else_traces_is_refused_with_who_does(daemon: Daemon) -> None:
    argv = ["/usr/bin/strace", "--output=/dev/null", "/usr/bin/sleep", "600"]
    with subprocess.Popen(argv, start_new_session=True) as tracer:
        try:
            pid = eventually(lambda: _sleeper_of(tracer.pid))
            spec = pb.TraceSpec(engine="strace", pids=[pid])
            stub = trace_pb2_grpc.TraceServiceStub(daemon.channel("vera"))
            with pytest.raises(grpc.RpcError) as refused:
                stub.StartTrace(pb.StartTraceRequest(spec=spec), timeout=60, wait_for_ready=True)
            assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert f"strace ({tracer.pid}) traces it" in refused.value.details()
        finally:
            os.killpg(tracer.pid, signal.SIGKILL)


def _sleeper_of(tracer: int) -> int:
    """The program that it traces: before that it tries out on another child what it can."""
    for child in Path(f"/proc/{tracer}/task/{tracer}/children").read_text().split():
        with suppress(FileNotFoundError, ProcessLookupError):
            status = _status(int(child))
            if (status["Name"], status["TracerPid"]) == ("sleep", str(tracer)):
                return int(child)
    return 0


def test_the_host_says_which_engine_serves_what(daemon: Daemon) -> None:
    stub = host_pb2_grpc.HostServiceStub(daemon.channel("vera"))
    host = stub.GetHost(host_pb2.GetHostRequest(), timeout=60, wait_for_ready=True).host
    found = {c.name: c for c in host.capabilities}
    assert found["traces"].available
    assert found["traces_by_strace"].available
    assert found["traces_by_tracefs"].available
