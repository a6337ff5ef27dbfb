"""Confirming over real channels: every door, new connections, and what is said if it fails."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from client_doors import Host, World, rich, world
from client_pending import DOORS

import hostler.aio
from hostler import confirm
from hostler.api.common.v1 import confirm_pb2
from hostler.api.firewall.v1 import ruleset_pb2
from hostler.channel import rpc
from hostler.confirm import confirm_host, fate, pending_on, revert_host
from hostler.isolate import Isolate, Remove
from hostler.isolation import Isolation
from hostler.outcome import Outcome, of_answer, of_error
from hostler.plans import RpcChange
from hostler.push import PushBundle
from hostler.results import CallFailed
from hostler.session import Session, Terms

GROUP = "0b6c2a0e-6a0b-4a30-9d1e-5f4a7b3c9e11"
APPLY = rpc(ruleset_pb2, "RulesetService", "ApplyRuleset")
WEB = Isolation("web", ("sleep", "1"))
REFUSED = rich(grpc.StatusCode.FAILED_PRECONDITION, "NO_USER", "no such user")
GONE_AFTER_S = 1.0


@pytest.fixture(autouse=True)
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is 15 s for hosts far away is one here."""
    monkeypatch.setattr(confirm, "AFTER_S", GONE_AFTER_S)
    monkeypatch.setattr(confirm, "_ATTEMPT_S", 0.5)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        made.start("h1")
        yield made


@pytest.fixture
def host(fleet: World) -> Host:
    return fleet.hosts["h1"]


def doors(fleet: World, within_s: float | None = 3.0) -> Session:
    client = hostler.aio.connect(config=fleet.config)
    (target,) = client.select("h1")
    session = client.session(target)
    session.terms = Terms(confirm_within_s=within_s, group=GROUP)
    return session


async def change(session: Session, name: str = "base") -> Any:
    """Apply a ruleset on the session's terms."""
    request = ruleset_pb2.ApplyRulesetRequest(ruleset=ruleset_pb2.Ruleset(name=name))
    applied = RpcChange(APPLY, request)
    return await applied.apply(session, await applied.plan(session))


async def ended(session: Session, within_s: float, named: tuple[str, ...] = ()) -> Any:
    """The error that confirming ends with."""
    with pytest.raises(CallFailed) as caught:
        await confirm_host(session, GROUP, named, within_s)
    return caught.value.error


async def test_it_stays_once_every_door_has_confirmed(fleet: World, host: Host) -> None:
    async with doors(fleet) as session:
        answer = await change(session)
        assert of_answer(answer) is Outcome.PENDING_CONFIRM
        done = await confirm_host(session, GROUP, tuple(answer.change.pending.doors), 3)
    assert (done.group, set(done.doors)) == (GROUP, set(DOORS))
    assert list(host.rulesets) == ["base"]
    assert sorted(domain for domain, _ in host.peers) == sorted(DOORS)
    assert host.pending.ended[0].reason == "confirmed"


async def test_every_confirmation_comes_by_a_new_connection(fleet: World, host: Host) -> None:
    seen: list[str] = []

    def note(_request: Any, context: Any) -> None:
        seen.append(context.peer())

    host.refusals["ApplyRuleset"] = [None, note]
    host.refusals["ConfirmPending"] = [
        rich(grpc.StatusCode.FAILED_PRECONDITION, "CONFIRM_NOT_COUNTED", "an old connection"),
        note,
        note,
    ]
    async with doors(fleet) as session:
        await change(session)
        await confirm_host(session, GROUP, DOORS, 3)
    assert len(seen) == 3
    assert len(set(seen)) == 3


async def test_one_door_that_is_shut_brings_it_all_back(fleet: World, host: Host) -> None:
    host.pending.shuts = ("netns",)
    async with doors(fleet, 1.5) as session:
        answer = await change(session)
        error = await ended(session, 1.5, tuple(answer.change.pending.doors))
    assert (error.code, error.reason) == ("ABORTED", "ROLLED_BACK")
    assert of_error(error) is Outcome.ROLLED_BACK
    assert "deadline" in error.message
    assert "netns: UNAVAILABLE" in error.message
    assert host.rulesets == {}


async def test_a_door_that_opens_again_in_time(fleet: World, host: Host) -> None:
    async with doors(fleet, 5) as session:
        await change(session)
        host.doors["netns"].shut()
        asyncio.get_running_loop().call_later(1, host.doors["netns"].open)
        done = await confirm_host(session, GROUP, DOORS, 5)
    assert set(done.doors) == set(DOORS)
    assert list(host.rulesets) == ["base"]


async def test_all_doors_shut_by_the_change_itself(fleet: World, host: Host) -> None:
    host.pending.shuts = DOORS
    start = time.monotonic()
    async with doors(fleet, 1.5) as session:
        session.timeout_s = 0.5
        with pytest.raises(CallFailed) as caught:
            await change(session)
        assert caught.value.error.uncertain
        error = await ended(session, 1.5 - (time.monotonic() - start))
    assert error.reason == "ROLLED_BACK"
    assert host.rulesets == {}


async def test_a_host_that_never_answers_again(fleet: World, host: Host) -> None:
    host.pending.shuts, host.pending.opens = DOORS, False
    start = time.monotonic()
    async with doors(fleet, 1) as session:
        session.timeout_s = 0.5
        with pytest.raises(CallFailed):
            await change(session)
        error = await ended(session, 1 - (time.monotonic() - start))
        assert await fate(session, GROUP) is Outcome.UNKNOWN
    assert error.uncertain
    assert of_error(error) is Outcome.UNKNOWN
    assert "the host does not answer" in error.message
    assert time.monotonic() - start < 1 + GONE_AFTER_S + 10


async def test_an_answer_that_was_lost_is_asked_for(fleet: World, host: Host) -> None:
    def cut(request: Any, _context: Any) -> None:
        if not request.change.validate_only:
            threading.Timer(0.3, host.doors["firewall"].open).start()

    host.pending.shuts = ("firewall",)
    host.refusals["ApplyRuleset"] = [None, cut]
    async with doors(fleet, 4) as session:
        session.timeout_s = 0.25
        with pytest.raises(CallFailed):
            await change(session)
        done = await confirm_host(session, GROUP, (), 4)
    assert set(done.doors) == set(DOORS)
    assert list(host.rulesets) == ["base"]


async def test_a_group_the_host_knows_nothing_of(fleet: World) -> None:
    async with doors(fleet) as session:
        error = await ended(session, 0.3)
        assert (error.reason, error.uncertain) == ("NOT_APPLIED", False)
        assert of_error(error) is Outcome.FAILED
        assert await fate(session, GROUP) is Outcome.UNKNOWN


async def test_a_way_back_that_failed_is_not_called_one(fleet: World, host: Host) -> None:
    host.pending.broken = "netns: link eth0 is gone"
    host.refusals["ConfirmPending"] = [REFUSED] * 100
    async with doors(fleet, 1) as session:
        await change(session)
        error = await ended(session, 1, DOORS)
    assert error.uncertain
    assert "link eth0 is gone" in error.message


async def test_the_last_answer_is_lost_and_the_group_stays(fleet: World, host: Host) -> None:
    async with doors(fleet) as session:
        await change(session)
        host.pending.confirm("netns")
        host.pending.confirm("firewall")
        host.pending.confirm("tracing")
        host.pending.confirm("ssl")
        host.pending.confirm("storage")
        done = await confirm_host(session, GROUP, DOORS, 3)
    assert done.group == GROUP


async def test_fate(fleet: World, host: Host) -> None:
    async with doors(fleet) as session:
        await change(session)
        assert await fate(session, GROUP) is Outcome.PENDING_CONFIRM
        host.pending.end("asked for")
        assert await fate(session, GROUP) is Outcome.ROLLED_BACK


async def test_pending_is_told_by_whichever_door_is_open(fleet: World, host: Host) -> None:
    async with doors(fleet) as session:
        await change(session)
        host.doors["netns"].shut()
        seen = await pending_on(session)
        assert seen.pending.group == GROUP
        assert [door.domain for door in seen.pending.doors] == list(DOORS)
        host.doors["firewall"].shut()
        host.doors["tracing"].shut()
        host.doors["ssl"].shut()
        host.doors["storage"].shut()
        with pytest.raises(CallFailed):
            await pending_on(session, timeout_s=0.5)


async def test_revert(fleet: World, host: Host) -> None:
    async with doors(fleet) as session:
        assert await revert_host(session) is None
        await change(session)
        assert await revert_host(session, "another") is None
        assert list(host.rulesets) == ["base"]
        host.doors["netns"].shut()
        group = await revert_host(session)
        assert group.reason == "asked for"
        assert host.rulesets == {}
        assert (await revert_host(session, GROUP)).group == GROUP


async def test_a_revert_that_cuts_off_its_own_answer(fleet: World, host: Host) -> None:
    def cut(_request: Any, context: Any) -> None:
        host.pending.end("asked for")
        context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")

    async with doors(fleet) as session:
        session.timeout_s = 1
        await change(session)
        host.refusals["RevertPending"] = [cut]
        # The retry is refused, since nothing is pending any more; the first one's end counts.
        group = await revert_host(session, GROUP)
    assert group.outcome == confirm_pb2.EndedGroup(outcome="OUTCOME_ROLLED_BACK").outcome


async def composite(session: Session, of: Any) -> Any:
    return await of.apply(session, await of.plan(session))


async def test_the_parts_of_a_composite_are_in_one_group(fleet: World, host: Host) -> None:
    async with doors(fleet) as session:
        answer = await composite(session, Isolate(WEB))
        assert of_answer(answer) is Outcome.PENDING_CONFIRM
        made = [
            request
            for name in ("CreateNamespace", "ApplyRuleset", "StartProcess")
            for request in host.named(name)
            if not request.change.validate_only
        ]
        assert [r.change.confirm.group for r in made] == [GROUP] * 3
        # Only the first may open it: were it gone by then, the rest must not be done alone.
        assert [r.change.confirm.HasField("within") for r in made] == [True, False, False]
        await confirm_host(session, GROUP, DOORS, 3)
    assert list(host.namespaces) == ["web"]


async def test_a_part_that_fails_takes_the_group_back(fleet: World, host: Host) -> None:
    host.refusals["StartProcess"] = [None, REFUSED]
    async with doors(fleet, 30) as session:
        with pytest.raises(CallFailed) as caught:
            await composite(session, Isolate(WEB))
    assert caught.value.error.metadata["removed_again"] == "ruleset,namespace"
    assert (host.namespaces, host.rulesets, host.processes) == ({}, {}, {})
    assert host.pending.ended[0].reason == "asked for"
    assert not host.named("DeleteNamespace")


async def test_a_removal_that_fails_half_way_is_taken_back(fleet: World, host: Host) -> None:
    async with doors(fleet, None) as session:
        await composite(session, Isolate(WEB))
    host.refusals["DeleteNamespace"] = [None, REFUSED]
    async with doors(fleet, 30) as session:
        with pytest.raises(CallFailed, match="there again"):
            await composite(session, Remove("web"))
    assert list(host.namespaces) == ["web"]
    assert list(host.rulesets) == ["web"]
    assert list(host.processes) == [("web", "main")]


async def test_a_bundle_is_pushed_to_all_doors_in_one_group(fleet: World, host: Host) -> None:
    async with doors(fleet) as session:
        answer = await composite(session, PushBundle(b"new", DOORS))
        assert of_answer(answer) is Outcome.PENDING_CONFIRM
        made = [r for r in host.named("PushBundle") if not r.change.validate_only]
        assert [r.change.confirm.HasField("within") for r in made] == [
            True,
            *[False] * (len(DOORS) - 1),
        ]
        await confirm_host(session, GROUP, DOORS, 3)
    assert host.bundles == dict.fromkeys(DOORS, b"new")


async def test_a_push_that_one_door_refuses_is_taken_back(fleet: World, host: Host) -> None:
    host.bundles = dict.fromkeys(DOORS, b"old")
    host.refusals["PushBundle"] = [*[None] * (len(DOORS) + 1), REFUSED]
    async with doors(fleet, 30) as session:
        with pytest.raises(CallFailed, match="the bundle that they had before"):
            await composite(session, PushBundle(b"new", DOORS))
    assert host.bundles == dict.fromkeys(DOORS, b"old")


def test_the_synchronous_face(fleet: World, host: Host) -> None:
    client = hostler.connect(config=fleet.config)
    hosts = client.select("h1")
    assert not client.pending(hosts)[0].value().HasField("pending")
    assert client.revert(hosts)[0].value() is None

    async def leave_pending(name: str) -> None:
        async with doors(fleet) as session:
            await change(session, name)

    asyncio.run(leave_pending("base"))
    assert client.pending(hosts)[0].value().pending.group == GROUP
    assert client.confirm(hosts, GROUP, 3)[0].value().group == GROUP
    asyncio.run(leave_pending("more"))
    assert client.revert(hosts)[0].value().reason == "asked for"
    assert list(host.rulesets) == ["base"]


async def test_a_composite_is_no_job(fleet: World, host: Host) -> None:
    async with doors(fleet) as session:
        session.terms = Terms(as_job=True)
        with pytest.raises(CallFailed, match="NOT_AS_JOB"):
            await Isolate(WEB).plan(session)
    assert not host.calls
