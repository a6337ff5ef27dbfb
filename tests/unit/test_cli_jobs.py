"""`hostler jobs` against real servers."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from client_doors import World, world

from hostler.api.common.v1 import job_pb2
from hostler.cli.main import cli

Run = Callable[..., Result]
MAIN = "import sys; from hostler.cli.main import main; sys.argv[0] = 'hostler'; main()"
METHOD = "/hostler.api.netns.v1.NamespaceService/ApplyNamespaces"


def job(name: str, state: str = "RUNNING", done: int = 0, **fields: Any) -> Any:
    progress = job_pb2.JobProgress(
        done=done, total=4, unit="steps", activity="create web", rate_per_second=2
    )
    progress.remaining.FromSeconds(3)
    return job_pb2.Job(
        name=f"jobs/{name}",
        method=METHOD,
        state=f"JOB_STATE_{state}",
        identity="x/user/admin",
        progress=progress,
        **fields,
    )


def failed(name: str) -> Any:
    why = job_pb2.JobError(code="INTERNAL", reason="STEP_FAILED", message="no such link")
    return job(name, "FAILED", 2, error=why)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        for name in ("h1", "h2"):
            made.start(name).jobs["netns"][f"jobs/{name}a"] = [
                job(f"{name}a"),
                job(f"{name}a", done=2),
                job(f"{name}a", "SUCCEEDED", 4),
            ]
        yield made


@pytest.fixture
def run(fleet: World) -> Run:
    def invoke(*args: str) -> Result:
        return CliRunner().invoke(cli, args, env={"HOSTLER_CONFIG": str(fleet.config)})

    return invoke


def command(fleet: World, *args: str) -> dict[str, Any]:
    env = {**os.environ, "HOSTLER_CONFIG": str(fleet.config), "COLUMNS": "120"}
    return {"args": [sys.executable, "-c", MAIN, *args], "env": env}


def test_list(fleet: World, run: Run) -> None:
    fleet.hosts["h2"].jobs["firewall"]["jobs/old"] = [job("old", "SUCCEEDED", 4)]
    answer = run("-H", "all", "jobs", "list")
    assert answer.exit_code == 0, answer.output
    lines = answer.stdout.splitlines()
    assert lines[0].split()[:5] == ["HOST", "DOMAIN", "JOB", "STATE", "METHOD"]
    assert [line.split()[:4] for line in lines[1:]] == [
        ["h1", "netns", "h1a", "running"],
        ["h2", "netns", "h2a", "running"],
        ["h2", "firewall", "old", "succeeded"],
    ]
    assert "0/4 steps, 2/s, 3 s left: create web" in lines[1]
    active = run("-H", "all", "-o", "json", "jobs", "list", "--active")
    names = [j["name"] for r in json.loads(active.stdout) for j in r["result"]["jobs"]]
    assert names == ["jobs/h1a", "jobs/h2a"]


def test_show(fleet: World, run: Run) -> None:
    fleet.hosts["h1"].jobs["firewall"]["jobs/bad"] = [failed("bad")]
    answer = run("-H", "all", "jobs", "show", "bad")
    assert answer.exit_code == 0
    assert "INTERNAL STEP_FAILED: failed: no such link" in answer.stdout
    assert "h2" not in answer.stdout
    nowhere = run("-H", "all", "jobs", "show", "none")
    assert nowhere.exit_code == 1
    assert nowhere.stderr.count("JOB_NOT_FOUND") == 2


def test_watch_in_a_pipe_prints_a_line_for_each_change(run: Run) -> None:
    answer = run("-H", "all", "jobs", "watch")
    assert answer.exit_code == 0, answer.output
    lines = answer.stdout.splitlines()
    assert [line for line in lines if line.startswith("h1")] == [
        "h1 netns jobs/h1a: running 0/4 steps, 2/s, 3 s left: create web",
        "h1 netns jobs/h1a: running 2/4 steps, 2/s, 3 s left: create web",
        "h1 netns jobs/h1a: succeeded",
    ]
    assert len(lines) == 6


def test_watch_as_ndjson_streams_every_state(run: Run) -> None:
    answer = run("-H", "h1", "-o", "ndjson", "jobs", "watch")
    told = [json.loads(line) for line in answer.stdout.splitlines()]
    assert [(t["host"], t["seq"], t["job"]["progress"]["done"]) for t in told] == [
        ("h1", 1, 0),
        ("h1", 2, 2),
        ("h1", 3, 4),
    ]


def test_watch_as_json_answers_the_last_states(fleet: World, run: Run) -> None:
    fleet.hosts["h2"].jobs["netns"]["jobs/h2a"] = [job("h2a"), failed("h2a")]
    answer = run("-H", "all", "-o", "json", "jobs", "watch", "h1a", "jobs/h2a")
    assert answer.exit_code == 1
    first, second = json.loads(answer.stdout)
    assert first["result"]["state"] == "JOB_STATE_SUCCEEDED"
    assert (second["host"], second["error"]["reason"]) == ("h2", "STEP_FAILED")


def test_a_job_that_failed_is_named(fleet: World, run: Run) -> None:
    fleet.hosts["h2"].jobs["netns"]["jobs/h2a"] = [job("h2a"), failed("h2a")]
    answer = run("-H", "all", "jobs", "watch")
    assert answer.exit_code == 1
    assert "h2 netns: INTERNAL STEP_FAILED: failed: no such link" in answer.stderr


def test_watching_what_is_nowhere(fleet: World, run: Run) -> None:
    answer = run("-H", "all", "jobs", "watch", "none")
    assert answer.exit_code == 1
    assert "no selected host has jobs/none" in answer.stderr
    for host in fleet.hosts.values():
        host.jobs["netns"].clear()
    answer = run("-H", "all", "jobs", "watch")
    assert (answer.exit_code, answer.stderr) == (0, "No job is going on.\n")


def test_a_terminal_gets_bars(fleet: World) -> None:
    parent, child = pty.openpty()
    with subprocess.Popen(
        **command(fleet, "-H", "all", "jobs", "watch"), stdout=child, stderr=child, stdin=child
    ) as started:
        os.close(child)
        shown = b""
        while piece := _read(parent):
            shown += piece
        assert started.wait(30) == 0
    os.close(parent)
    text = shown.decode()
    assert "h1 netns ApplyNamespaces" in text
    assert "━" in text
    assert "succeeded" in text


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # The other end is closed: a terminal says so by EIO.
        return b""


def test_an_interrupt_ends_the_watching_and_no_job(fleet: World) -> None:
    host = fleet.hosts["h1"]
    host.jobs["netns"]["jobs/h1a"] = [job("h1a")]
    with subprocess.Popen(
        **command(fleet, "-H", "h1", "jobs", "watch"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as started:
        assert started.stdout and started.stderr
        assert b"running" in started.stdout.readline()
        started.send_signal(signal.SIGINT)
        assert started.wait(20) == 130
        assert b"The jobs go on" in started.stderr.read()
    assert not host.named("CancelJob")


def test_cancel_asks_only_the_host_that_has_it(fleet: World, run: Run) -> None:
    fleet.hosts["h1"].jobs["netns"]["jobs/h1a"] = [job("h1a", cancel_leaves="two namespaces")]
    plan = run("-H", "all", "--plan", "jobs", "cancel", "h1a")
    assert plan.stdout.splitlines() == [
        "1 host: h1",
        "  cancel jobs/h1a",
        "  warning: LEAVES: two namespaces",
    ]
    answer = run("-H", "all", "--yes", "jobs", "cancel", "h1a")
    assert answer.exit_code == 0, answer.output
    assert "cancelled" in answer.stdout
    assert not fleet.hosts["h2"].named("CancelJob")
    assert run("-H", "all", "--yes", "jobs", "cancel", "none").exit_code == 1
