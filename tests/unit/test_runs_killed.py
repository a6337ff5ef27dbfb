"""Runs that stop at their limit, are interrupted or killed, and are resumed from their record.

Clients that are interrupted or killed are processes of their own; the hosts are real servers, which
count what they were asked and go on with it whatever became of the client.
"""

from __future__ import annotations

import json
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from client_doors import World, world
from runs_world import (
    BUSY,
    Killer,
    asked,
    changed,
    hostler,
    killed_in_the_middle,
    outcomes,
    resumed_is_done_once,
    started,
    store,
)

HOSTS = 20


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        for number in range(1, HOSTS + 1):
            made.start(f"h{number}")
        yield made


@pytest.fixture
def small(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        for number in range(1, 4):
            made.start(f"h{number}")
        yield made


def test_twenty_hosts_with_three_bad_ones(fleet: World) -> None:
    bad = ("h6", "h9", "h12")
    for name in bad:
        fleet.hosts[name].refusals["CreateNamespace"] = [None, BUSY]
    first = hostler(
        fleet, "-H", "all", "--yes", "--batch", "1,25%,50%,75%,100%", "--max-failures", "2",
        "netns", "create", "a",
    )  # fmt: skip
    assert first.exit_code == 1
    assert (
        "Stopped in wave 4 of 5: 3 failed, 2 may; failed: h6, h9, h12; "
        "not started: h16, h17, h18, h19, h20" in first.stderr
    )
    good = [f"h{n}" for n in range(1, 16) if f"h{n}" not in bad]
    left = [*bad, *(f"h{n}" for n in range(16, 21))]
    assert [name for name, count in changed(fleet).items() if count] == good
    assert outcomes(fleet) == (
        dict.fromkeys(good, "applied")
        | dict.fromkeys(bad, "failed")
        | dict.fromkeys(left[3:], "not_started")
    )
    before = asked(fleet)
    second = hostler(fleet, "--yes", "runs", "resume", "last")
    assert second.exit_code == 0, second.output
    after = asked(fleet)
    assert [name for name in after if after[name] != before[name]] == sorted(
        left, key=lambda name: int(name[1:])
    )
    assert changed(fleet) == dict.fromkeys(fleet.hosts, 1)
    assert set(outcomes(fleet).values()) == {"applied"}
    third = hostler(fleet, "--yes", "runs", "resume", "last")
    assert third.exit_code == 0
    assert "Nothing is missing" in third.stderr
    assert asked(fleet) == after


@pytest.mark.parametrize("host", ["h1", "h2", "h9", "h20"])
def test_a_client_killed_while_a_host_is_asked(fleet: World, host: str) -> None:
    """The host goes on with what it was asked, and nobody sees its answer."""
    killer = Killer()
    fleet.hosts[host].refusals["CreateNamespace"] = [None, killer.kill]
    killed_in_the_middle(fleet, killer)
    states = outcomes(fleet)
    assert states[host] == "sent"
    listed = json.loads(hostler(fleet, "-o", "json", "runs", "list").stdout)
    assert listed[0]["state"] == "abandoned"
    for _ in range(100):
        if all(fleet.hosts[n].changes for n, word in states.items() if word == "sent"):
            break
        time.sleep(0.05)
    requests = fleet.hosts[host].named("CreateNamespace")
    resumed_is_done_once(fleet)
    again = fleet.hosts[host].named("CreateNamespace")[len(requests) :]
    # First its plan, which is empty now, and then the very same request as before.
    assert [request.change.validate_only for request in again] == [True, False]
    assert again[1] == requests[-1]


def test_a_client_killed_before_a_host_did_anything(fleet: World) -> None:
    killer = Killer()

    def kill_and_refuse(_request: Any, context: Any) -> None:
        killer.kill()
        context.abort(grpc.StatusCode.UNAVAILABLE, "never done")

    fleet.hosts["h3"].refusals["CreateNamespace"] = [None, kill_and_refuse]
    killed_in_the_middle(fleet, killer)
    assert outcomes(fleet)["h3"] == "sent"
    assert fleet.hosts["h3"].changes == 0
    time.sleep(0.5)
    resumed_is_done_once(fleet)
    first, second = [
        request.change.request_id
        for request in fleet.hosts["h3"].named("CreateNamespace")
        if not request.change.validate_only
    ]
    assert first == second


def test_a_client_killed_while_it_plans_has_changed_nothing(fleet: World) -> None:
    killer = Killer()
    fleet.hosts["h5"].refusals["CreateNamespace"] = [killer.kill]
    killed_in_the_middle(fleet, killer)
    assert set(changed(fleet).values()) == {0}
    assert json.loads(hostler(fleet, "-o", "json", "runs", "list").stdout) == []


def test_a_client_killed_by_its_own_gate(fleet: World, tmp_path: Path) -> None:
    gate = tmp_path / "gate.py"
    gate.write_text(
        "import os\n"
        "if os.environ['HOSTLER_WAVE'] == '2': os.kill(os.getppid(), 9)\n"
    )  # fmt: skip
    client = started(
        fleet, "-H", "all", "--yes", "--batch", "1,25%,100%", "--gate", f"{sys.executable} {gate}",
        "netns", "create", "a",
    )  # fmt: skip
    client.communicate(timeout=60)
    assert client.returncode == -signal.SIGKILL
    words = list(outcomes(fleet).values())
    assert words == ["applied"] * 5 + ["planned"] * 15
    gate.write_text("")
    resumed_is_done_once(fleet)


@pytest.mark.parametrize("seed", range(4))
def test_a_client_killed_at_any_time(fleet: World, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311
    for host in fleet.hosts.values():
        pause_s = chance.uniform(0.0, 0.15)
        host.refusals["CreateNamespace"] = [None, lambda *_, s=pause_s: time.sleep(s)]
    client = started(
        fleet, "-H", "all", "--yes", "--parallel", "2", "netns", "create", "a"
    )  # fmt: skip
    while not any(changed(fleet).values()):
        time.sleep(0.01)
        assert client.poll() is None, client.communicate()
    time.sleep(chance.uniform(0.0, 0.8))
    client.send_signal(signal.SIGKILL)
    client.communicate(timeout=60)
    time.sleep(0.5)  # What was asked is done by now.
    with_it = sum(changed(fleet).values())
    words = outcomes(fleet)
    known = sum(word == "applied" for word in words.values())
    print(f"killed with {with_it} of 20 changed, {known} of them known to be")
    assert known <= with_it <= known + sum(word == "sent" for word in words.values())
    resumed_is_done_once(fleet)


def test_an_interrupt_lets_hosts_in_flight_end(fleet: World) -> None:
    reached = threading.Event()

    def slowly(*_: Any) -> None:
        reached.set()
        time.sleep(1.5)

    fleet.hosts["h2"].refusals["CreateNamespace"] = [None, slowly]
    client = started(
        fleet, "-H", "all", "-o", "json", "--yes", "--parallel", "1", "netns", "create", "a"
    )  # fmt: skip
    assert reached.wait(60)
    client.send_signal(signal.SIGINT)
    out, err = client.communicate(timeout=60)
    assert client.returncode == 130
    assert "interrupt again to leave them" in err
    assert "Stopped in wave 2 of 2: interrupted; not started: h[3-20]" in err
    results = json.loads(out)
    assert [result["outcome"] for result in results] == ["applied"] * 2 + ["not_started"] * 18
    with store(fleet) as runs:
        assert runs.find("last").state == "interrupted"
    resumed_is_done_once(fleet)


def test_a_second_interrupt_leaves_them(small: World) -> None:
    reached = threading.Event()

    def slowly(*_: Any) -> None:
        reached.set()
        time.sleep(4)

    small.hosts["h1"].refusals["CreateNamespace"] = [None, slowly]
    client = started(small, "-H", "all", "--yes", "netns", "create", "a")
    assert reached.wait(60)
    start = time.monotonic()
    client.send_signal(signal.SIGINT)
    time.sleep(0.5)
    client.send_signal(signal.SIGINT)
    _, err = client.communicate(timeout=60)
    assert time.monotonic() - start < 3
    assert client.returncode == 130, err
    assert outcomes(small) == {"h1": "sent", "h2": "planned", "h3": "planned"}
    time.sleep(4)
    resumed_is_done_once(small)


def test_a_host_that_cannot_be_asked_stays_unknown(small: World) -> None:
    killer = Killer()
    small.hosts["h1"].refusals["CreateNamespace"] = [None, killer.kill]
    killed_in_the_middle(small, killer)
    small.hosts["h1"].doors["netns"].end()
    answer = hostler(small, "--yes", "--max-failures", "1", "runs", "resume", "last")
    assert answer.exit_code == 1
    assert outcomes(small) == {"h1": "sent", "h2": "applied", "h3": "applied"}
    small.hosts["h1"].doors["netns"].open()
    resumed_is_done_once(small)


def test_a_run_that_goes_on_cannot_be_resumed(small: World) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def slowly(*_: Any) -> None:
        reached.set()
        go_on.wait(60)

    small.hosts["h1"].refusals["CreateNamespace"] = [None, slowly]
    client = started(small, "-H", "all", "--yes", "netns", "create", "a")
    assert reached.wait(60)
    answer = hostler(small, "--yes", "runs", "resume", "last")
    go_on.set()
    client.communicate(timeout=60)
    assert answer.exit_code == 2
    assert f"goes on: process {client.pid} of" in answer.stderr
    assert changed(small) == dict.fromkeys(small.hosts, 1)


def test_a_client_killed_before_it_confirmed(small: World) -> None:
    """The host takes it back; resuming asks, learns so, and does it anew."""
    killer = Killer()

    def kill_and_refuse(_request: Any, context: Any) -> None:
        killer.kill()
        context.abort(grpc.StatusCode.UNAVAILABLE, "never confirmed")

    # It confirms at both doors at once.
    small.hosts["h1"].refusals["ConfirmPending"] = [kill_and_refuse] * 2
    client = started(
        small, "-H", "h1", "--yes", "--confirm-within", "2s", "netns", "create", "a"
    )  # fmt: skip
    killer.aim(client)
    client.communicate(timeout=60)
    assert outcomes(small) == {"h1": "pending_confirm"}
    time.sleep(2.5)
    assert small.hosts["h1"].namespaces == {}
    answer = hostler(small, "--yes", "runs", "resume", "last")
    assert answer.exit_code == 0, answer.output
    assert outcomes(small) == {"h1": "applied"}
    assert list(small.hosts["h1"].namespaces) == ["a"]
