"""`hostler firewall top` against real servers: in a pipe, as documents, and on a terminal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner, Result
from client_doors import World, world
from client_errors import rich
from terminal import Terminal

from hostler.cli.main import cli

Run = Callable[..., Result]


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        made.start("h1")
        made.start("h2")
        yield made


@pytest.fixture
def run(fleet: World) -> Run:
    def invoke(*args: str) -> Result:
        return CliRunner().invoke(cli, args, env={"HOSTLER_CONFIG": str(fleet.config)})

    return invoke


def test_top_goes_on_after_a_cut_and_ends_after_its_count(fleet: World, run: Run) -> None:
    answer = run("-H", "h1", "firewall", "top", "--count", "5", "-n", "3", "--interval", "500ms")
    assert answer.exit_code == 0, answer.output
    rows = [line.split() for line in answer.stdout.splitlines() if line.startswith("h1")]
    assert [row[1:4] for row in rows] == [["web/ssh", "2.50", "k"], ["set", "bad", "2.40"]] * 5
    assert "h1: 3 readings were left out" in answer.stderr
    first, second = fleet.hosts["h1"].named("WatchRuleCounters")
    assert (first.top, first.interval.ToMilliseconds(), first.after_seq) == (3, 500, 0)
    assert (second.after_seq, second.after_time.seconds) == (3, 1003)


def test_top_as_json(run: Run) -> None:
    answer = run("-H", "all", "-o", "ndjson", "firewall", "top", "--count", "2")
    lines: list[Any] = [json.loads(line) for line in answer.stdout.splitlines()]
    assert sorted((line["host"], int(line["seq"])) for line in lines) == [
        *(("h1", 1), ("h1", 2)),
        *(("h2", 1), ("h2", 2)),
    ]


def start(fleet: World, terminal: Terminal, *words: str) -> subprocess.Popen[bytes]:
    side = terminal.program_side
    return subprocess.Popen(
        [sys.executable, "-c", "from hostler.cli.main import main; main()", *words],
        env={**os.environ, "HOSTLER_CONFIG": str(fleet.config), "TERM": "xterm"},
        stdin=side,
        stdout=side,
        stderr=side,
    )


def test_a_terminal_is_drawn_anew_in_place_until_an_interrupt(fleet: World) -> None:
    for host in fleet.hosts.values():
        host.pause_s = 0.3
    with Terminal() as terminal, start(fleet, terminal, "-H", "all", "firewall", "top") as started:
        terminal.read_until(lambda: " 30 " in _counted(terminal), 60)
        assert not terminal.cursor_shown
        started.send_signal(signal.SIGINT)
        terminal.read_until(lambda: started.poll() is not None, 20)
        terminal.read_until(lambda: "Interrupted." in terminal.written, 5)
        assert started.returncode == 130
        assert terminal.cursor_shown
        screen = terminal.screen
    # One table, however often it was drawn; rules before sets, and of each the busiest first.
    assert [line.split()[:2] for line in screen if line.startswith(("HOST", "h"))][:1] == [
        ["HOST", "RULE"]
    ]
    rows = [line.split() for line in screen if line.startswith(("h1 ", "h2 "))]
    assert sorted(row[0] for row in rows) == ["h1", "h1", "h2", "h2"], screen
    assert [row[1:4] for row in rows] == [
        *([["web/ssh", "2.50", "k"]] * 2),
        *([["set", "bad", "2.40"]] * 2),
    ]
    assert terminal.written.count("RULE OR SET") > 2
    assert "Traceback" not in terminal.written


def _counted(terminal: Terminal) -> str:
    """What the rule has counted, on the screen now."""
    return " ".join(line for line in terminal.screen if "web/ssh" in line)


def test_what_does_not_fit_a_terminal_is_the_least_busy(fleet: World) -> None:
    """Of two lines for rows one is the busiest rule; a set has a third of the lines."""
    with (
        Terminal(lines=5) as terminal,
        start(fleet, terminal, "-H", "all", "firewall", "top", "--count", "2") as started,
    ):
        terminal.read_until(lambda: started.poll() is not None, 60)
        rows = [line.split()[1] for line in terminal.screen if line.startswith(("h1 ", "h2 "))]
    assert started.returncode == 0
    assert rows == ["web/ssh", "web/ssh", "set"]


def test_a_host_that_is_lost_leaves_the_table(fleet: World) -> None:
    fault = rich(grpc.StatusCode.INTERNAL, "TOOL_FAILED", "nft cannot list")
    fleet.hosts["h2"].refusals["WatchRuleCounters"] = [None, fault]
    with (
        Terminal() as terminal,
        start(fleet, terminal, "-H", "all", "firewall", "top", "--count", "5") as started,
    ):
        terminal.read_until(lambda: started.poll() is not None, 60)
        screen = terminal.screen
    assert started.returncode == 1
    assert [line.split()[0] for line in screen if "web/ssh" in line] == ["h1"]
    assert "h2: says no more" in screen
