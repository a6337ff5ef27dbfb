"""Jobs on disk, and how their progress is measured; whole processes are in tests/kernel."""

import json
import os
import time
from dataclasses import replace

import pytest

from hostler.api.common.v1 import change_pb2
from hostlerd.runtime.job import NEW_COUNT, End, JobNotFound, Progress, Record, State, TooManyJobs
from hostlerd.runtime.job_progress import JobCancelled, JobProgress, JobStopped
from hostlerd.runtime.job_service import _dropped, to_proto
from hostlerd.runtime.jobs import JobStore, recovered

RECORD = Record(
    id="ab" * 16,
    method="/hostler.api.netns.v1.S/M",
    identity="spiffe://t/user/olga",
    certificate_serial="4f",
    peer="10.0.0.2:1",
    local=False,
    outside=True,
    run="r1",
    resources=("web",),
    request_id="one",
    intent_seq=7,
    created=1000.0,
)
DONE = End(State.SUCCEEDED, 9, 2000.0, 3, 3)


@pytest.fixture
def folders(tmp_path):
    for name in ("state", "run"):
        (tmp_path / name).mkdir()
    return tmp_path / "state", tmp_path / "run"


@pytest.fixture
def store(folders):
    return JobStore(*folders)


def numbered(number, **changed):
    return replace(RECORD, id=f"{number:032x}", created=float(number), **changed)


def test_a_job_is_there_as_it_was_put(store, folders):
    store.put(RECORD, b"request")
    again = JobStore(*folders)
    job = again.find(RECORD.id)
    assert job.record == RECORD and job.state is State.QUEUED and job.ended is None
    assert again.request(RECORD.id) == b"request" and again.queued() == [RECORD.id]


def test_putting_it_twice_is_putting_it_once(store):
    store.put(RECORD, b"request")
    store.put(replace(RECORD, run="r2"), b"another")
    assert store.find(RECORD.id).record.run == "r1" and store.request(RECORD.id) == b"request"
    store.end(RECORD.id, DONE, b"")
    store.put(RECORD, b"request")
    assert store.queued() == [] and store.find(RECORD.id).state is State.SUCCEEDED


def test_an_end_is_found_whichever_folder_it_lies_in(store, folders):
    store.put(RECORD, b"request")
    (folders[0] / "jobs/queue" / RECORD.id / "end.json").write_text(
        json.dumps({"state": "FAILED", "seq": 5, "ended": 1.0, "reason": "X"})
    )
    assert store.find(RECORD.id).state is State.FAILED
    store.put_away(RECORD.id)
    assert store.find(RECORD.id).state is State.FAILED and store.queued() == []


def test_one_that_is_held_is_held_by_one_alone_and_says_whether_it_was_begun(store):
    store.put(RECORD, b"")
    with store.held(RECORD.id) as begun:
        assert not begun and store.find(RECORD.id).state is State.QUEUED
        store.begin(RECORD.id)
        assert store.find(RECORD.id).state is State.RUNNING
    assert store.find(RECORD.id).state is State.INTERRUPTED
    with store.held(RECORD.id) as begun:
        assert begun


def test_looking_whether_it_lives_does_not_keep_its_runner_out(store):
    store.put(RECORD, b"")
    with store.held(RECORD.id):
        store.begin(RECORD.id)
    for _ in range(100):
        assert store.find(RECORD.id).state is State.INTERRUPTED
    begun = time.monotonic()
    with store.held(RECORD.id):
        assert time.monotonic() - begun < 1


def test_one_that_has_ended_is_not_held(store):
    store.put(RECORD, b"")
    store.end(RECORD.id, DONE, b"")
    with pytest.raises(FileNotFoundError), store.held(RECORD.id):
        pass


@pytest.mark.parametrize("odd", ["", "..", "queue", "../queue", "AB" * 16, "ab" * 17, ".ab"])
def test_a_name_is_never_a_path(store, odd):
    store.put(RECORD, b"")
    with pytest.raises(JobNotFound):
        store.find(odd)


def test_the_oldest_goes_first_and_33_do_not_wait(store):
    for number in range(32, 0, -1):
        store.put(numbered(number), b"")
    assert store.queued()[0] == numbered(1).id
    with pytest.raises(TooManyJobs):
        store.put(numbered(33), b"")
    assert len(store.all()) == 32 and store.all()[0].record.created == 32.0


def test_ended_jobs_are_kept_a_week_and_a_thousand_of_them(store, folders):
    for number in range(1, 4):
        store.put(numbered(number), b"")
        store.end(numbered(number).id, DONE, b"")
    old = folders[0] / "jobs/ended" / numbered(1).id
    week_ago = time.time() - 8 * 24 * 3600
    os.utime(old, (week_ago, week_ago))
    for number in range(2000, 3100):
        (folders[0] / "jobs/ended" / f"{number:032x}").mkdir()
    store.put(RECORD, b"")
    kept = list((folders[0] / "jobs/ended").iterdir())
    assert not old.exists() and len(kept) == 999


def test_recovery_tells_the_job_and_no_other_file(store, folders):
    store.put(RECORD, b"")
    recovered(folders[0], f"jobs/{RECORD.id}", "OUTCOME_APPLIED", "all steps stand")
    assert store.recovered(RECORD.id) == ("OUTCOME_APPLIED", "all steps stand")
    before = sorted(folders[0].rglob("*"))
    for name in ("jobs/../../x", "jobs/" + "cd" * 16, "", "jobs/"):
        recovered(folders[0], name, "OUTCOME_APPLIED", "")
    assert sorted(folders[0].rglob("*")) == before


def test_the_rate_is_that_of_the_steps_and_tells_how_long_it_takes(store):
    store.put(RECORD, b"")
    progress = JobProgress(store, RECORD.id)
    progress.tick()
    time.sleep(0.3)
    moments = []
    for done in range(11):
        progress.step(done, 100, f"step {done}")
        moments.append(time.monotonic())
        progress.tick()
        time.sleep(0.05)
    seen, took_s = store.progress(RECORD.id), moments[-1] - moments[0]
    assert seen.done == 10 and seen.total == 100 and seen.activity == "step 10"
    assert seen.rate == pytest.approx(10 / took_s, rel=0.1)
    assert seen.remaining_s == pytest.approx(90 / seen.rate)
    assert seen.seq == 13 and store.find(RECORD.id).state is State.RUNNING


def test_what_has_not_changed_is_not_written_again(store):
    store.put(RECORD, b"")
    progress = JobProgress(store, RECORD.id)
    for _ in range(5):
        progress.tick()
    assert store.progress(RECORD.id).seq == 2


def test_it_stops_at_the_next_step_for_the_first_reason(store):
    store.put(RECORD, b"")
    progress = JobProgress(store, RECORD.id)
    assert store.ask_cancel(RECORD.id, "spiffe://t/user/olga")
    assert not store.ask_cancel(RECORD.id, "spiffe://t/user/olga")
    progress.step(0, 2, "first")
    progress.tick()
    progress.stop(JobStopped("told to end"))
    with pytest.raises(JobCancelled, match="cancelled"):
        progress.step(1, 2, "second")


def test_what_stays_is_told_and_bounded(store):
    store.put(RECORD, b"")
    progress = JobProgress(store, RECORD.id)
    for number in range(1000):
        progress.stays(f"end process {number}")
    progress.tick()
    leaves = store.find(RECORD.id).progress.leaves
    assert leaves.startswith("end process 0; end process 1; ") and leaves.endswith("; and more")
    assert len(leaves) < 1100 and leaves.count("and more") == 1


@pytest.mark.parametrize(
    ("told", "seq", "dropped"),
    [(0, 7, 0), (6, 7, 0), (3, 7, 3), (7, 7, 0), (9, NEW_COUNT + 2, 0), (NEW_COUNT, NEW_COUNT, 0)],
)
def test_dropped_counts_what_lies_between(told, seq, dropped):
    assert _dropped(told, seq) == dropped


def test_the_api_shows_all_of_it(store):
    store.put(RECORD, b"")
    store.report(RECORD.id, Progress(4, 1, 3, 0.5, 4.0, "second step", "end process 7"))
    shown = to_proto(store.find(RECORD.id))
    assert shown.name == f"jobs/{RECORD.id}" and shown.progress.remaining.seconds == 4
    assert (shown.progress.done, shown.progress.total, shown.progress.unit) == (1, 3, "steps")
    assert shown.cancel_leaves == "end process 7" and not shown.HasField("end_time")
    change = change_pb2.Change(outcome=change_pb2.OUTCOME_ROLLED_BACK).SerializeToString()
    failed = End(State.CANCELLED, 5, 2000.0, 1, 3, "", "CANCELLED", "JOB_CANCELLED", "w", "again")
    store.end(RECORD.id, failed, change)
    shown = to_proto(store.find(RECORD.id), store.change(RECORD.id))
    assert shown.error.reason == "JOB_CANCELLED" and shown.resume == "again"
    assert shown.change.outcome == change_pb2.OUTCOME_ROLLED_BACK
    assert shown.end_time.seconds == 2000 and shown.progress.done == 1
