"""A job that watches what its change has begun: without the lock, and never as if it held it."""

from collections.abc import Iterator

import grpc
import pytest
from jobs_place import Place, fill, get_job, kill, running, until

from hostler.api.common.v1 import job_pb2, job_pb2_grpc


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with running(tmp_path_factory.mktemp("follow")) as one:
        yield one


@pytest.fixture
def olga(place: Place) -> Iterator[grpc.Channel]:
    with place.channel("olga") as channel:
        yield channel
    for box in place.boxes:
        (place.vault / box).unlink()


def following(channel: grpc.Channel, name: str) -> bool:
    return bool(get_job(channel, name).progress.unit == "sacks" and name)


def test_it_counts_what_it_watches_and_keeps_no_other_change_waiting(place, olga):
    name = fill(olga, "a", sacks=7, job=True).job
    process = place.start_job()
    until(lambda: following(olga, name))
    progress = until(lambda: get_job(olga, name).progress)
    assert (progress.total, progress.activity) == (7, "carrying sacks in")
    assert fill(olga, "b").changed and place.boxes == {"a", "b"}
    fill(olga, "enough")
    assert process.wait(20) == 0
    job = get_job(olga, name)
    assert job.state == job_pb2.JOB_STATE_SUCCEEDED
    assert (job.progress.done, job.progress.total, job.progress.unit) == (7, 7, "sacks")


def test_killed_it_says_what_goes_on_without_it(place, olga):
    name = fill(olga, "a", sacks=7, job=True).job
    process = place.start_job()
    until(lambda: following(olga, name))
    kill(process)
    place.run_job()
    job = get_job(olga, name)
    assert job.state == job_pb2.JOB_STATE_INTERRUPTED and place.boxes == {"a"}
    assert job.error.message == "sacks are carried in without it"
    assert place.queue == []


def test_cancelled_it_says_what_stays(place, olga):
    name = fill(olga, "a", sacks=7, job=True).job
    process = place.start_job()
    until(lambda: following(olga, name))
    assert get_job(olga, name).cancel_leaves == "sacks are carried in"
    job_pb2_grpc.JobServiceStub(olga).CancelJob(job_pb2.CancelJobRequest(name=name), timeout=10)
    assert process.wait(20) == 0
    job = get_job(olga, name)
    assert job.state == job_pb2.JOB_STATE_CANCELLED and place.boxes == {"a"}
    assert "this stays: sacks are carried in" in job.error.message
