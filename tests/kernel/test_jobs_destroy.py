"""Destroy tokens of a real daemon: what it takes to lose what is in a box."""

import time

import pytest
from jobs_place import fill, get_job, refusal, running, until, wipe

from hostler.api.common.v1 import change_pb2, job_pb2, job_pb2_grpc

pytestmark = pytest.mark.kernel


@pytest.fixture
def place(tmp_path):
    with running(tmp_path) as place:
        (place.vault / "a").write_text("gold")
        yield place


@pytest.fixture
def alice(place):
    with place.channel("alice") as channel:
        yield channel


def token_of(channel, name="a"):
    return wipe(channel, name, validate_only=True).destroy_token


def gold(place):
    return (place.vault / "a").read_text() == "gold"


def reason(channel, **options):
    refused = refusal(lambda: wipe(channel, "a", **options))
    assert refused.code == "FAILED_PRECONDITION"
    return refused.reason


def test_without_a_token_nothing_is_lost(place, alice):
    assert reason(alice) == "DESTROY_TOKEN_REQUIRED"
    assert reason(alice, destroy_token="d1.1.2.3") == "DESTROY_TOKEN_INVALID"  # noqa: S106
    assert gold(place)


def test_a_token_is_good_once_even_if_the_daemon_is_another_one(place):
    with place.channel("alice") as alice:
        planned = wipe(alice, "a", validate_only=True)
        assert planned.outcome == change_pb2.OUTCOME_PLANNED
        lasts = planned.destroy_token_expire_time.seconds - time.time()
        assert 590 < lasts <= 600
    place.restart()
    with place.channel("alice") as alice:
        done = wipe(alice, "a", plan_hash=planned.plan.hash, destroy_token=planned.destroy_token)
        assert done.changed and not gold(place)
        assert done.destroy_token == ""
        (place.vault / "a").write_text("gold")
        assert reason(alice, destroy_token=planned.destroy_token) == "DESTROY_TOKEN_USED"
    place.restart()
    with place.channel("alice") as alice:
        assert reason(alice, destroy_token=planned.destroy_token) == "DESTROY_TOKEN_USED"
    assert gold(place)


def test_a_token_is_for_its_caller(place, alice):
    token = token_of(alice)
    with place.channel("bob") as bob, place.local() as root:
        for channel in (bob, root):
            assert reason(channel, destroy_token=token) == "DESTROY_TOKEN_INVALID"
    assert gold(place)
    assert wipe(alice, "a", destroy_token=token).changed


def test_a_token_is_for_its_device(place, alice):
    """The same plan, word for word, on another thing of the same name and size."""
    planned = wipe(alice, "a", validate_only=True)
    other = place.vault / "other"
    other.write_text("GOLD")
    other.rename(place.vault / "a")
    assert wipe(alice, "a", validate_only=True).plan.hash == planned.plan.hash
    assert reason(alice, destroy_token=planned.destroy_token) == "DESTROY_TOKEN_INVALID"
    assert (place.vault / "a").read_text() == "GOLD"


def test_a_token_is_for_its_plan(place, alice):
    token = token_of(alice)
    (place.vault / "a").write_text("more gold")
    assert reason(alice, destroy_token=token) == "DESTROY_TOKEN_INVALID"


def test_no_token_is_given_to_who_may_not_destroy(place):
    with place.channel("olga") as olga:
        refused = refusal(lambda: wipe(olga, "a", validate_only=True))
    assert refused.code == "PERMISSION_DENIED"


def test_what_is_empty_already_takes_no_token(place, alice):
    (place.vault / "a").write_text("")
    assert token_of(alice) == ""
    assert not wipe(alice, "a").changed


def test_the_token_is_in_no_log(place, alice):
    token = token_of(alice)
    wipe(alice, "a", destroy_token=token)
    (intent,) = place.audit("intent")
    assert token not in str(place.audit()) and "(redacted)" in intent["request"]


def test_a_job_uses_the_token_when_it_is_taken_on(place):
    with place.channel("alice") as alice:
        assert reason(alice, job=True) == "DESTROY_TOKEN_REQUIRED" and place.queue == []
        token = token_of(alice)
        name = wipe(alice, "a", destroy_token=token, job=True).job
        assert reason(alice, destroy_token=token, job=True) == "DESTROY_TOKEN_USED"
        assert reason(alice, destroy_token=token) == "DESTROY_TOKEN_USED" and gold(place)
    place.restart()
    place.run_job()
    with place.channel("alice") as alice:
        assert get_job(alice, name).state == job_pb2.JOB_STATE_SUCCEEDED and not gold(place)


def test_a_job_does_the_plan_that_it_was_admitted_for_or_none(place, alice):
    """Another thing of the same name and size, so that the plan is the same, word for word."""
    for changed in ("GOLD", "more gold"):
        (place.vault / "a").write_text("gold")
        name = wipe(alice, "a", destroy_token=token_of(alice), job=True).job
        other = place.vault / "other"
        other.write_text(changed)
        other.rename(place.vault / "a")
        place.run_job()
        job = get_job(alice, name)
        assert job.state == job_pb2.JOB_STATE_FAILED and job.error.reason == "PLAN_CHANGED"
        assert (place.vault / "a").read_text() == changed


def test_a_retry_of_a_job_finds_it_though_its_token_is_used(place):
    with place.channel("alice") as alice:
        token = token_of(alice)
        name = wipe(alice, "a", destroy_token=token, job=True, request_id="one").job
    place.stop()
    for path in (place.root / "state").rglob("*"):
        if path.is_file() and not {"jobs", "destroy"} & set(path.parts):
            path.unlink()
    place.start()
    with place.channel("alice") as alice:
        assert wipe(alice, "a", destroy_token=token, job=True, request_id="one").job == name


def test_what_cancelling_leaves_behind_is_told_before(place, alice):
    token = wipe(alice, "a", seals=20, validate_only=True).destroy_token
    name = wipe(alice, "a", seals=20, destroy_token=token, job=True).job
    assert get_job(alice, name).cancel_leaves == ""
    process = place.start_job()
    told = until(lambda: get_job(alice, name).cancel_leaves)
    assert told == "wipe 4 bytes of box a"
    until(lambda: "a.3" in place.boxes)
    request = job_pb2.CancelJobRequest(name=name)
    job_pb2_grpc.JobServiceStub(alice).CancelJob(request, timeout=10)
    assert process.wait(10) == 0
    job = get_job(alice, name)
    assert job.state == job_pb2.JOB_STATE_CANCELLED
    assert place.boxes == {"a"} and not gold(place) and job.cancel_leaves == told
    assert job.error.message == f"the job was cancelled; this stays: {told}"


def test_what_can_be_taken_back_leaves_nothing_behind(place, alice):
    name = fill(alice, *(f"b{n}" for n in range(20)), wait_ms=50, job=True).job
    place.start_job()
    until(lambda: get_job(alice, name).progress.done > 3)
    assert get_job(alice, name).cancel_leaves == ""
