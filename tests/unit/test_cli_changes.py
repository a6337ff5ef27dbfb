"""Commands against real servers: results, plans, the question before a change, exit statuses."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from click.testing import CliRunner, Result
from client_doors import World, rich, world

from hostler.api.netns.v1 import namespace_pb2, process_pb2
from hostler.cli.main import cli
from hostler.fleet import load_fleet
from hostler.fleet_file import set_domains

Run = Callable[..., Result]
MAIN = "import sys; from hostler.cli.main import main; sys.argv[0] = 'hostler'; main()"


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        made.start("h1", 'role = "web"')
        made.start("h2")
        yield made


@pytest.fixture
def run(fleet: World) -> Run:
    def invoke(*args: str) -> Result:
        return CliRunner().invoke(cli, args, env={"HOSTLER_CONFIG": str(fleet.config)})

    return invoke


def process(fleet: World, *args: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    env = {**os.environ, "HOSTLER_CONFIG": str(fleet.config)}
    command = [sys.executable, "-c", MAIN, *args]
    return subprocess.run(command, capture_output=True, env=env, timeout=60, **options)


def test_reads_in_every_format(fleet: World, run: Run) -> None:
    fleet.hosts["h1"].namespaces["a"] = namespace_pb2.Namespace(name="a", managed=True, inode=5)
    table = run("-H", "all", "netns", "list")
    assert table.exit_code == 0
    lines = table.stdout.splitlines()
    assert lines[0].split()[:2] == ["HOST", "NAME"]
    assert lines[1].split()[:3] == ["h1", "a", "hostler"]
    assert "\x1b" not in table.stdout
    for output, load in (
        ("json", json.loads),
        ("yaml", yaml.safe_load),
        ("ndjson", lambda text: [json.loads(line) for line in text.splitlines()]),
    ):
        answer = run("-H", "all", "-o", output, "netns", "list")
        # As lines they are in the order in which the hosts answered.
        results = sorted(load(answer.stdout), key=lambda r: str(r["host"]))
        assert [(r["host"], r["ok"]) for r in results] == [("h1", True), ("h2", True)]
        assert results[0]["result"]["namespaces"][0]["inode"] == 5


@pytest.mark.parametrize("words", [("netns", "list"), ("host", "get", "--domain", "netns")])
def test_a_line_of_ndjson_is_there_before_the_last_host_is_through(
    fleet: World, words: tuple[str, ...]
) -> None:
    through, method = threading.Event(), "ListNamespaces" if words[0] == "netns" else "GetHost"
    fleet.hosts["h1"].refusals[method] = [lambda *_: through.wait(30)]
    argv = [sys.executable, "-c", MAIN, "-H", "all", "-o", "ndjson", *words]
    env = {**os.environ, "HOSTLER_CONFIG": str(fleet.config)}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env=env) as command:
        assert command.stdout
        assert json.loads(command.stdout.readline())["host"] == "h2"
        assert command.poll() is None
        through.set()
        assert json.loads(command.stdout.readline())["host"] == "h1"
        assert command.wait(30) == 0


def test_a_dead_host_is_named_and_the_others_answer(fleet: World, run: Run) -> None:
    fleet.dead("h0")
    table = run("-H", "all", "netns", "list")
    assert table.exit_code == 1
    assert "h0: UNAVAILABLE UNREACHABLE: " in table.stderr
    results = json.loads(run("-H", "all", "-o", "json", "netns", "list").stdout)
    assert [(r["host"], r["ok"]) for r in results] == [("h1", True), ("h2", True), ("h0", False)]
    assert results[2]["error"]["code"] == "UNAVAILABLE"


def test_a_change_without_terminal_and_yes_reaches_nobody(fleet: World) -> None:
    answer = process(fleet, "-H", "all", "netns", "create", "a", stdin=subprocess.DEVNULL)
    assert answer.returncode == 2
    assert b"give --yes, or --plan" in answer.stderr
    assert all(host.calls == [] for host in fleet.hosts.values())


def test_plan_shows_each_plan_once_and_changes_nothing(fleet: World, run: Run) -> None:
    fleet.start("h3")
    fleet.hosts["h2"].network = "10.200.7"
    answer = run("-H", "all", "--plan", "netns", "create", "a", "--pool", "default")
    assert answer.exit_code == 0
    assert answer.stdout.splitlines() == [
        "2 hosts: h1, h3",
        "  create namespace a",
        "  add 10.200.0.2/30 to eth0",
        "  add fd00:200::2/64 to eth0",
        "1 host: h2",
        "  create namespace a",
        "  add 10.200.7.2/30 to eth0",
        "  add fd00:200::2/64 to eth0",
    ]
    assert all(host.namespaces == {} for host in fleet.hosts.values())
    results = json.loads(run("-H", "h1", "-o", "json", "--plan", "netns", "create", "a").stdout)
    assert results[0]["result"]["change"]["outcome"] == "OUTCOME_PLANNED"


def test_yes_changes_and_says_what_came_of_it(fleet: World, run: Run) -> None:
    answer = run("-H", "all", "--yes", "netns", "create", "a", "--address", "10.1.0.2/30")
    assert answer.exit_code == 0
    assert [line.split() for line in answer.stdout.splitlines()] == [
        ["HOST", "OUTCOME", "RESULT"],
        ["h1", "changed", "a", "10.1.0.2/30"],
        ["h2", "changed", "a", "10.1.0.2/30"],
    ]
    assert "2 hosts: h1, h2\n  create namespace a" in answer.stderr
    again = run("-H", "all", "-o", "json", "--yes", "netns", "create", "a",
                "--address", "10.1.0.2/30")  # fmt: skip
    assert [r["result"]["change"]["changed"] for r in json.loads(again.stdout)] == [False, False]


def test_a_failed_canary_spares_the_rest(fleet: World, run: Run) -> None:
    refusal = rich(
        grpc.StatusCode.FAILED_PRECONDITION, "BUSY", "not now", subjects={"a": "is used"}
    )
    fleet.hosts["h1"].refusals["CreateNamespace"] = [None, refusal]
    answer = run("-H", "all", "--yes", "netns", "create", "a")
    assert answer.exit_code == 1
    assert "h1: FAILED_PRECONDITION BUSY: not now; a: is used" in answer.stderr
    assert "h2: ABORTED NOT_STARTED" in answer.stderr
    assert fleet.hosts["h2"].namespaces == {}


@pytest.mark.parametrize(("reply", "code", "made"), [(b"y\n", 0, ["a"]), (b"n\n", 1, [])])
def test_a_terminal_is_asked(fleet: World, reply: bytes, code: int, made: list[str]) -> None:
    ours, theirs = pty.openpty()
    try:
        os.write(ours, reply)
        answer = process(fleet, "-H", "h1", "-o", "json", "netns", "create", "a", stdin=theirs)
    finally:
        os.close(ours)
        os.close(theirs)
    assert answer.returncode == code
    assert b"create namespace a" in answer.stderr
    assert b"Change 1 host?" in answer.stderr
    assert list(fleet.hosts["h1"].namespaces) == made
    if made:
        assert json.loads(answer.stdout)[0]["ok"]


def test_selectors(run: Run) -> None:
    hosts = [
        r["host"] for r in json.loads(run("-H", "role=web", "-o", "json", "netns", "ps").stdout)
    ]
    assert hosts == ["h1"]
    assert run("-H", "h9", "netns", "ps").exit_code == 3
    assert run("netns", "ps").exit_code == 3


def test_text_of_a_host_cannot_drive_the_terminal(run: Run) -> None:
    answer = run("-H", "h1", "netns", "ps")
    assert "\x1b" not in answer.stdout
    assert "evil\\x1b[31m" in answer.stdout
    assert "python3 -m http.server" in run("-H", "h1", "netns", "ps", "-a").stdout


def test_apply_files(fleet: World, run: Run, tmp_path: Path) -> None:
    spaces = tmp_path / "spaces.toml"
    spaces.write_text('[[namespaces]]\nname = "a"\n[[namespaces]]\nname = "b"\n')
    assert run("-H", "h1", "--yes", "netns", "apply", "-f", str(spaces)).exit_code == 0
    assert list(fleet.hosts["h1"].namespaces) == ["a", "b"]
    rules = tmp_path / "rules.toml"
    rules.write_text('name = "base"\ninput_policy = "drop"\n[[rules]]\nhok = "input"\n')
    answer = run("-H", "h1", "--yes", "firewall", "apply", "-f", str(rules))
    assert answer.exit_code == 2
    assert f"{rules}:4: rule rule-1: rules[0].hok: unknown key" in answer.stderr
    rules.write_text('name = "base"\ninput_policy = "drop"\n')
    assert run("-H", "h1", "--yes", "firewall", "apply", "-f", str(rules)).exit_code == 0
    assert "base" in run("-H", "h1", "firewall", "list").stdout
    assert "base" in run("-H", "h1", "firewall", "get", "base").stdout
    assert run("-H", "h1", "--yes", "firewall", "delete", "base").exit_code == 0
    assert fleet.hosts["h1"].rulesets == {}
    assert run("-H", "h1", "netns", "apply", "-f", str(tmp_path / "none")).exit_code == 2
    table = run("-H", "all", "firewall", "table").stdout
    assert "# h1\ntable inet hostler {" in table
    assert "net.ipv4.ip_forward = 1" in table


def test_processes(fleet: World, run: Run) -> None:
    host = fleet.hosts["h1"]
    host.namespaces["web"] = namespace_pb2.Namespace(name="web")
    started = run("-H", "h1", "--yes", "netns", "start", "web", "main", "--user", "www-data",
                  "--memory", "64M", "--cpu", "0.5", "--env", "A=1", "--restart", "always",
                  "--", "sleep", "60")  # fmt: skip
    assert started.exit_code == 0, started.output
    (made,) = host.processes.values()
    assert made.process == process_pb2.Process(
        name="main",
        namespace="web",
        argv=["sleep", "60"],
        user="www-data",
        environment={"A": "1"},
        limits=process_pb2.Limits(memory_max_bytes=64 << 20, cpu_max_millicpus=500),
        restart=process_pb2.Restart(policy="POLICY_ALWAYS"),
    )
    assert "web/main" in run("-H", "h1", "netns", "processes").stdout
    assert run("-H", "h1", "--yes", "netns", "stop", "web", "main").exit_code == 0
    assert host.processes == {}
    logs = run("-H", "h1", "netns", "logs", "web", "main")
    assert [line.split(" ", 1)[1] for line in logs.stdout.splitlines()] == [
        f"line {number}" for number in range(1, 11)
    ]


def test_followed_logs_go_on_where_they_were_cut(fleet: World, run: Run) -> None:
    answer = run("-H", "h1", "-o", "ndjson", "netns", "logs", "web", "main", "-f")
    lines = [json.loads(line)["message"] for line in answer.stdout.splitlines()]
    assert lines == [f"line {number}" for number in range(1, 11)]
    cursors = [request.after_cursor for request in fleet.hosts["h1"].named("StreamLogs")]
    assert cursors == ["", "3", "6", "9"]


def test_run_on_one_host_is_like_a_local_command(fleet: World) -> None:
    answer = process(fleet, "-H", "h1", "netns", "run", "web", "--", "cat", "7", input=b"in\x00put")
    assert answer.returncode == 7
    assert answer.stdout == b"on h1\nhalfin\x00put"
    assert answer.stderr == b"to stderr\n"


def test_run_passes_signals_on(fleet: World) -> None:
    env = {**os.environ, "HOSTLER_CONFIG": str(fleet.config)}
    command = [sys.executable, "-c", MAIN, "-H", "h1", "netns", "run", "web", "--", "sleep"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"on h1\n"
        running.send_signal(2)
        assert running.wait(20) == 130


def test_run_on_several_hosts_names_them(fleet: World) -> None:
    answer = process(fleet, "-H", "all", "netns", "run", "web", "--", "x", stdin=subprocess.DEVNULL)
    assert answer.returncode == 0
    assert sorted(answer.stdout.splitlines()) == [
        b"h1: half", b"h1: on h1", b"h2: half", b"h2: on h2",
    ]  # fmt: skip
    assert sorted(answer.stderr.splitlines()) == [b"h1: to stderr", b"h2: to stderr"]
    failed = process(fleet, "-H", "all", "-o", "json", "netns", "run", "web", "--", "x", "3")
    assert failed.returncode == 1
    first = json.loads(failed.stdout)[0]["result"]
    assert first["exit_code"] == 3
    assert first["stdout"] == "on h1\nhalf"


def test_counters(run: Run) -> None:
    assert "L2 frame without FCS" in run("-H", "h1", "netns", "counters", "web").stdout
    watched = run("-H", "h1", "netns", "counters", "--watch", "--count", "2")
    assert watched.exit_code == 0
    assert "1.50 M" in watched.stdout
    assert "94.93%" in watched.stdout


def test_fleet_check_has_a_row_for_each_door(fleet: World, run: Run) -> None:
    fleet.dead("h3")
    answer = run("fleet", "check")
    assert answer.exit_code == 1
    rows = [line.split()[:2] for line in answer.stdout.splitlines()[1:]]
    doors = ("netns", "storage", "firewall", "tracing", "ssl")
    assert rows == [[host, door] for host in ("h1", "h2") for door in doors]
    assert "macvlan (no such link type)" in answer.stdout
    assert "h3 netns: UNAVAILABLE" in answer.stderr
    only = run("-H", "h1", "-o", "json", "host", "get", "--domain", "netns")
    assert json.loads(only.stdout)[0]["domain"] == "netns"
    capabilities = run("-H", "h1", "host", "capabilities", "--domain", "netns")
    assert capabilities.stdout.splitlines()[1].split()[2:4] == ["macvlan", "no"]


def test_fleet_add_and_remove(fleet: World, run: Run) -> None:
    assert run("fleet", "add", "h9", "10.0.0.9", "--label", "role=db").exit_code == 0
    assert load_fleet(fleet.fleet).select(["role=db"])[0].name == "h9"
    assert run("fleet", "add", "h9", "10.0.0.9").exit_code == 2
    assert run("fleet", "add", "h8", "x", "--port", "mail=1").exit_code == 2
    assert run("fleet", "show", "h9").stdout.split()[-5:] == [
        *("h9", "10.0.0.9", "role=db", "-", "all")
    ]
    assert run("fleet", "remove", "h9").exit_code == 0
    assert run("fleet", "remove", "h9").exit_code == 3


def test_only_the_doors_that_a_host_has_are_asked(fleet: World, run: Run) -> None:
    fleet.fleet.write_text(fleet.fleet.read_text() + "[groups]\nfirst = ['h1']\n")
    set_domains(fleet.fleet, "h1", ["netns", "ssl"])
    answer = run("-H", "@first", "-o", "json", "fleet", "check")
    assert [each["domain"] for each in json.loads(answer.stdout)] == ["netns", "ssl"]
    assert answer.exit_code == 0
    jobs = run("-H", "@first", "-H", "h2", "-o", "json", "audit", "list")
    asked = [(each["host"], each["domain"]) for each in json.loads(jobs.stdout)]
    assert [domain for host, domain in asked if host == "h1"] == ["netns", "ssl"]
    assert len([domain for host, domain in asked if host == "h2"]) == 5


def test_groups(fleet: World, run: Run) -> None:
    assert run("fleet", "group", "first", "h1", "h2").stdout.count("first") == 2
    assert run("fleet", "group", "both", "@first").exit_code == 0
    assert run("fleet", "group", "wrong", "h77").exit_code == 2
    assert [host.name for host in load_fleet(fleet.fleet).select(["@both"])] == ["h1", "h2"]
    assert "both,first" in run("-H", "@both", "fleet", "list").stdout
    assert run("fleet", "ungroup", "first").exit_code == 2
    assert run("fleet", "ungroup", "both").exit_code == 0
    assert run("-H", "@both", "fleet", "list").exit_code == 3


def test_audit(fleet: World, run: Run) -> None:
    answer = json.loads(run("-H", "all", "-o", "json", "audit", "list").stdout)
    assert [(r["host"], r["domain"]) for r in answer] == [
        (host, domain)
        for host in ("h1", "h2")
        for domain in ("netns", "storage", "firewall", "tracing", "ssl")
    ]
    assert [record["seq"] for record in answer[0]["result"]["records"]] == [1, 2, 3]
    tail = run("-H", "h1", "audit", "tail", "-n", "5", "--domain", "netns")
    assert tail.exit_code == 0
    assert fleet.hosts["h1"].named("ListAuditRecords")[-1].tail == 5


def test_a_followed_audit_log_shows_each_record_once(fleet: World) -> None:
    env = {**os.environ, "HOSTLER_CONFIG": str(fleet.config), "PYTHONUNBUFFERED": "1"}
    args = ["-H", "h1", "-o", "ndjson", "audit", "tail", "-f", "--domain", "netns"]
    with subprocess.Popen(
        [sys.executable, "-c", MAIN, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
    ) as running:
        time.sleep(3.5)
        running.send_signal(2)
        out, _ = running.communicate(timeout=20)
    # Two more are written while it follows; between them the stream is cut.
    assert [json.loads(line)["seq"] for line in out.splitlines()] == [1, 2, 3, 4, 5]
    assert running.returncode == 130


def test_isolate_and_remove(fleet: World, run: Run) -> None:
    made = run("-H", "all", "--yes", "isolate", "web", "--publish", "8080:8000", "--private-tmp",
               "--user", "www-data", "--", "python3", "-m", "http.server", "8000")  # fmt: skip
    assert made.exit_code == 0, made.output
    assert "h1    changed  10.200.0.2/30 fd00:200::2/64, pid 4242, published 8080" in made.stdout
    assert "2 hosts: h1, h2" in made.stderr
    assert fleet.hosts["h1"].namespaces["web"].dns.servers == ["192.0.2.53"]
    removed = run("-H", "all", "--yes", "isolate", "web", "--remove")
    assert removed.exit_code == 0
    assert "process main, ruleset, namespace" in removed.stdout
    again = run("-H", "all", "--yes", "-o", "json", "isolate", "web", "--remove")
    assert again.exit_code == 0
    assert [r["result"]["changed"] for r in json.loads(again.stdout)] == [False, False]


def test_local_needs_no_configuration(tmp_path: Path) -> None:
    answer = CliRunner().invoke(
        cli,
        ["-H", "local", "-o", "json", "--timeout", "1", "netns", "list"],
        env={"HOSTLER_CONFIG": str(tmp_path / "none")},
    )
    (result,) = json.loads(answer.stdout)
    assert result["host"] == "local"
