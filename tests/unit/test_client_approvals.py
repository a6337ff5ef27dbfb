"""Approvals over real channels: what is shown is what is approved."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from client_doors import Host, World, rich, world

import hostler.aio
from hostler.api.common.v1 import approval_pb2, change_pb2
from hostler.approvals import Approve, Withdraw
from hostler.results import CallFailed
from hostler.session import Session

ID = "5f0c4a399d553a3c0d8a7a1102c6f8d8"


def waiting(digest: str = "aa") -> Any:
    return approval_pb2.Approval(
        id=ID,
        state="APPROVAL_STATE_REQUESTED",
        requester="spiffe://test.hostler/user/alice",
        method="/hostler.api.netns.v1.NamespaceService/DeleteNamespace",
        resources=["web"],
        plan=change_pb2.Plan(
            hash=digest,
            steps=[change_pb2.PlanStep(kind="DeleteNamespace", description="delete web")],
        ),
    )


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        made.start("h1")
        yield made


@pytest.fixture
def host(fleet: World) -> Host:
    return fleet.hosts["h1"]


@pytest.fixture
def session(fleet: World) -> Session:
    client = hostler.aio.connect(config=fleet.config)
    (target,) = client.select("h1")
    return client.session(target)


async def test_the_plan_that_was_seen_is_approved(host: Host, session: Session) -> None:
    host.approvals["netns"][ID] = waiting()
    async with session:
        planned = await Approve(ID).plan(session)
        assert [step.description for step in planned.steps] == [
            "approve for spiffe://test.hostler/user/alice: netns DeleteNamespace web",
            "  delete web",
        ]
        assert host.approvals["netns"][ID].state == approval_pb2.APPROVAL_STATE_REQUESTED
        answer = await Approve(ID).apply(session, planned)
    assert answer.approval.state == approval_pb2.APPROVAL_STATE_APPROVED
    asked = host.named("ApproveChange")
    assert [r.change.validate_only for r in asked] == [True, False]
    assert {r.change.plan_hash for r in asked} == {"aa"}


async def test_another_plan_than_the_one_seen_is_not_approved(host: Host, session: Session) -> None:
    host.approvals["firewall"][ID] = waiting()
    async with session:
        planned = await Approve(ID).plan(session)
        host.approvals["firewall"][ID] = waiting("bb")
        with pytest.raises(CallFailed, match="PLAN_CHANGED"):
            await Approve(ID).apply(session, planned)


async def test_a_refusal_comes_before_anybody_is_asked(host: Host, session: Session) -> None:
    host.approvals["netns"][ID] = waiting()
    words = "nobody approves what he has asked for"
    host.refusals["ApproveChange"] = [
        rich(grpc.StatusCode.PERMISSION_DENIED, "APPROVAL_NOT_COUNTED", words)
    ]
    async with session:
        with pytest.raises(CallFailed, match=words):
            await Approve(ID).plan(session)


async def test_one_that_is_over_has_nothing_to_approve(host: Host, session: Session) -> None:
    host.approvals["netns"][ID] = waiting()
    host.approvals["netns"][ID].state = approval_pb2.APPROVAL_STATE_USED
    async with session:
        planned = await Approve(ID).plan(session)
    assert planned.steps == ()
    assert planned.warnings == ("CLOSED: it is used already",)


async def test_withdraw(host: Host, session: Session) -> None:
    host.approvals["netns"][ID] = waiting()
    async with session:
        planned = await Withdraw(ID).plan(session)
        assert "netns DeleteNamespace web" in planned.steps[0].description
        answer = await Withdraw(ID).apply(session, planned)
        assert answer.approval.state == approval_pb2.APPROVAL_STATE_WITHDRAWN
        assert (await Withdraw(ID).plan(session)).steps == ()
        with pytest.raises(CallFailed, match="APPROVAL_NOT_FOUND"):
            await Withdraw("0" * 32).plan(session)
