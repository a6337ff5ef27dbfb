"""Captures that a whole daemon keeps: what they have, for whom, for how long, and their room."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from stream_daemon import Daemon, running

from hostler.api.tracing.v1 import capture_pb2 as pb
from hostler.api.tracing.v1 import capture_pb2_grpc, trace_pb2_grpc
from hostler.api.tracing.v1 import trace_pb2 as trace_pb
from hostler.core.trace.blocks import decode
from hostler.core.trace.events import Events, concatenate
from hostler.core.trace.schema import SCHEMA, Schema
from hostlerd.runtime.audit import records

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(180)]

# So that it shows that nobody has to watch.
PROGRAM = """
from hostlerd.tracing.__main__ import build
from hostlerd.tracing.kernel import traces
from hostlerd.runtime.server import main
traces.UNWATCHED_S = 0.5
main("tracing", build)
"""
SECRET = "correct horse battery staple"  # noqa: S105 - what must not be seen


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("captures"), PROGRAM) as made:
        yield made


class Person:
    """A caller, with both services."""

    def __init__(self, daemon: Daemon, name: str) -> None:
        channel = daemon.channel(name)
        self.traces = trace_pb2_grpc.TraceServiceStub(channel)
        self.captures = capture_pb2_grpc.CaptureServiceStub(channel)

    def start(self, name: str, **spec: Any) -> Any:
        store = spec.pop("store", {})
        asked = trace_pb.TraceSpec(**spec, store=trace_pb.CaptureSpec(name=name, **store))
        request = trace_pb.StartTraceRequest(spec=asked)
        return self.traces.StartTrace(request, timeout=60, wait_for_ready=True).trace

    def listed(self) -> dict[str, Any]:
        answer = self.captures.ListCaptures(pb.ListCapturesRequest(), timeout=60)
        return {capture.name: capture for capture in answer.captures}

    def query(self, name: str, *, payload: bool = False, **query: Any) -> list[Any]:
        make, call = (
            (pb.QueryPayloadCaptureRequest, self.captures.QueryPayloadCapture)
            if payload
            else (pb.QueryCaptureRequest, self.captures.QueryCapture)
        )
        wanted = pb.CaptureQuery(name=name, **query)
        return [answer.batch for answer in call(make(query=wanted), timeout=60)]

    def delete(self, name: str) -> Any:
        return self.captures.DeleteCapture(pb.DeleteCaptureRequest(name=name), timeout=60).change


def events_of(batches: list[Any]) -> Events:
    assert Schema.from_json(batches[0].schema) == SCHEMA
    assert batches[-1].is_last
    return concatenate([decode(batch.block) for batch in batches if batch.block])


def eventually(holds: Callable[[], Any]) -> Any:
    end = time.monotonic() + 60
    while not (found := holds()):
        assert time.monotonic() < end
        time.sleep(0.1)
    return found


class Program:
    """A process that asks for its parent so many times once it is let go."""

    def __init__(self, path: Path | None = None) -> None:
        program = (
            "import os, sys\nfor line in sys.stdin:\n  for _ in range(int(line)): os.getppid()\n"
        )
        if path is not None:
            program += f"open({str(path)!r}, 'rb', 0).read()\n"
        argv = [sys.executable, "-I", "-S", "-c", program]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, bufsize=0)
        self.pid = self.process.pid

    def ask(self, times: int) -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{times}\n".encode())

    def end(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        assert self.process.wait(30) == 0


def reason(error: pytest.ExceptionInfo[grpc.RpcError]) -> str:
    return next(
        str(value) for key, value in error.value.trailing_metadata() if "status-details" in key
    )


def test_it_is_kept_unwatched_and_outlives_the_daemon(daemon: Daemon) -> None:
    viewer = Person(daemon, "vera")
    program = Program()
    trace = viewer.start("kept", pids=[program.pid], filter="evt.type=getppid")
    assert trace.name == "kept"
    program.ask(200)
    # Longer than one that nobody watches would last.
    eventually(lambda: viewer.listed()["kept"].events == 200)
    until = time.monotonic() + 3
    eventually(lambda: time.monotonic() > until)
    program.ask(300)
    program.end()
    capture = eventually(lambda: (c := viewer.listed()["kept"]).end_reason and c)
    assert capture.end_reason == "PROCESSES_ENDED"
    assert (capture.events, capture.lost, capture.files) == (500, 0, 1)
    before = events_of(viewer.query("kept"))
    assert set(before.of_process("pid").tolist()) == {program.pid}
    assert len(before) == 500
    daemon.kill_and_start()
    viewer = Person(daemon, "vera")
    eventually(lambda: _answers(viewer))
    assert viewer.listed()["kept"] == capture
    after = events_of(viewer.query("kept"))
    assert after["number"].tolist() == before["number"].tolist()
    parted(viewer, before)


def _answers(person: Person) -> bool:
    try:
        return bool(person.listed())
    except grpc.RpcError:
        return False


def parted(viewer: Person, whole: Events) -> None:
    """By filter, by time, and from where an earlier answer has ended."""
    batches = viewer.query("kept")
    with_events = [batch for batch in batches if batch.events]
    rest = viewer.query("kept", after_seq=with_events[0].seq)
    assert sum(batch.events for batch in rest) == 500 - with_events[0].events
    numbers = whole["number"]
    some = events_of(viewer.query("kept", filter=f"evt.num > {numbers[99]}"))
    assert some["number"].tolist() == numbers[100:].tolist()
    begin = pb.CaptureQuery()
    begin.begin_time.FromNanoseconds(int(whole["time_ns"][200]))
    last = events_of(viewer.query("kept", begin_time=begin.begin_time))
    ends = whole["time_ns"] + whole["latency_ns"]
    assert len(last) == int((ends >= whole["time_ns"][200]).sum())
    with pytest.raises(grpc.RpcError) as refused:
        viewer.query("kept", filter="proc.nmae=x")
    assert "proc.name" in refused.value.details()


def test_a_rotation_keeps_the_last(daemon: Daemon) -> None:
    viewer = Person(daemon, "vera")
    program = Program()
    store = {"rotate_events": 100, "keep_files": 2}
    viewer.start("ring", pids=[program.pid], filter="evt.type=getppid", store=store)
    for _ in range(5):
        program.ask(100)
    program.end()
    capture = eventually(lambda: (c := viewer.listed()["ring"]).end_reason and c)
    assert capture.files == 2
    found = events_of(viewer.query("ring"))
    assert capture.events == len(found)
    assert 100 < len(found) <= 200
    folder = daemon.root / "state/captures/ring"
    assert len(list(folder.glob("*.htrace"))) == 2
    assert sum(f.stat().st_size for f in folder.glob("*.htrace")) == capture.size_bytes
    with pytest.raises(grpc.RpcError) as taken:
        viewer.start("ring")
    assert taken.value.code() is grpc.StatusCode.ALREADY_EXISTS


def test_what_is_cut_off_is_told_and_read(daemon: Daemon) -> None:
    viewer, operator = Person(daemon, "vera"), Person(daemon, "olga")
    program = Program()
    viewer.start("torn", pids=[program.pid], filter="evt.type=getppid")
    program.ask(50)
    eventually(lambda: viewer.listed()["torn"].events == 50)
    with pytest.raises(grpc.RpcError) as refused:
        operator.delete("torn")
    assert "CAPTURE_IN_USE" in reason(refused)
    daemon.kill_and_start()
    program.end()
    viewer, operator = Person(daemon, "vera"), Person(daemon, "olga")
    eventually(lambda: _answers(viewer))
    capture = eventually(lambda: (c := viewer.listed()["torn"]).end_reason and c)
    assert (capture.end_reason, capture.events) == ("INTERRUPTED", 50)
    assert len(events_of(viewer.query("torn"))) == 50
    with pytest.raises(grpc.RpcError) as denied:
        viewer.delete("torn")
    assert denied.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert operator.delete("torn").changed
    assert not operator.delete("torn").changed
    assert "torn" not in viewer.listed()
    assert not (daemon.root / "state/captures/torn").exists()
    told = [
        r
        for r in records(daemon.root / "log/audit.jsonl")
        if r.get("method", "").endswith("/DeleteCapture")
    ]
    assert {r["identity"].rpartition("/")[2] for r in told if r["kind"] == "intent"} == {"olga"}


def test_payloads_are_for_those_who_may_have_them(daemon: Daemon, tmp_path: Path) -> None:
    viewer, admin = Person(daemon, "vera"), Person(daemon, "alice")
    path = tmp_path / "secret"
    path.write_text(SECRET)
    for name, text in (("all", ""), ("picked", "evt.buffer contains horse")):
        program = Program(path)
        spec = trace_pb.TraceSpec(
            pids=[program.pid], filter=text, store=trace_pb.CaptureSpec(name=name)
        )
        payload = trace_pb.PayloadSpec(data_bytes=100, command_lines=True)
        stream = admin.traces.StartPayloadTrace(
            trace_pb.StartPayloadTraceRequest(spec=spec, payload=payload), timeout=60
        )
        next(stream)
        stream.cancel()
        if text:
            with pytest.raises(grpc.RpcError) as refused:
                list(viewer.traces.StreamTrace(trace_pb.StreamTraceRequest(name=name), timeout=30))
            assert "FILTER_SEES_PAYLOADS" in reason(refused)
        program.end()
        eventually(lambda name=name: viewer.listed()[name].end_reason)
    seen = events_of(admin.query("all", payload=True))
    assert SECRET.encode() in seen.texts
    shown = viewer.query("all")
    assert "left out" in shown[0].warnings[0]
    joined = b"\0".join(events_of(shown).texts)
    assert len(events_of(shown)) == len(seen)
    assert SECRET.encode() not in joined
    assert b"getppid" not in joined
    assert str(path).encode() in joined
    assert len(events_of(admin.query("all", payload=True, filter="evt.buffer contains horse"))) == 1
    with pytest.raises(grpc.RpcError) as refused:
        viewer.query("all", filter="evt.buffer contains horse")
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.RpcError) as refused:
        viewer.query("picked")
    assert "FILTER_SEES_PAYLOADS" in reason(refused)
    assert len(events_of(admin.query("picked", payload=True))) == 1
    listed_to_whom(admin, viewer)
    assert viewer.listed()["all"].events == len(seen)
    for name in ("vera", "olga"):
        with pytest.raises(grpc.RpcError) as denied:
            Person(daemon, name).query("all", payload=True)
        assert denied.value.code() is grpc.StatusCode.PERMISSION_DENIED
    modes = {p.stat().st_mode & 0o777 for p in (daemon.root / "state/captures/all").iterdir()}
    assert modes == {0o600}
    assert (daemon.root / "state/captures/all").stat().st_mode & 0o777 == 0o700


def listed_to_whom(admin: Person, viewer: Person) -> None:
    """What it was picked by is a part of what it saw."""
    for person, told in ((admin, ("evt.buffer contains horse", 1)), (viewer, ("", 0))):
        capture = person.listed()["picked"]
        assert (capture.spec.filter, capture.events) == told
        traces = person.traces.ListTraces(trace_pb.ListTracesRequest(), timeout=30).traces
        (trace,) = (each for each in traces if each.name == "picked")
        assert (trace.spec.filter, trace.events) == told
