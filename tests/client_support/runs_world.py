"""Runs of the command line against real servers, by a client that a test can kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from typing import Any

import grpc
from click.testing import CliRunner, Result
from client_doors import World, rich

from hostler.cli.main import cli
from hostler.runs import Runs, open_runs

MAIN = "import sys; from hostler.cli.main import main; sys.argv[0] = 'hostler'; main()"
BUSY = rich(grpc.StatusCode.FAILED_PRECONDITION, "BUSY", "not now")


def environment(fleet: World) -> dict[str, str]:
    return {
        "HOSTLER_CONFIG": str(fleet.config),
        "HOSTLER_RUNS_URL": f"sqlite:///{fleet.folder}/state/runs.sqlite",
    }


def hostler(fleet: World, *args: str) -> Result:
    return CliRunner().invoke(cli, args, env=environment(fleet))


def started(fleet: World, *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, *args],
        env={**os.environ, **environment(fleet)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
    )  # fmt: skip


def store(fleet: World) -> Runs:
    return open_runs(environment(fleet)["HOSTLER_RUNS_URL"])


def asked(fleet: World) -> dict[str, int]:
    """How often each host was called, for whatever."""
    return {name: len(host.calls) for name, host in fleet.hosts.items()}


def changed(fleet: World) -> dict[str, int]:
    """How many changes each host carried out."""
    return {name: host.changes for name, host in fleet.hosts.items()}


def outcomes(fleet: World, run: str = "last") -> dict[str, str]:
    shown = json.loads(hostler(fleet, "-o", "json", "runs", "show", run).stdout)
    return {host["host"]: host["outcome"] or host["state"] for host in shown["hosts"]}


class Killer:
    """Kills a client when a host is asked for the second time, which is for the change itself."""

    def __init__(self) -> None:
        self.client: subprocess.Popen[str] | None = None
        self._ready = threading.Event()

    def aim(self, client: subprocess.Popen[str]) -> None:
        self.client = client
        self._ready.set()

    def kill(self, *_: Any) -> None:
        assert self._ready.wait(30)
        assert self.client is not None
        self.client.send_signal(signal.SIGKILL)
        self.client.wait(30)


def killed_in_the_middle(fleet: World, killer: Killer) -> None:
    client = started(
        fleet, "-H", "all", "--yes", "--parallel", "3", "--batch", "1,25%,100%",
        "netns", "create", "a",
    )  # fmt: skip
    killer.aim(client)
    client.communicate(timeout=60)
    assert client.returncode == -signal.SIGKILL


def resumed_is_done_once(fleet: World) -> None:
    """Resume it; nobody who had it is asked, and everybody has it once."""
    states = outcomes(fleet)
    had_it = {name for name, word in states.items() if word == "applied"}
    before = asked(fleet)
    answer = hostler(fleet, "--yes", "runs", "resume", "last")
    assert answer.exit_code == 0, answer.output
    after = asked(fleet)
    assert {name for name in after if after[name] == before[name]} == had_it
    assert changed(fleet) == dict.fromkeys(fleet.hosts, 1)
    assert set(outcomes(fleet).values()) <= {"applied", "unchanged"}
    again = hostler(fleet, "--yes", "runs", "resume", "last")
    assert "Nothing is missing" in again.stderr
