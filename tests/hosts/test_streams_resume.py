"""Streams of the command that live on while the daemon behind them does not."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import security_lab as support
from test_lab_life import install, repacked

from hostler.lab.host import Host
from hostler.lab.lab import Lab
from hostler.lab.rootfs import packages_in

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(240)]

NAME = "streamed"
# Writes a number every 10 ms, for ever.
COUNTER = "n=0; while :; do n=$((n+1)); echo line $n; sleep 0.01; done"
LONGEST_CUT_S = 15.0


@dataclass
class Follower:
    """The command at work; what it says goes to a file, since nobody reads it meanwhile."""

    process: subprocess.Popen[bytes]
    out: Path
    err: Path

    def items(self) -> list[dict[str, Any]]:
        return [
            json.loads(line)
            for line in self.out.read_text().splitlines(keepends=True)
            if line.endswith("\n")
        ]

    def wait_for_more(self, within_s: float = LONGEST_CUT_S) -> float:
        """Wait until something new has come; answers how long that took."""
        before = len(self.items())
        return self.wait_until(lambda items: len(items) > before, within_s)

    def wait_until(
        self, reached: Callable[[list[dict[str, Any]]], bool], within_s: float = LONGEST_CUT_S
    ) -> float:
        """Wait until what has come is as wanted; answers how long that took."""
        begun = time.monotonic()
        while not reached(self.items()):
            assert self.process.poll() is None, self.err.read_text()
            assert time.monotonic() - begun < within_s, "nothing comes any more"
            time.sleep(0.05)
        return time.monotonic() - begun


@contextmanager
def following(lab: Lab, folder: Path, *words: str) -> Iterator[Follower]:
    env = {**os.environ, "HOSTLER_CONFIG": str(lab.config), "PYTHONUNBUFFERED": "1"}
    out, err = folder / "out", folder / "err"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        argv = [support.HOSTLER, "-o", "ndjson", *words]
        process = subprocess.Popen(argv, env=env, stdout=stdout, stderr=stderr)
    one = Follower(process, out, err)
    try:
        one.wait_for_more()
        yield one
    finally:
        process.terminate()
        process.wait(10)


def _starts(records: list[dict[str, Any]]) -> int:
    return [record["kind"] for record in records].count("start")


def restart(host: Host) -> None:
    host.run(["systemctl", "restart", "hostler-netns.service"])


def kill(host: Host) -> None:
    host.run(["systemctl", "kill", "--signal=SIGKILL", "hostler-netns.service"])


def stop(host: Host) -> None:
    """Stopped for good; whoever comes again wakes another one."""
    host.run(["systemctl", "stop", "hostler-netns.service"])


def pid(host: Host) -> str:
    words = ["show", "--property=MainPID", "--value", "hostler-netns.service"]
    return host.run(["systemctl", *words]).stdout.strip()


@pytest.fixture
def counting(lab: Lab, h1: Host) -> Iterator[None]:
    """A process on the host that writes line after line."""
    on = ["-H", h1.name, "--yes", "netns"]
    support.hostler(lab, *on, "create", NAME)
    try:
        support.hostler(lab, *on, "start", NAME, "main", "--", "/bin/sh", "-c", COUNTER)
        yield
    finally:
        support.hostler(lab, *on, "stop", NAME, "main")
        support.hostler(lab, *on, "delete", NAME)


@pytest.mark.usefixtures("counting")
def test_logs_go_on_without_gap_and_without_duplicate(lab: Lab, h1: Host, tmp_path: Path) -> None:
    cuts: dict[str, float] = {}
    words = ["-H", h1.name, "netns", "logs", NAME, "main", "-f"]
    with following(lab, tmp_path, *words) as follower:
        for cut in (restart, kill, stop):
            before = pid(h1)
            cut(h1)
            cuts[cut.__name__] = follower.wait_for_more()
            follower.wait_for_more()
            assert pid(h1) not in ("0", before), "it was the same daemon all the time"
        time.sleep(1)
        items = follower.items()
    numbers = [int(item["message"].split()[1]) for item in items]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    print(f"\n{len(numbers)} lines, none lost, none twice; cut for {cuts} s")


def streams_from(follower: Follower, host: Host, version: str) -> None:
    """A version is installed, and the daemon that streams runs its code."""
    follower.wait_for_more()
    assert f"\t{version}\n" in host.run(["dpkg-query", "--show", "hostler-netns"]).stdout
    assert f"/opt/hostler/{version}/" in host.run(["cat", f"/proc/{pid(host)}/cmdline"]).stdout


@pytest.mark.usefixtures("counting")
def test_an_upgrade_and_a_downgrade_cost_no_line_and_no_process(
    lab: Lab, h1: Host, packages: Path, tmp_path: Path
) -> None:
    newer = [repacked(package, tmp_path, "99.1") for package in packages_in(packages)]
    older = packages_in(packages)[0].name.split("_")[1]
    unit = f"hostler-run-{NAME}.main.service"
    main_pid = h1.run(["systemctl", "show", "--property=MainPID", unit]).stdout
    words = ["-H", h1.name, "netns", "logs", NAME, "main", "-f"]
    with following(lab, tmp_path, *words) as follower:
        try:
            install(h1, newer)
            streams_from(follower, h1, "99.1")
        finally:
            install(h1, packages_in(packages))
        streams_from(follower, h1, older)
        time.sleep(1)
        items = follower.items()
    numbers = [int(item["message"].split()[1]) for item in items]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert h1.run(["systemctl", "show", "--property=MainPID", unit]).stdout == main_pid != "0\n"
    print(f"\n{len(numbers)} lines over an upgrade and a downgrade, none lost, none twice")


def test_counters_go_on_counting(lab: Lab, h1: Host, tmp_path: Path) -> None:
    words = ["-H", h1.name, "netns", "counters", "--watch", "--interval", "100ms"]
    with following(lab, tmp_path, *words) as follower:
        for cut in (restart, kill):
            cut(h1)
            follower.wait_for_more()
            follower.wait_for_more()
        items = follower.items()
    assert [item["seq"] for item in items] == list(range(1, len(items) + 1))
    assert sum(item["dropped"] for item in items) > 0, "a cut leaves readings out, and says so"
    print(f"\n{len(items)} readings, {sum(item['dropped'] for item in items)} said to be left out")


def test_the_audit_log_goes_on_without_gap_and_without_duplicate(
    lab: Lab, h1: Host, tmp_path: Path
) -> None:
    """The stream of what happens on the host itself: the restart is in it."""
    words = ["-H", h1.name, "audit", "follow", "--domain", "netns", "--after-seq", "0"]
    with following(lab, tmp_path, *words) as follower:
        time.sleep(1)
        before = len(follower.items())
        for starts, cut in enumerate((restart, kill), start=1):
            cut(h1)
            support.hostler(lab, "-H", h1.name, "netns", "list")
            # The start may be on record, and here, before this looks.
            follower.wait_until(lambda items: _starts(items[before:]) == starts)  # noqa: B023
        time.sleep(1)
        items = follower.items()
    assert [item["seq"] for item in items] == list(range(1, len(items) + 1))
    assert _starts(items[before:]) == 2
    print(f"\n{len(items)} records, two starts of a daemon among them")
