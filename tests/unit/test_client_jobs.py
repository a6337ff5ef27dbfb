"""Jobs over real channels: found at their door, followed over cuts, cancelled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from client_doors import Host, World, world

import hostler.aio
from hostler.api.common.v1 import job_pb2
from hostler.jobs import CancelJob, error_of, find_job, method_word, watch_job
from hostler.results import CallFailed
from hostler.session import Session

NAME = "jobs/5f0c4a39"
METHOD = "/hostler.api.netns.v1.NamespaceService/ApplyNamespaces"


def job(state: str = "RUNNING", done: int = 0, **fields: Any) -> Any:
    progress = job_pb2.JobProgress(done=done, total=4, unit="steps", activity=f"step {done}")
    return job_pb2.Job(
        name=NAME, method=METHOD, state=f"JOB_STATE_{state}", progress=progress, **fields
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


async def test_a_job_is_found_at_its_door(host: Host, session: Session) -> None:
    host.jobs["firewall"][NAME] = [job()]
    async with session:
        domain, found = await find_job(session, "5f0c4a39")
        assert (domain, found.name) == ("firewall", NAME)
        with pytest.raises(CallFailed) as caught:
            await find_job(session, "jobs/none")
    assert caught.value.error.reason == "JOB_NOT_FOUND"


async def test_a_door_that_cannot_be_asked_is_told(host: Host, session: Session) -> None:
    host.doors["firewall"].shut()
    async with session:
        session.timeout_s = 0.5
        with pytest.raises(CallFailed) as caught:
            await find_job(session, NAME)
    assert caught.value.error.code != "NOT_FOUND"


async def test_watching_goes_on_over_cuts_and_tells_each_state_once(
    host: Host, session: Session
) -> None:
    host.jobs["netns"][NAME] = [job(), job(done=2), job("SUCCEEDED", 4)]
    async with session:
        seen = [answer async for answer in watch_job(session, "netns", NAME)]
    assert [(a.seq, a.job.progress.done) for a in seen] == [(1, 0), (2, 2), (3, 4)]
    assert [request.after_seq for request in host.named("WatchJob")] == [0, 1, 2]


async def test_a_stream_that_ends_before_its_job_is_no_success(
    host: Host, session: Session
) -> None:
    host.jobs["netns"][NAME] = [job()]
    host.gives_up = True
    async with session:
        with pytest.raises(CallFailed, match="STREAM_ENDED"):
            async for _ in watch_job(session, "netns", NAME):
                pass


@pytest.mark.parametrize(
    ("state", "code", "reason"),
    [("CANCELLED", "ABORTED", "CANCELLED"), ("INTERRUPTED", "ABORTED", "INTERRUPTED")],
)
def test_what_ended_otherwise_is_an_error(state: str, code: str, reason: str) -> None:
    error = error_of(job(state, resume="start it again"))
    assert error is not None
    assert (error.code, error.reason) == (code, reason)
    assert "start it again" in error.message


def test_a_failure_is_told_as_the_call_would_have() -> None:
    why = job_pb2.JobError(code="INTERNAL", reason="STEP_FAILED", message="no such link")
    error = error_of(job("FAILED", error=why))
    assert str(error) == "INTERNAL STEP_FAILED: failed: no such link"
    assert error_of(job()) is None
    assert error_of(job("SUCCEEDED")) is None


async def test_cancelling_says_what_it_leaves_and_is_done_once(
    host: Host, session: Session
) -> None:
    host.jobs["netns"][NAME] = [job(cancel_leaves="half of the namespaces")]
    cancel = CancelJob("5f0c4a39")
    async with session:
        planned = await cancel.plan(session)
        assert [step.description for step in planned.steps] == [f"cancel {NAME}"]
        assert planned.warnings == ("LEAVES: half of the namespaces",)
        assert host.jobs["netns"][NAME][0].state == job_pb2.JOB_STATE_RUNNING
        answer = await cancel.apply(session, planned)
        assert answer.job.state == job_pb2.JOB_STATE_CANCELLED
        assert (await cancel.plan(session)).steps == ()


def test_methods_as_people_read_them() -> None:
    assert method_word(METHOD) == "netns ApplyNamespaces"
    assert method_word("strange") == "strange"


def test_the_synchronous_face(fleet: World, host: Host) -> None:
    host.jobs["firewall"][NAME] = [job(), job("SUCCEEDED", 4)]
    client = hostler.connect(config=fleet.config)
    seen = list(client.watch_job(client.select("h1")[0], "5f0c4a39"))
    assert [answer.job.progress.done for answer in seen] == [0, 4]
