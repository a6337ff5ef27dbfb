"""`hostler trace stuck`, `mem`, `io`, `net` and `sockets`: what is real here, told of two hosts."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from client_doors import world

from hostler.cli.main import cli

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with world(tmp_path) as fleet:
        fleet.start("h1")
        fleet.start("h2")

        def invoke(*args: str) -> Result:
            return CliRunner().invoke(cli, args, env={"HOSTLER_CONFIG": str(fleet.config)})

        yield invoke


@pytest.fixture
def stopped() -> Iterator[int]:
    """A process that is stopped."""
    with subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]) as process:
        process.send_signal(signal.SIGSTOP)
        yield process.pid
        process.kill()


def test_stuck_tells_a_sentence_for_each(run: Run, stopped: int) -> None:
    answer = run("-H", "all", "trace", "stuck", str(stopped))
    assert answer.exit_code == 0, answer.output
    lines = answer.stdout.splitlines()
    assert lines[0].split() == [
        *("HOST", "PID", "NAME", "UNIT", "STATE", "FOR", "WAITS", "FOR", "WHY")
    ]
    assert [line.split()[:2] for line in lines[1:]] == [["h1", str(stopped)], ["h2", str(stopped)]]
    assert "is stopped by a signal" in lines[1]
    told = json.loads(run("-H", "h1", "-o", "json", "trace", "stuck").stdout)
    found = {f["process"]["pid"]: f for f in told[0]["result"]["findings"]}
    assert found[stopped]["kind"] == "WAIT_KIND_STOPPED"


def test_who_is_not_there_is_an_error_of_each_host(run: Run) -> None:
    answer = run("-H", "all", "trace", "stuck", "no-such-thing")
    assert answer.exit_code == 1
    assert answer.stderr.count("there is no process of the name no-such-thing") == 2
    assert run("-H", "h1", "trace", "stuck", "99999999").exit_code == 2


def test_mem_in_units_and_in_percent(run: Run) -> None:
    lines = run("-H", "h1", "trace", "mem", "--unit", "%").stdout.splitlines()
    assert lines[0].split() == ["HOST", "WHAT", "%", "RECLAIMABLE"]
    values = {" ".join(line.split()[1:-1]): line.split()[-1] for line in lines[1:]}
    rows = [line[len("h1") :].split() for line in lines[1:]]
    assert rows[0] == ["total", "100.0"]
    assert values
    shown = run("-H", "all", "trace", "mem").stdout
    assert shown.count("tmpfs") == 2
    total_mib = int(
        next(x for x in Path("/proc/meminfo").read_text().splitlines() if "MemTotal" in x).split()[
            1
        ]
    )
    assert f"{total_mib / 1024:.1f}" in shown


def test_sockets_with_their_owners(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        args = ("trace", "sockets", "--protocol", "tcp", "--listening", "--pid", str(os.getpid()))
        answer = run("-H", "h1", *args)
        assert answer.exit_code == 0, answer.output
        (line,) = (x for x in answer.stdout.splitlines() if f"127.0.0.1:{port} " in x)
        assert line.split()[:3] == ["h1", "tcp", "LISTEN"]
        assert f"({os.getpid()})" in line


@pytest.mark.parametrize("what", ["io", "net", "net --by connection", "net --by process"])
def test_rates_come_again_and_again(run: Run, what: str) -> None:
    args = ("trace", *what.split(), "--interval", "200ms", "--count", "2")
    answer = run("-H", "all", "-o", "ndjson", *args)
    assert answer.exit_code == 0, answer.output
    told = [json.loads(line) for line in answer.stdout.splitlines()]
    assert sorted((each["host"], each["seq"]) for each in told) == [
        *(("h1", 2), ("h1", 3), ("h2", 2), ("h2", 3))
    ]
    table = run("-H", "h1", *args).stdout
    assert "B/S" in table or "BIT/S" in table


def test_help_has_examples(run: Run) -> None:
    for words in ([], ["stuck"], ["mem"], ["io"], ["net"], ["sockets"]):
        answer = run("trace", *words, "--help")
        assert answer.exit_code == 0
        assert "hostler -H" in answer.stdout or not words
