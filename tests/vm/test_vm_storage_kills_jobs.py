"""Who follows what md does for long is killed: it goes on, is told of, and ends right.

Minutes for each in a guest: HOSTLER_SOAK=1 runs it.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from journal_rows import COMMON, Row, ask
from journal_stage import eventually
from journal_trial import SOAK, disturbed
from storage_changes import GUEST_ROWS
from storage_guest import DISKS
from vm_guest import Guest
from vm_kills import GuestPlace
from vm_suite import Suite

from hostler.api.common.v1 import change_pb2, job_pb2

pytestmark = [
    pytest.mark.vm,
    pytest.mark.soak,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not SOAK, reason="minutes for each change"),
]

MIB = 1 << 20
DISK_BYTES = 64 * MIB
# Slow enough to be killed in the middle, and over in seconds.
SLOW = 4 * MIB
PATIENCE_S = 240.0
LONG = ("check", "repair", "grow-array", "replace-disk")
#: Where asking once more does something.
MORE = ("replace-disk",)


def throttle(guest: Guest, bytes_per_second: int) -> None:
    for disk in DISKS:
        guest.throttle_disk(disk, bytes_per_second)


def job_of(place: Any, name: str) -> Any:
    request = job_pb2.GetJobRequest(name=name)
    return ask(place, f"{COMMON}.JobService/GetJob", request).job


def begun(place: Any, row: Row) -> str:
    """Have a change taken on as a job, and wait until it is in the middle; answers its name."""
    request = row.request(place)
    throttle(place.guest, SLOW)
    request.change.job = True
    change = ask(place, row.method, request).change
    assert change.outcome == change_pb2.OUTCOME_STARTED

    def is_within() -> bool:
        found = job_of(place, change.job)
        assert found.state in (job_pb2.JOB_STATE_QUEUED, job_pb2.JOB_STATE_RUNNING), found
        return 0 < found.progress.done < found.progress.total

    eventually(is_within, PATIENCE_S)
    return str(change.job)


@pytest.mark.parametrize("name", LONG)
def test_what_goes_on_for_long_ends_right_without_its_job(guests: Suite, name: str) -> None:
    (guest,) = guests.take("vm1")
    for disk in DISKS:
        guest.add_disk(disk, DISK_BYTES)
    place: Any = GuestPlace(guests, guest)
    (row,) = (row for rows in GUEST_ROWS.values() for row in rows if row.name == name)
    new, _ = disturbed(place, row)
    row.before(place)
    job = begun(place, row)
    guest.run(["systemctl", "kill", "--signal=KILL", "hostler-job@storage.service"])
    throttle(guest, 0)

    def over() -> Any:
        found = job_of(place, job)
        running = found.state in (job_pb2.JOB_STATE_QUEUED, job_pb2.JOB_STATE_RUNNING)
        return None if running or "is about to" in found.resume else found

    told = eventually(over, PATIENCE_S)
    print(f"{row.name}: {job_pb2.JobState.Name(told.state)}: {told.error.message}; {told.resume}")
    if told.state != job_pb2.JOB_STATE_SUCCEEDED:
        assert told.state == job_pb2.JOB_STATE_INTERRUPTED, told
        assert re.search("goe?s? on", told.error.message + told.resume), told
    # The witness waits for it.
    assert row.witness(place) == new, row.name
    change = ask(place, row.method, row.request(place)).change
    assert change.outcome == change_pb2.OUTCOME_APPLIED
    if row.name not in MORE:
        assert row.witness(place) == new, row.name
