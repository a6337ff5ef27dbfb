"""`hostler pending`, and --confirm-within, against real servers with timers of their own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from client_doors import World, world
from client_pending import DOORS

from hostler import confirm
from hostler.cli.main import cli

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is 15 s for hosts far away is one here."""
    monkeypatch.setattr(confirm, "AFTER_S", 1.0)
    monkeypatch.setattr(confirm, "_ATTEMPT_S", 0.5)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        made.start("h1")
        made.start("h2")
        yield made


@pytest.fixture
def run(fleet: World, tmp_path: Path) -> Run:
    env = {"HOSTLER_CONFIG": str(fleet.config), "XDG_STATE_HOME": str(tmp_path / "state")}
    (tmp_path / "base.toml").write_text('name = "base"\n')

    def invoke(*args: str) -> Result:
        words = [str(tmp_path / "base.toml") if word == "FILE" else word for word in args]
        return CliRunner().invoke(cli, words, env=env)

    return invoke


def leave_pending(fleet: World, *names: str, within_s: float = 60) -> str:
    """Have hosts wait for a confirmation that nobody gives; answers the group."""
    group = "0b6c2a0e-6a0b-4a30-9d1e-5f4a7b3c9e11"
    for name in names:
        host = fleet.hosts[name]
        from hostler.api.firewall.v1 import ruleset_pb2

        request = ruleset_pb2.ApplyRulesetRequest(ruleset=ruleset_pb2.Ruleset(name="base"))
        request.change.confirm.group = group
        request.change.confirm.within.FromMilliseconds(int(within_s * 1000))
        host.calls.append(("ApplyRuleset", request))
        host.pending.join(request.change, [("ReplaceTable", "replace table for base")], None)
        host.rulesets["base"] = request.ruleset
    return group


def test_what_is_confirmed_stays(fleet: World, run: Run) -> None:
    answer = run("-H", "all", "--yes", "--confirm-within", "5s", "firewall", "apply", "-f", "FILE")
    assert answer.exit_code == 0, answer.output
    assert [line.split()[:2] for line in answer.stdout.splitlines()[1:]] == [
        ["h1", "changed"],
        ["h2", "changed"],
    ]
    for host in fleet.hosts.values():
        assert list(host.rulesets) == ["base"]
        assert {domain for domain, _ in host.peers} == set(DOORS)


def test_the_host_that_shuts_its_doors_is_told_apart(fleet: World, run: Run) -> None:
    fleet.hosts["h2"].pending.shuts = DOORS
    answer = run(
        *("-H", "all", "--yes", "--timeout", "1s", "--confirm-within", "2s"),
        *("-o", "json", "firewall", "apply", "-f", "FILE"),
    )
    assert answer.exit_code == 1
    first, second = json.loads(answer.stdout)
    assert (first["ok"], first["outcome"]) == (True, "applied")
    assert (second["error"]["reason"], second["outcome"]) == ("ROLLED_BACK", "rolled_back")
    assert list(fleet.hosts["h1"].rulesets) == ["base"]
    assert fleet.hosts["h2"].rulesets == {}


def test_list(fleet: World, run: Run) -> None:
    group = leave_pending(fleet, "h1")
    fleet.hosts["h1"].pending.confirm("netns")
    fleet.hosts["h1"].doors["netns"].shut()
    answer = run("-H", "all", "pending")
    assert answer.exit_code == 0, answer.output
    lines = answer.stdout.splitlines()
    assert group in lines[1]
    assert "taken back in " in lines[1]
    assert "netns ApplyRuleset" in lines[1]
    assert lines[2].split()[1:4] == ["-", "nothing", "pending"]
    told = json.loads(run("-H", "h1", "-o", "json", "pending").stdout)[0]["result"]["pending"]
    assert [(d["domain"], d["confirmed"]) for d in told["doors"]] == [
        ("netns", True),
        ("storage", False),
        ("firewall", False),
        ("tracing", False),
        ("ssl", False),
    ]


def test_ended(fleet: World, run: Run) -> None:
    group = leave_pending(fleet, "h1")
    fleet.hosts["h1"].pending.end("deadline")
    answer = run("-H", "h1", "pending", "--ended")
    assert group in answer.stdout
    assert "rolled back " in answer.stdout
    assert ": deadline" in answer.stdout


def test_revert_takes_back_at_once_where_something_is_pending(fleet: World, run: Run) -> None:
    group = leave_pending(fleet, "h1")
    plan = run("-H", "all", "--plan", "pending", "revert")
    assert plan.exit_code == 0
    assert "take back netns: replace table for base" in plan.stderr
    assert list(fleet.hosts["h1"].rulesets) == ["base"]
    answer = run("-H", "all", "--yes", "pending", "revert")
    assert answer.exit_code == 0, answer.output
    assert [line.split()[:2] for line in answer.stdout.splitlines()[1:]] == [
        ["h1", group],
        ["h2", "-"],
    ]
    assert fleet.hosts["h1"].rulesets == {}
    assert not fleet.hosts["h2"].named("RevertPending")


def test_revert_of_another_group_reverts_nothing(fleet: World, run: Run) -> None:
    leave_pending(fleet, "h1")
    answer = run("-H", "h1", "--yes", "pending", "revert", "another")
    assert answer.exit_code == 0
    assert list(fleet.hosts["h1"].rulesets) == ["base"]


def test_one_host_that_is_down_holds_up_no_revert(fleet: World, run: Run) -> None:
    leave_pending(fleet, "h2")
    for door in fleet.hosts["h1"].doors.values():
        door.shut()
    answer = run("-H", "all", "--yes", "pending", "revert")
    assert answer.exit_code == 1
    assert "h1: UNAVAILABLE" in answer.stderr
    assert fleet.hosts["h2"].rulesets == {}


def test_a_way_back_that_failed_is_a_failure(fleet: World, run: Run) -> None:
    leave_pending(fleet, "h1")
    fleet.hosts["h1"].pending.broken = "netns: link eth0 is gone"
    answer = run("-H", "h1", "--yes", "pending", "revert")
    assert answer.exit_code == 1
    assert "NOT_REVERTED: netns: link eth0 is gone" in answer.stderr


def test_confirm_by_hand(fleet: World, run: Run) -> None:
    group = leave_pending(fleet, "h1", "h2")
    answer = run("-H", "all", "--yes", "pending", "confirm", group)
    assert answer.exit_code == 0, answer.output
    assert all(host.pending.group == "" for host in fleet.hosts.values())
    assert all(list(host.rulesets) == ["base"] for host in fleet.hosts.values())
    unknown = run("-H", "h1", "--yes", "pending", "confirm", "another")
    assert unknown.exit_code == 1
    assert "GROUP_NOT_PENDING" in unknown.stderr


@pytest.mark.parametrize("verb", [("revert",), ("confirm", "x")])
def test_nobody_to_ask(fleet: World, run: Run, verb: tuple[str, ...]) -> None:
    leave_pending(fleet, "h1")
    answer = run("-H", "h1", "pending", *verb)
    assert answer.exit_code == 2
    assert "give --yes" in answer.stderr
    assert not fleet.hosts["h1"].named("RevertPending")
    assert not fleet.hosts["h1"].named("ConfirmPending")
