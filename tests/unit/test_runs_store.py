"""The store of run records, the same tests on SQLite and on a PostgreSQL server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from postgresql import cluster, programs

import hostler.aio
from hostler.api.common.v1 import change_pb2
from hostler.api.netns.v1 import namespace_pb2, process_pb2
from hostler.fleet import Host
from hostler.outcome import Outcome
from hostler.plans import Planned, PlannedStep, RpcChange
from hostler.results import HostError, HostResult
from hostler.rollout import Rollout, Stop, Target
from hostler.runs import LEASE_S, Runs, default_url, open_runs
from hostler.runs_holder import is_gone, this_process
from hostler.runs_model import HostState, Run, RunNotFound, RunsError, RunState
from hostler.runs_recorder import MASK, RunRecorder, describe, recorder_of
from hostler.session import Terms

CREATE = hostler.aio.rpc(namespace_pb2, "NamespaceService", "CreateNamespace")
START = hostler.aio.rpc(process_pb2, "ProcessService", "StartProcess")
STEPS = (PlannedStep("CreateNamespace", "create namespace a"), PlannedStep("AddAddress", "add x"))


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    if programs() is None:
        pytest.skip("no PostgreSQL server is installed")
    with cluster() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store of the test's own."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/state/runs.sqlite"
    import psycopg

    server: str = request.getfixturevalue("postgresql")
    name = f"test_{os.getpid()}_{time.monotonic_ns()}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return server.replace("/postgres?", f"/{name}?")


@pytest.fixture
def store(url: str) -> Iterator[Runs]:
    with open_runs(url) as made:
        yield made


def a_run(number: int = 1, **values: Any) -> Run:
    started = f"2026-01-01T00:00:{number:02}.000000Z"
    run = Run(f"{number:08x}-0000-4000-8000-000000000000", started, **values)
    return replace(run, holder=this_process(), lease=time.time() + LEASE_S)


def a_change(name: str = "a") -> RpcChange:
    space = namespace_pb2.Namespace(name=name)
    return RpcChange(CREATE, namespace_pb2.CreateNamespaceRequest(namespace=space))


def a_target(name: str, steps: Sequence[PlannedStep] = STEPS, group: str = "") -> Target:
    planned = Planned(hash=f"{len(steps):064x}", steps=tuple(steps))
    terms = Terms(group=group)
    return Target(Host(name, "127.0.0.1"), HostResult(name, planned), terms)


def an_answer(seq: int) -> Any:
    audit = change_pb2.AuditAnchor(seq=seq, head=f"{seq:064x}")
    change = change_pb2.Change(outcome="OUTCOME_APPLIED", changed=True, audit=audit)
    return namespace_pb2.CreateNamespaceResponse(change=change)


def recorder(store: Runs, url: str, run: Run, targets: Sequence[Target]) -> RunRecorder:
    return recorder_of(url, run, a_change(), targets, Rollout(), True)


async def test_a_run_as_it_goes_on(store: Runs, url: str) -> None:
    targets = [a_target("h2", group="g"), a_target("h1"), a_target("h3", ())]
    run = a_run(who="me", argv=("-H", "all", "netns", "create", "a"), selectors=("all",))
    writing = recorder(store, url, run, targets)
    await writing.begin([["h2"], ["h1"]])
    found = store.find("last")
    assert (found.state, found.who, found.argv) == (RunState.RUNNING, "me", run.argv)
    assert found.methods == ("/hostler.api.netns.v1.NamespaceService/CreateNamespace",)
    assert found.options["batch"] == "1,100%"
    assert [(h.host, h.wave, h.state) for h in store.hosts(run.id)] == [
        ("h2", 1, HostState.PLANNED), ("h1", 2, HostState.PLANNED), ("h3", 0, HostState.PLANNED),
    ]  # fmt: skip
    await writing.sent(targets[0])
    (sent, *_) = store.hosts(run.id)
    assert (sent.state, sent.outcome, sent.attempts, sent.group) == ("sent", "", 1, "g")
    assert sent.request_id == targets[0].plan.value().request_id
    await writing.ended(HostResult("h2", an_answer(7), outcome=Outcome.APPLIED), an_answer(7))
    (ended, *_) = store.hosts(run.id)
    assert (ended.state, ended.outcome) == ("ended", "applied")
    assert [(a.host, a.domain, a.seq) for a in store.anchors(run=run.id)] == [("h2", "netns", 7)]
    failed = HostResult("h1", error=HostError("INTERNAL", "BUG", "x"), outcome=Outcome.FAILED)
    spared = HostResult("h3", error=HostError("ABORTED", "NOT_STARTED", "y"), outcome="not_started")
    await writing.end(Stop("failures", "1 failed, none may", 2, 3), [failed, spared])
    assert [h.outcome for h in store.hosts(run.id)] == ["applied", "failed", "not_started"]
    over = store.find(run.id)
    assert (over.state, over.holder) == (RunState.STOPPED, "")
    assert over.why == "stopped in wave 2 of 3: 1 failed, none may"
    assert store.outcomes([run.id])[run.id] == {"applied": 1, "failed": 1, "not_started": 1}
    plans = store.plans(run.id)
    assert [step for step in plans[f"{2:064x}"].steps] == [(s.kind, s.description) for s in STEPS]
    assert set(plans) == {f"{2:064x}", f"{0:064x}"}
    assert len(store.records(run.id)) == 1


async def test_what_was_written_is_there_for_another_process(store: Runs, url: str) -> None:
    """Ask a process of its own, which knows nothing of this one's connections."""
    targets = [a_target("h1")]
    writing = recorder(store, url, a_run(), targets)
    await writing.begin([["h1"]])
    await writing.sent(targets[0])
    code = (
        "import sys\nfrom hostler.runs import open_runs\n"
        "runs = open_runs(sys.argv[1])\nprint(runs.hosts(runs.find('last').id)[0].state)"
    )
    seen = subprocess.run(
        [sys.executable, "-c", code, url], capture_output=True, text=True, timeout=60, check=True
    )
    assert seen.stdout == "sent\n"
    await writing.close()


async def test_hundreds_at_once_are_few_transactions(store: Runs, url: str) -> None:
    targets = [a_target(f"h{n}") for n in range(300)]
    writing = recorder(store, url, a_run(), targets)
    await writing.begin([[target.host.name for target in targets]])
    start = time.monotonic()
    await asyncio.gather(*(writing.sent(target) for target in targets))
    elapsed = time.monotonic() - start
    print(f"300 hosts written down in {elapsed * 1000:.0f} ms")
    assert {host.state for host in store.hosts(a_run().id)} == {HostState.SENT}
    assert elapsed < 10
    await writing.close()


async def test_two_clients_write_at_once(store: Runs, url: str) -> None:
    async def one(number: int) -> None:
        targets = [a_target(f"h{n}") for n in range(20)]
        writing = recorder(store, url, a_run(number), targets)
        await writing.begin([[target.host.name for target in targets]])
        for target in targets:
            await writing.sent(target)
        results = [HostResult(t.host.name, outcome=Outcome.APPLIED) for t in targets]
        await asyncio.gather(*(writing.ended(result, None) for result in results))
        await writing.end(None, results)

    await asyncio.gather(*(one(number) for number in range(1, 5)))
    assert [run.state for run in store.newest(9)] == [RunState.DONE] * 4


def test_tables_are_made_once_by_many(url: str) -> None:
    code = "import sys\nfrom hostler.runs import open_runs\nopen_runs(sys.argv[1]).close()"
    running = [
        subprocess.Popen([sys.executable, "-c", code, url], stderr=subprocess.PIPE)
        for _ in range(6)
    ]
    for process in running:
        assert process.wait(60) == 0, process.stderr and process.stderr.read()
    with open_runs(url) as store:
        assert store.newest() == []


async def test_a_run_is_found_by_its_beginning(store: Runs, url: str) -> None:
    for number in (1, 2):
        writing = recorder(store, url, a_run(number), [a_target("h1")])
        await writing.begin([["h1"]])
        await writing.end(None, [])
    assert store.find("last").id == a_run(2).id
    assert store.find("00000001").id == a_run(1).id
    for text, words in (
        ("0000", "more than one"),
        ("9", "no run"),
        ("", "no run"),
        ("%", "no run"),
    ):
        with pytest.raises(RunNotFound, match=words):
            store.find(text)


async def test_a_run_that_goes_on_is_nobody_elses(store: Runs, url: str) -> None:
    writing = recorder(store, url, a_run(), [a_target("h1")])
    await writing.begin([["h1"]])
    with pytest.raises(RunsError, match=f"goes on: process {os.getpid()} of"):
        store.claim(store.find("last"), "other")
    await writing.end(Stop("failures", "x", 1, 1), [])
    seen = store.find("last")
    claimed = store.claim(seen, this_process())
    assert claimed.resumed == 1
    # Another one that had seen the same comes too late, also after it has ended just as before.
    with pytest.raises(RunsError, match="taken over by another client"):
        store.claim(seen, "other")
    again = recorder_of(url, claimed, a_change(), [], Rollout(), False)
    await again.begin([])
    await again.end(Stop("failures", "x", 1, 1), [])
    with pytest.raises(RunsError, match="taken over by another client"):
        store.claim(seen, "other")


async def test_who_has_lost_a_run_asks_no_further_host(store: Runs, url: str) -> None:
    targets = [a_target("h1"), a_target("h2")]
    writing = recorder(store, url, a_run(), targets)
    await writing.begin([["h1", "h2"]])
    await writing.sent(targets[0])
    with store.begin() as connection:
        from sqlalchemy import update

        from hostler.runs_schema import runs

        connection.execute(update(runs).values(holder="other"))
    with pytest.raises(RunsError, match="taken over by another client"):
        await writing.sent(targets[1])
    assert [host.state for host in store.hosts(a_run().id)] == ["sent", "planned"]
    await writing.close()


async def test_pruning_keeps_what_goes_on_and_where_logs_stand(store: Runs, url: str) -> None:
    for number in range(1, 7):
        writing = recorder(store, url, a_run(number), [a_target("h1")])
        await writing.begin([["h1"]])
        result = HostResult("h1", an_answer(number), outcome=Outcome.APPLIED)
        await writing.ended(result, an_answer(number))
        if number == 2:
            await writing.close()  # Left as running, and this process is there.
        else:
            await writing.end(None, [result])
    assert store.prune(keep=3) == 2
    assert [run.id[7] for run in store.newest()] == ["6", "5", "4", "2"]
    assert store.prune(before=a_run(5).started) == 1
    assert store.prune(keep=0) == 2
    assert [run.id[7] for run in store.newest()] == ["2"]
    # The run of the newest is gone, and it would still tell a log that was cut.
    assert [anchor.seq for anchor in store.anchors()] == [2, 6]


async def test_secrets_are_not_written_down(store: Runs, url: str, tmp_path: Path) -> None:
    secret = "correct-horse-battery"  # noqa: S105
    process = process_pb2.Process(
        name="main", namespace="a", environment={"TOKEN": secret, "N": "7"}
    )
    change = RpcChange(START, process_pb2.StartProcessRequest(process=process))
    argv = ("-H", "h7", "netns", "start", "a", "main", "--env", f"TOKEN={secret}", "--env", "N=7",
            "--", "run", secret, f"--key={secret}", f"x{secret}y")  # fmt: skip
    targets = [a_target("h7")]
    run = a_run(argv=argv)
    writing = recorder_of(url, run, change, targets, Rollout(), True)
    await writing.begin([["h7"]])
    found = store.find("last")
    assert found.not_recorded == "process.environment must not be stored"
    assert found.argv == (
        "-H", "h7", "netns", "start", "a", "main", "--env", f"TOKEN={MASK}", "--env", f"N={MASK}",
        "--", "run", MASK, f"--key={MASK}", f"x{MASK}y",
    )  # fmt: skip
    assert store.records(run.id) == {}
    await writing.close()
    for path in (tmp_path / "state").glob("*"):
        assert secret.encode() not in path.read_bytes()


def test_a_destroy_token_is_not_written_down() -> None:
    request = namespace_pb2.CreateNamespaceRequest()
    request.change.destroy_token = "once"  # noqa: S105
    run = describe(a_run(), RpcChange(CREATE, request), [Host("h1", "x")])
    assert run.not_recorded == "change.destroy_token must not be stored"


class TestSqlite:
    """What holds for the file."""

    def test_the_file_is_its_owners(self, tmp_path: Path) -> None:
        before = os.umask(0)
        try:
            with open_runs(f"sqlite:///{tmp_path}/a/b/runs.sqlite") as store, store.begin():
                modes = {path.name: stat.S_IMODE(path.stat().st_mode)
                         for path in (tmp_path / "a/b").iterdir()}  # fmt: skip
        finally:
            os.umask(before)
        assert modes.keys() >= {"runs.sqlite", "runs.sqlite-wal"}
        assert set(modes.values()) == {0o600}
        assert stat.S_IMODE((tmp_path / "a/b").stat().st_mode) == 0o700

    def test_an_open_file_is_closed_to_others(self, tmp_path: Path) -> None:
        path = tmp_path / "runs.sqlite"
        path.touch(0o644)
        open_runs(f"sqlite:///{path}").close()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_it_is_where_xdg_says(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
        assert default_url() == f"sqlite:///{tmp_path}/hostler/runs.sqlite"
        monkeypatch.setenv("XDG_STATE_HOME", "relative")
        assert default_url().endswith("/.local/state/hostler/runs.sqlite")
        assert default_url("postgresql://x") == "postgresql://x"
        monkeypatch.setenv("HOSTLER_RUNS_URL", "sqlite:////y")
        assert default_url("postgresql://x") == "sqlite:////y"

    def test_what_is_written_survives_a_power_cut(self, tmp_path: Path) -> None:
        with open_runs(f"sqlite:///{tmp_path}/runs.sqlite") as store, store.begin() as connection:
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"

    def test_readers_do_not_wait_for_a_writer(self, tmp_path: Path) -> None:
        with open_runs(f"sqlite:///{tmp_path}/runs.sqlite") as store, store.begin():
            start = time.monotonic()
            assert store.newest() == []
            assert time.monotonic() - start < 2

    def test_records_of_a_newer_version_are_left_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "runs.sqlite"
        open_runs(f"sqlite:///{path}").close()
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE schema_version SET version = 99")
        with pytest.raises(RunsError, match="version 99, made by a newer hostler"):
            open_runs(f"sqlite:///{path}")

    @pytest.mark.parametrize(
        ("url", "words"),
        [
            ("sqlite:////proc/nothing/runs.sqlite", "No such file or directory"),
            ("sqlite:////dev/null", "not a file"),
            ("sqlite://", "must begin with"),
            ("mysql://u:secret@h/d", "must begin with"),
            ("nonsense:secret", "cannot be read"),
            ("postgresql://u:secret@/d?host=/nonexistent", "No such file or directory"),
        ],
    )
    def test_a_store_that_cannot_be_opened_is_named_without_passwords(
        self, url: str, words: str
    ) -> None:
        with pytest.raises(RunsError, match=words) as caught:
            open_runs(url)
        assert "secret" not in str(caught.value)
        assert stat.S_IMODE(Path("/dev/null").stat().st_mode) == 0o666


class TestHolder:
    """The process that carries out a run."""

    def test_it_is_gone_when_it_has_ended(self) -> None:
        assert not is_gone(this_process())
        code = "from hostler.runs_holder import this_process\nprint(this_process(), flush=True)\n"
        code += "import time; time.sleep(60)"
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            holder = other.stdout.readline().decode()
            assert not is_gone(holder)
            other.send_signal(signal.SIGKILL)
            time.sleep(0.2)
            assert is_gone(holder)  # Not waited for yet: a zombie.
        assert is_gone(holder)

    @pytest.mark.parametrize("key", ["machine", "boot", "namespace"])
    def test_of_another_place_nobody_can_tell(self, key: str) -> None:
        told = json.loads(this_process()) | {"pid": 2**22 - 1}
        assert is_gone(json.dumps(told))
        assert not is_gone(json.dumps(told | {key: "other"}))

    def test_a_pid_that_came_again_is_another_process(self) -> None:
        told = json.loads(this_process())
        assert is_gone(json.dumps(told | {"start": "1"}))
