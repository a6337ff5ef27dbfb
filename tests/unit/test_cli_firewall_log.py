"""`hostler firewall log`: packet logs of several real servers on the terminal."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from client_doors import World, world
from client_packets import PacketLog, made_records
from runs_world import hostler, started


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        for number in (1, 2):
            made.start(f"h{number}").packets = PacketLog(f"r{number}", made_records(300, number))
        yield made


def test_what_hosts_have_is_printed_to_its_end(fleet: World) -> None:
    fleet.hosts["h2"].packets.losses = {5: (12, 3)}
    answer = hostler(fleet, "-H", "all", "-o", "ndjson", "firewall", "log")
    assert answer.exit_code == 0, answer.output
    lines = [json.loads(line) for line in answer.stdout.splitlines()]
    assert [each["seq"] for each in lines if each["host"] == "h1"] == list(range(1, 301))
    assert len(lines) == 600
    assert "h2: 12 records lost up to number 256, 3 of them at its socket" in answer.stderr
    some = hostler(fleet, "-H", "h1", "firewall", "log", "--where", "dport == 22", "--limit", "5")
    assert len(some.stdout.splitlines()) == 5
    assert all(":22  " in line and line.startswith("h1: ") for line in some.stdout.splitlines())
    assert fleet.hosts["h1"].named("FollowPacketLog")[-1].where == "dport == 22"


def test_a_host_without_a_record_is_no_wait(fleet: World) -> None:
    fleet.hosts["h1"].packets = PacketLog("r1")
    answer = hostler(fleet, "-H", "h1", "firewall", "log")
    assert (answer.exit_code, answer.stdout) == (0, "")


def test_a_host_whose_log_cannot_be_read_is_named_and_the_others_are_read(fleet: World) -> None:
    fleet.hosts["h1"].packets.problem = "another program reads group 7441"
    answer = hostler(fleet, "-H", "all", "firewall", "log")
    assert answer.exit_code == 1
    assert "h1: " in answer.stderr
    assert "another program reads group 7441" in answer.stderr
    assert len(answer.stdout.splitlines()) == 300


def test_a_filter_that_cannot_be_read_asks_nobody(fleet: World) -> None:
    answer = hostler(fleet, "-H", "all", "firewall", "log", "--where", "dport = 22")
    assert answer.exit_code == 2
    assert "at character" in answer.output
    assert fleet.hosts["h1"].named("FollowPacketLog") == []


def test_followed_over_a_cut(fleet: World) -> None:
    client = started(fleet, "-H", "h1", "-o", "ndjson", "firewall", "log", "--follow")
    log = fleet.hosts["h1"].packets
    # Follows from now on: what was there before is not told.
    for _ in range(600):
        if fleet.hosts["h1"].named("FollowPacketLog"):
            break
        threading.Event().wait(0.05)
    threading.Event().wait(0.3)
    log.cut_after = 10
    log.records += made_records(10, 3, first=301)
    threading.Event().wait(1.0)
    log.records += made_records(10, 3, first=311)
    threading.Event().wait(1.5)
    client.send_signal(signal.SIGINT)
    out, _ = client.communicate(timeout=30)
    assert [json.loads(line)["seq"] for line in out.splitlines()] == list(range(301, 321))
    requests = fleet.hosts["h1"].named("FollowPacketLog")
    assert [(r.reader, r.after_seq) for r in requests] == [("", -1), ("r1", 310)]
