"""`hostler approve` and `hostler approvals` against real servers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner, Result
from client_doors import World, rich, world

from hostler.api.common.v1 import approval_pb2, change_pb2
from hostler.cli.main import cli

Run = Callable[..., Result]
ID = "5f0c4a399d553a3c0d8a7a1102c6f8d8"
REQUIRED = rich(
    grpc.StatusCode.FAILED_PRECONDITION,
    "APPROVAL_REQUIRED",
    f"somebody else has to approve this: approval {ID}",
    metadata={"approval": ID},
)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        for name in ("h1", "h2"):
            made.start(name).approvals["firewall"][ID] = approval_pb2.Approval(
                id=ID,
                state="APPROVAL_STATE_REQUESTED",
                requester="spiffe://test.hostler/user/alice",
                method="/hostler.api.firewall.v1.RulesetService/DeleteRuleset",
                resources=["base"],
                plan=change_pb2.Plan(
                    hash="aa",
                    steps=[change_pb2.PlanStep(kind="DeleteRuleset", description="delete base")],
                ),
            )
        yield made


@pytest.fixture
def run(fleet: World, tmp_path: Path) -> Run:
    env = {"HOSTLER_CONFIG": str(fleet.config), "XDG_STATE_HOME": str(tmp_path / "state")}

    def invoke(*args: str) -> Result:
        return CliRunner().invoke(cli, args, env=env)

    return invoke


def states(fleet: World) -> list[str]:
    return [
        approval_pb2.ApprovalState.Name(host.approvals["firewall"][ID].state)
        for host in fleet.hosts.values()
    ]


def test_whoever_is_refused_is_told_what_another_has_to_run(fleet: World, run: Run) -> None:
    for host in fleet.hosts.values():
        host.refusals["DeleteNamespace"] = [None, REQUIRED]
        host.processes["web", "main"] = None
    answer = run(
        *("-H", "all", "--yes", "--max-failures", "100%", "netns", "delete", "web"),
        "--stop-processes",
    )
    assert answer.exit_code == 1, answer.output
    line = f"Somebody else has to run: hostler -H h1 -H h2 approve {ID}"
    assert answer.stderr.count(line) == 1


def test_what_is_shown_is_approved_where_it_is_the_same(fleet: World, run: Run) -> None:
    plan = run("-H", "all", "--plan", "approve", ID)
    assert plan.stdout.splitlines() == [
        "2 hosts: h1, h2",
        "  approve for spiffe://test.hostler/user/alice: firewall DeleteRuleset base",
        "    delete base",
    ]
    assert states(fleet) == ["APPROVAL_STATE_REQUESTED"] * 2
    answer = run("-H", "all", "--yes", "approve", ID)
    assert answer.exit_code == 0, answer.output
    assert states(fleet) == ["APPROVAL_STATE_APPROVED"] * 2
    assert answer.stdout.count("approved") == 2


def test_nothing_is_approved_without_being_asked(fleet: World, run: Run) -> None:
    assert run("-H", "all", "approve", ID).exit_code == 2
    assert states(fleet) == ["APPROVAL_STATE_REQUESTED"] * 2


def test_list_and_show(fleet: World, run: Run) -> None:
    lines = run("-H", "all", "approvals", "list").stdout.splitlines()
    assert [line.split()[:4] for line in lines[1:]] == [
        [host, "firewall", ID, "requested"] for host in ("h1", "h2")
    ]
    listed = json.loads(run("-H", "h1", "-o", "json", "approvals", "list").stdout)
    assert [len(result["result"]["approvals"]) for result in listed] == [0, 0, 1, 0, 0]
    shown = run("-H", "h1", "approvals", "show", ID).stdout
    assert "delete base" in shown
    assert "spiffe://test.hostler/user/alice" in shown


def test_withdraw(fleet: World, run: Run) -> None:
    answer = run("-H", "h1", "--yes", "approvals", "withdraw", ID)
    assert answer.exit_code == 0, answer.output
    assert states(fleet) == ["APPROVAL_STATE_WITHDRAWN", "APPROVAL_STATE_REQUESTED"]
    assert run("-H", "h1", "--yes", "approvals", "withdraw", "none").exit_code == 1


def test_what_makes_a_change_wait_does_not_go_with_approving(fleet: World, run: Run) -> None:
    for option in (["--background"], ["--confirm-within", "9s"]):
        answer = run("-H", "all", "--yes", *option, "approve", ID)
        assert answer.exit_code == 2
        assert "neither --background nor --confirm-within" in answer.stderr
    assert not fleet.hosts["h1"].calls
