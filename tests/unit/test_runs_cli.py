"""`hostler runs`: list, show, resume, diff and prune, against real servers."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from client_doors import World, world
from client_pending import DOORS
from runs_world import BUSY, MAIN, asked, changed, environment, hostler, outcomes, store

from hostler.api.netns.v1 import namespace_pb2
from hostler.cli.main import cli


@pytest.fixture
def small(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        for number in range(1, 4):
            made.start(f"h{number}")
        yield made


def test_a_plan_that_has_become_another_one_is_shown_and_asked_for(small: World) -> None:
    small.hosts["h1"].refusals["CreateNamespace"] = [None, BUSY]
    hostler(small, "-H", "all", "--yes", "netns", "create", "a", "--address", "10.1.0.2/30")
    small.hosts["h2"].namespaces["a"] = namespace_pb2.Namespace(name="a")
    shown = hostler(small, "--plan", "runs", "resume", "last")
    assert shown.exit_code == 0
    assert shown.stdout.splitlines() == [
        "2 hosts: h1, h3", "  create namespace a", "  add 10.1.0.2/30 to eth0",
        "1 host: h2", "  nothing to do",
    ]  # fmt: skip
    refused = hostler(small, "runs", "resume", "last")
    assert refused.exit_code == 2
    assert "give --yes, or --plan" in refused.stderr
    ours, theirs = pty.openpty()
    os.write(ours, b"y\n")
    with subprocess.Popen(
        [sys.executable, "-c", MAIN, "runs", "resume", "last"],
        env={**os.environ, **environment(small)}, stdin=theirs, stderr=subprocess.PIPE, text=True,
    ) as client:  # fmt: skip
        _, err = client.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert client.returncode == 0, err
    assert "Change 2 hosts?" in err
    assert outcomes(small) == {"h1": "applied", "h2": "unchanged", "h3": "applied"}


def test_one_host_of_a_run_may_be_chosen(small: World) -> None:
    small.hosts["h1"].refusals["CreateNamespace"] = [None, BUSY]
    hostler(small, "-H", "all", "--yes", "netns", "create", "a")
    assert hostler(small, "-H", "h3", "--yes", "runs", "resume", "last").exit_code == 0
    assert outcomes(small) == {"h1": "failed", "h2": "not_started", "h3": "applied"}


def test_a_run_with_secrets_says_how_to_repeat_it(small: World) -> None:
    for host in small.hosts.values():
        host.namespaces["web"] = namespace_pb2.Namespace(name="web")
    small.hosts["h2"].refusals["StartProcess"] = [None, BUSY]
    failed = hostler(
        small, "-H", "all", "--yes", "--parallel", "1", "netns", "start", "web", "main",
        "--env", "TOKEN=s3cr3t-word", "--", "sleep", "60",
    )  # fmt: skip
    assert "hostler runs show" in failed.stderr
    answer = hostler(small, "--yes", "runs", "resume", "last")
    assert answer.exit_code == 2
    assert (
        "process.environment must not be stored; repeat it on the hosts that miss it: "
        "hostler -H h2 -H h3 --yes --parallel 1 netns start web main --env 'TOKEN=…' -- sleep 60"
    ) in answer.stderr
    for path in (small.folder / "state").iterdir():
        assert b"s3cr3t-word" not in path.read_bytes()


def test_a_composite_is_resumed_from_its_record(small: World) -> None:
    small.hosts["h2"].refusals["ApplyRuleset"] = [None, BUSY]
    failed = hostler(
        small, "-H", "all", "--yes", "--parallel", "1", "isolate", "web", "--publish", "8080:8000",
        "--", "sleep", "9",
    )  # fmt: skip
    assert failed.exit_code == 1
    assert outcomes(small) == {"h1": "applied", "h2": "failed", "h3": "not_started"}
    before = asked(small)["h1"]
    assert hostler(small, "--yes", "runs", "resume", "last").exit_code == 0
    assert asked(small)["h1"] == before
    for host in small.hosts.values():
        assert [key for key in host.processes] == [("web", "main")]
        assert host.rulesets["web"].forwards[0].port == 8080


def test_without_a_record_nothing_is_changed_unless_asked_for(small: World) -> None:
    env = environment(small) | {"HOSTLER_RUNS_URL": "sqlite:////proc/nothing/runs.sqlite"}
    args = ["-H", "all", "--yes", "netns", "create", "a"]
    refused = CliRunner().invoke(cli, args, env=env)
    assert refused.exit_code == 2
    assert "No such file or directory; nothing was changed; --no-record" in refused.stderr
    assert changed(small) == dict.fromkeys(small.hosts, 0)
    assert CliRunner().invoke(cli, ["--no-record", *args], env=env).exit_code == 0
    assert changed(small) == dict.fromkeys(small.hosts, 1)


def test_a_record_that_breaks_off_stops_the_run(small: World) -> None:
    def lose(*_: Any) -> None:
        with store(small) as runs, runs.begin() as connection:
            connection.exec_driver_sql("DROP TABLE run_hosts")

    small.hosts["h1"].refusals["CreateNamespace"] = [None, lose]
    answer = hostler(small, "-H", "all", "-o", "json", "--yes", "netns", "create", "a")
    assert answer.exit_code == 1
    assert [result["outcome"] for result in json.loads(answer.stdout)] == [
        "applied", "not_started", "not_started",
    ]  # fmt: skip
    assert "Stopped in wave 1 of 2: run records at" in answer.stderr
    assert "no such table: run_hosts" in answer.stderr
    assert changed(small) == {"h1": 1, "h2": 0, "h3": 0}


def test_a_plan_and_a_read_leave_no_record(small: World) -> None:
    hostler(small, "-H", "all", "--plan", "netns", "create", "a")
    hostler(small, "-H", "all", "netns", "list")
    assert hostler(small, "-o", "json", "runs", "list").stdout == "[]\n"


def test_list_and_show(small: World) -> None:
    hostler(small, "-H", "h1", "--yes", "netns", "create", "a")
    small.hosts["h1"].refusals["CreateNamespace"] = [None, BUSY]
    hostler(small, "-H", "all", "--yes", "netns", "create", "b")
    lines = hostler(small, "runs", "list").stdout.splitlines()
    assert lines[0].split() == ["RUN", "STARTED", "STATE", "HOSTS", "COMMAND"]
    assert "stopped" in lines[1]
    assert "1 failed, 2 not_started" in lines[1]
    assert lines[1].endswith("-H all --yes netns create b")
    assert lines[2].split()[2:5] == ["done", "1", "applied"]
    shown = hostler(small, "runs", "show", "last").stdout
    assert "spiffe://test.hostler/user/admin" in shown
    assert "h1    1     failed       " in shown
    assert "FAILED_PRECONDITION BUSY: not now" in shown
    assert "of h1, h2, h3\n  create namespace b" in shown
    record = json.loads(hostler(small, "-o", "json", "runs", "show", lines[2].split()[0]).stdout)
    assert record["state"] == "done"
    assert record["hosts"][0]["attempts"] == 1
    assert [(a["host"], a["domain"], a["seq"]) for a in record["anchors"]] == [("h1", "netns", 1)]
    assert len(record["anchors"][0]["head"]) == 64
    assert hostler(small, "runs", "show", "nope").exit_code == 2


def test_diff_of_a_run_with_now(small: World) -> None:
    hostler(small, "-H", "all", "--yes", "netns", "create", "a")
    del small.hosts["h2"].namespaces["a"]
    before = changed(small)
    answer = hostler(small, "runs", "diff", "last")
    assert answer.exit_code == 0
    assert answer.stdout.splitlines() == [
        "2 hosts: h1, h3", "  nothing to do", "1 host: h2", "  create namespace a",
    ]  # fmt: skip
    told = json.loads(hostler(small, "-o", "json", "runs", "diff", "last").stdout)
    assert [len(result["result"]["change"]["plan"]["steps"]) for result in told] == [0, 1, 0]
    assert changed(small) == before


def test_diff_of_two_runs(small: World) -> None:
    hostler(small, "-H", "all", "--yes", "netns", "create", "a", "--address", "10.1.0.2/30")
    for name in ("h1", "h2"):
        small.hosts[name].namespaces.clear()
    hostler(small, "-H", "h1", "-H", "h2", "--yes", "netns", "create", "a",
            "--address", "10.1.0.6/30")  # fmt: skip
    second, first = [
        run["short"] for run in json.loads(hostler(small, "-o", "json", "runs", "list").stdout)
    ]
    assert hostler(small, "runs", "diff", first, second).stdout.splitlines() == [
        "2 hosts: h1, h2", "    create namespace a", "  - add 10.1.0.2/30 to eth0",
        "  + add 10.1.0.6/30 to eth0",
        "1 host: h3", "  - create namespace a", "  - add 10.1.0.2/30 to eth0",
    ]  # fmt: skip
    told = json.loads(hostler(small, "-o", "json", "runs", "diff", first, first).stdout)
    assert [group["same"] for group in told] == [True]


def test_prune(small: World) -> None:
    for name in "abc":
        hostler(small, "-H", "h1", "--yes", "netns", "create", name)
    assert hostler(small, "runs", "prune").exit_code == 2
    assert "forgotten  2" in hostler(small, "runs", "prune", "--keep", "1").stdout
    assert hostler(small, "-o", "json", "runs", "prune", "--days", "1").stdout == (
        '{\n  "forgotten": 0\n}\n'
    )
    with store(small) as runs:
        assert [anchor.seq for anchor in runs.anchors()] == [3]


def test_confirm_within_from_the_command_line(small: World) -> None:
    small.hosts["h2"].pending.shuts = DOORS
    answer = hostler(
        small, "-H", "all", "--yes", "--confirm-within", "3s", "netns", "create", "a"
    )  # fmt: skip
    assert answer.exit_code == 1
    assert outcomes(small) == {"h1": "applied", "h2": "rolled_back", "h3": "applied"}
    assert "h2: ABORTED ROLLED_BACK" in answer.stderr
    small.hosts["h2"].pending.shuts = ()
    assert hostler(small, "--yes", "runs", "resume", "last").exit_code == 0
    assert outcomes(small) == dict.fromkeys(small.hosts, "applied")
    groups = [
        request.change.confirm.group
        for request in small.hosts["h2"].named("CreateNamespace")
        if not request.change.validate_only
    ]
    assert len(set(groups)) == 2


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--batch", "1,10%", "netns", "list"], "must end in 100%"),
        (["--confirm-within", "0.5s", "netns", "list"], "from 1s to 1h"),
        (["--confirm-within", "2h", "netns", "list"], "from 1s to 1h"),
        (["--confirm-within", "9s", "--background", "netns", "list"], "--background does not"),
        (["-H", "h1", "--yes", "--gate", "'", "netns", "create", "a"], "--gate: No closing"),
        (["--no-record", "runs", "resume", "last"], "is recorded where it is"),
        (["runs", "list", "--batch", "1"], "--batch is global"),
    ],
)
def test_wrong_usage(small: World, args: list[str], words: str) -> None:
    answer = hostler(small, *args)
    assert answer.exit_code == 2
    assert words in answer.output
