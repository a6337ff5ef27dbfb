"""Jobs of a real daemon, done by a process of their own: once, whatever is killed in between."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from jobs_place import answered, fill, get_job, kill, refusal, running, stubs, until, wipe

from hostler.api.common.v1 import (
    bundle_pb2,
    bundle_pb2_grpc,
    change_pb2,
    job_pb2,
    job_pb2_grpc,
)

pytestmark = pytest.mark.kernel

SUCCEEDED, FAILED = job_pb2.JOB_STATE_SUCCEEDED, job_pb2.JOB_STATE_FAILED
CANCELLED, INTERRUPTED = job_pb2.JOB_STATE_CANCELLED, job_pb2.JOB_STATE_INTERRUPTED
QUEUED, RUNNING = job_pb2.JOB_STATE_QUEUED, job_pb2.JOB_STATE_RUNNING
NAMES = [f"box{n:02}" for n in range(20)]


@pytest.fixture
def place(tmp_path):
    with running(tmp_path) as place:
        yield place


@pytest.fixture
def olga(place):
    with place.channel("olga") as channel:
        yield channel


def outcomes(place, job):
    """What the audit log says of a job's end."""
    return [r for r in place.audit("outcome", job=job) if r.get("outcome") != "OUTCOME_STARTED"]


def watch(channel, name, after_seq=0):
    request = job_pb2.WatchJobRequest(name=name, after_seq=after_seq)
    return job_pb2_grpc.JobServiceStub(channel).WatchJob(request, timeout=60)


def cancel(channel, name, **options):
    request = job_pb2.CancelJobRequest(name=name, change=change_pb2.ChangeOptions(**options))
    return job_pb2_grpc.JobServiceStub(channel).CancelJob(request, timeout=10)


def files_with(place, text):
    """Which files of the daemon hold a text; asks grep, not our own code."""
    argv = ["/usr/bin/grep", "-rlF", text, *(str(place.root / d) for d in ("state", "run", "log"))]
    return subprocess.run(argv, capture_output=True, text=True).stdout.split()


def test_a_job_is_answered_at_once_and_done_by_another_process(place, olga):
    started = fill(olga, *NAMES, job=True)
    assert started.outcome == change_pb2.OUTCOME_STARTED and started.job.startswith("jobs/")
    assert started.audit.seq > 0 and place.boxes == set()
    job = get_job(olga, started.job)
    assert job.state == QUEUED and job.identity.endswith("/user/olga")
    assert list(job.resources) == NAMES and job.method.endswith("/FillVault")
    place.run_job()
    job = get_job(olga, started.job)
    assert job.state == SUCCEEDED and place.boxes == set(NAMES)
    assert job.change.outcome == change_pb2.OUTCOME_APPLIED and job.change.changed
    assert len(job.change.plan.steps) == job.progress.done == job.progress.total == 20
    (end,) = outcomes(place, started.job)
    assert end["seq"] == job.change.audit.seq and end["hash"] == job.change.audit.head
    (intent,) = place.audit("intent", method=job.method)
    assert end["intent_seq"] == intent["seq"] and end["identity"] == intent["identity"]


def test_what_a_job_was_asked_is_forgotten_when_it_has_ended(place, olga):
    fill(olga, "a", secret="hunter2", job=True)  # noqa: S106 - to be found, or not
    assert len(files_with(place, "hunter2")) == 1
    place.run_job()
    assert files_with(place, "hunter2") == []


def test_the_same_request_id_is_the_same_job_across_restarts(place):
    with place.channel("olga") as olga:
        first = fill(olga, "a", job=True, request_id="one")
        assert fill(olga, "a", job=True, request_id="one").job == first.job
        assert refusal(lambda: fill(olga, "b", job=True, request_id="one")).reason == (
            "REQUEST_ID_REUSED"
        )
    place.restart()
    with place.channel("olga") as olga:
        assert fill(olga, "a", job=True, request_id="one").job == first.job
        place.run_job()
        assert fill(olga, "a", job=True, request_id="one").job == first.job
        assert fill(olga, "a", job=True, request_id="two").job != first.job
    with place.channel("alice") as alice:
        assert fill(alice, "a", job=True, request_id="one").job != first.job


def test_a_job_that_was_taken_on_and_never_answered_is_not_taken_on_again(place):
    """As after a kill between a job's record and its answer: the answers are lost, the job not."""
    with place.channel("olga") as olga:
        first = fill(olga, "a", job=True, request_id="one")
    place.stop()
    lost = [p for p in (place.root / "state").rglob("*") if p.is_file() and "jobs" not in p.parts]
    for path in lost:
        path.unlink()
    place.start()
    with place.channel("olga") as olga:
        assert fill(olga, "a", job=True, request_id="one").job == first.job
    assert len(place.queue) == 1


def test_progress_is_watched_and_the_daemon_dies_and_exits_meanwhile(tmp_path):
    names = [f"b{n:03}" for n in range(60)]
    with running(tmp_path, "idle_s = 0.5\n") as place:
        with place.channel("olga") as olga:
            name = fill(olga, *names, wait_ms=100, job=True).job
            running_job = place.start_job()
            seen = []
            for answer in watch(olga, name):
                seen.append(answer)
                if answer.job.progress.done >= 10:
                    break
        assert [a.seq for a in seen] == sorted({a.seq for a in seen})
        moving = seen[-1].job
        assert moving.state == RUNNING and moving.progress.total == 60
        assert 5 < moving.progress.rate_per_second < 11
        assert 3 < moving.progress.remaining.seconds < 12 and "make box" in moving.progress.activity
        assert moving.cancel_leaves == ""
        daemon = place.audit("start")[-1]["pid"]
        os.kill(daemon, signal.SIGKILL)
        with place.channel("vera") as vera:
            again = until(lambda: answered(lambda: get_job(vera, name)))
            assert again.state == RUNNING and place.audit("start")[-1]["pid"] != daemon
        # Nobody is connected now: the daemon goes, the job does not.
        until(lambda: not Path(f"/proc/{place.audit('start')[-1]['pid']}").exists(), 20)
        assert running_job.poll() is None
        with place.channel("vera") as vera:
            rest = list(watch(vera, name, after_seq=seen[-1].seq))
            assert rest[0].seq > seen[-1].seq and rest[0].dropped == rest[0].seq - seen[-1].seq - 1
            assert rest[-1].job.state == SUCCEEDED and rest[-1].job.progress.done == 60
            assert [a.seq for a in rest] == sorted({a.seq for a in rest})
        assert running_job.wait(10) == 0 and place.boxes == set(names)
        assert len(outcomes(place, name)) == 1
        assert len({r["pid"] for r in place.audit("start")}) >= 3


def test_states_are_shown_at_most_four_times_a_second(place, olga):
    name = fill(olga, *(f"b{n:04}" for n in range(1500)), wait_ms=1, job=True).job
    begun = time.monotonic()
    place.start_job()
    last = list(watch(olga, name))[-1]
    assert last.job.state == SUCCEEDED
    assert last.seq <= 4 * (time.monotonic() - begun) + 4


def test_cancelling_leaves_nothing_and_a_cancelled_job_says_how_to_go_on(place, olga):
    name = fill(olga, *NAMES, wait_ms=100, job=True).job
    process = place.start_job()
    until(lambda: len(place.boxes) > 3)
    planned = cancel(olga, name, validate_only=True)
    assert planned.change.outcome == change_pb2.OUTCOME_PLANNED and planned.change.changed
    assert cancel(olga, name).change.changed
    assert process.wait(10) == 0
    job = get_job(olga, name)
    assert job.state == CANCELLED and job.error.reason == "JOB_CANCELLED" and place.boxes == set()
    assert job.error.message == "the job was cancelled; everything was taken back"
    assert 3 < job.progress.done < 20 and "same call again" in job.resume
    assert job.change.outcome == change_pb2.OUTCOME_ROLLED_BACK
    (end,) = outcomes(place, name)
    assert end["status"] == "CANCELLED"
    assert not cancel(olga, name).change.changed


def test_a_job_that_was_cancelled_while_it_waited_is_never_begun(place, olga):
    first, second = (fill(olga, n, job=True).job for n in ("a", "b"))
    cancel(olga, first)
    place.run_job()
    place.run_job()
    assert get_job(olga, first).state == CANCELLED and place.boxes == {"b"}
    assert get_job(olga, second).state == SUCCEEDED


def test_cancelling_takes_the_leave_to_do_what_the_job_does(place, olga):
    (place.vault / "a").write_text("gold")
    with place.channel("alice") as alice, place.channel("vera") as vera:
        token = wipe(alice, "a", validate_only=True).destroy_token
        name = wipe(alice, "a", destroy_token=token, job=True).job
        # An operator may cancel jobs, but may not destroy.
        denied = refusal(lambda: cancel(olga, name))
        assert (denied.code, denied.reason) == ("PERMISSION_DENIED", "PERMISSION_DENIED")
        assert denied.metadata["method"].endswith("/WipeVault")
        assert refusal(lambda: cancel(vera, name)).reason == "PERMISSION_DENIED"
        assert get_job(vera, name).state == QUEUED
        assert cancel(alice, name).change.changed


def test_a_job_that_fails_says_why_and_is_undone(place, olga):
    name = fill(olga, "a", "b", "bad", "c", job=True).job
    place.run_job()
    job = get_job(olga, name)
    assert job.state == FAILED and place.boxes == set()
    assert (job.error.code, job.error.reason) == ("FAILED_PRECONDITION", "STEP_FAILED")
    assert "the box is bad" in job.error.message or "Input/output" in job.error.message
    (end,) = outcomes(place, name)
    assert end["reason"] == "STEP_FAILED"


def test_a_job_that_is_killed_is_undone_and_can_be_resumed(place, olga):
    name = fill(olga, *NAMES, wait_ms=100, job=True).job
    after = fill(olga, "later", job=True).job
    process = place.start_job()
    until(lambda: len(place.boxes) > 3)
    seen = get_job(olga, name)
    kill(process)
    dead = get_job(olga, name)
    assert dead.state == INTERRUPTED and place.boxes != set()
    place.run_job()
    job = get_job(olga, name)
    assert job.state == INTERRUPTED and job.error.reason == "INTERRUPTED" and place.boxes == set()
    assert job.progress.done >= seen.progress.done and "with a new request_id" in job.resume
    (end,) = outcomes(place, name)
    assert end["reason"] == "INTERRUPTED"
    (recovery,) = place.audit("recovery")
    assert recovery["job"] == name and recovery["intent_seq"] == end["intent_seq"]
    place.run_job()
    assert get_job(olga, after).state == SUCCEEDED and place.boxes == {"later"}
    again = fill(olga, *NAMES, job=True).job
    place.run_job()
    assert get_job(olga, again).state == SUCCEEDED and place.boxes == {*NAMES, "later"}


def test_a_watcher_is_told_that_the_process_died_and_then_how_it_ended(place, olga):
    name = fill(olga, *NAMES, wait_ms=100, job=True).job
    process = place.start_job()
    states = []
    for answer in watch(olga, name):
        states.append((answer.seq, answer.job.state))
        if len(place.boxes) > 3 and process.poll() is None:
            kill(process)
        if answer.job.state == INTERRUPTED and not answer.job.HasField("end_time"):
            place.start_job()
    assert [seq for seq, _ in states] == sorted({seq for seq, _ in states})
    assert [state for _, state in states][-2:] == [INTERRUPTED, INTERRUPTED]
    assert place.boxes == set()


def test_a_job_that_is_told_to_end_takes_back_what_it_did(place, olga):
    name = fill(olga, *NAMES, wait_ms=100, job=True).job
    process = place.start_job()
    until(lambda: len(place.boxes) > 3)
    process.terminate()
    assert process.wait(10) == 0 and place.boxes == set()
    job = get_job(olga, name)
    assert job.state == INTERRUPTED and job.error.reason == "JOB_STOPPED"


# Where the process dies, and whether the change stands then.
DEATHS = {
    "before JobStore.begin": True,
    "after JobStore.begin": False,
    "before Vault._apply": False,
    "before JobStore.note_applied": False,
    "after JobStore.note_applied": False,
    "after Journal.end": True,
    "before Recorder.changed": True,
    "before JobStore.end": True,
    "before JobStore.put_away": True,
    "after JobStore.end": True,
}


@pytest.mark.parametrize("dies", DEATHS)
def test_wherever_a_job_dies_it_ends_once(place, olga, dies):
    """The process that is started next knows whether the change stands, and says so once."""
    name = fill(olga, "a", "b", job=True).job
    assert place.start_job(dies).wait(20) == -signal.SIGKILL
    place.run_job()
    job = get_job(olga, name)
    stands = DEATHS[dies]
    assert job.state == (SUCCEEDED if stands else INTERRUPTED), job
    assert place.boxes == ({"a", "b"} if stands else set())
    assert len(outcomes(place, name)) == 1
    assert place.queue == []


def test_a_boot_that_takes_the_progress_does_not_take_the_count_back(place, olga):
    name = fill(olga, *NAMES, wait_ms=100, job=True).job
    process = place.start_job()
    seen = until(lambda: next(a.seq for a in watch(olga, name) if a.job.progress.done > 2))
    kill(process)
    (progress,) = (place.root / "run/jobs").glob("*.json")
    progress.unlink()
    place.run_job()
    (last,) = watch(olga, name, after_seq=seen)
    assert last.seq > seen and last.dropped == 0 and last.job.state == INTERRUPTED


def test_what_no_job_can_be_is_refused(place, olga):
    pb, _ = stubs()
    confirm = change_pb2.ConfirmOptions(group="g")
    assert pb.FillVaultRequest().change is not None
    for options in ({"validate_only": True}, {"confirm": confirm}):
        refused = refusal(lambda o=options: fill(olga, "a", job=True, **o))
        assert (refused.code, refused.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    request = bundle_pb2.PushBundleRequest(change=change_pb2.ChangeOptions(job=True))
    push = bundle_pb2_grpc.BundleServiceStub(olga).PushBundle
    assert refusal(lambda: push(request, timeout=10)).reason == "INVALID_REQUEST"
    assert refusal(lambda: get_job(olga, "jobs/../../etc")).reason == "JOB_NOT_FOUND"


def test_of_jobs_that_wait_there_are_32_at_the_most(place, olga):
    names = [fill(olga, f"b{n}", job=True).job for n in range(32)]
    refused = refusal(lambda: fill(olga, "one too many", job=True))
    assert (refused.code, refused.reason) == ("RESOURCE_EXHAUSTED", "TOO_MANY_JOBS")
    stub = job_pb2_grpc.JobServiceStub(olga)
    first = stub.ListJobs(job_pb2.ListJobsRequest(page_size=20))
    rest = stub.ListJobs(job_pb2.ListJobsRequest(page_token=first.next_page_token))
    listed = [job.name for job in (*first.jobs, *rest.jobs)]
    assert listed == names[::-1] and rest.next_page_token == ""
    place.run_job()
    active = stub.ListJobs(job_pb2.ListJobsRequest(active_only=True))
    assert len(active.jobs) == 31 and get_job(olga, names[0]).state == SUCCEEDED
    fill(olga, "another", job=True)


def test_a_job_does_not_outlive_the_leave_to_do_it(place, olga):
    name = fill(olga, "a", job=True).job
    place.authority.ungrant("olga", "operators")
    place.install_bundle()
    place.run_job()
    with place.channel("vera") as vera:
        job = get_job(vera, name)
    assert job.state == FAILED and job.error.code == "PERMISSION_DENIED" and place.boxes == set()


def test_a_job_of_a_newer_version_does_not_run_as_half_of_what_was_asked(place, olga):
    """The version that took it on may be gone by then: a downgrade does not drop what it asked."""
    name = fill(olga, "a", job=True).job
    request = place.root / "state/jobs/queue" / name.removeprefix("jobs/") / "request.bin"
    # A varint in field 19999, which nobody has.
    request.write_bytes(request.read_bytes() + b"\xf8\xe1\x09\x01")
    place.run_job()
    job = get_job(olga, name)
    assert job.state == FAILED and job.error.reason == "NOT_KNOWN_HERE"
    assert place.boxes == set()
    (end,) = outcomes(place, name)
    assert end["reason"] == "NOT_KNOWN_HERE"


def test_what_is_no_job_is_swept_from_the_queue(place, olga):
    """Or the path unit, which looks whether the folder is empty, would start it for ever."""
    fill(olga, "a", job=True)
    queue = place.root / "state/jobs/queue"
    (queue / ("ab" * 16)).mkdir()
    (queue / "stray").write_text("x")
    place.run_job()
    assert place.queue == [] and place.boxes == {"a"}


def test_a_record_that_cannot_be_read_does_not_stop_the_others(place, olga):
    first, second = (fill(olga, n, job=True).job for n in ("a", "b"))
    record = place.root / "state/jobs/queue" / first.removeprefix("jobs/") / "record.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "surprise": 1}))
    place.run_job()
    assert get_job(olga, second).state == SUCCEEDED
    assert place.queue == []
