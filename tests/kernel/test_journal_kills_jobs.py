"""What goes on for long, when its job, its daemon or who does it is killed.

It is there and followed, or told as lost; and never begun a second time beside the first.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from journal_rows import COMMON, Row, ask
from journal_stage import eventually
from storage_devices import MIB
from storage_rows_backup import BACKUP_ROWS, repository, snapshots
from storage_rows_btrfs import BTRFS_ROWS, unmount, uuid
from storage_stage import Seat, Storage, storage

from hostler.api.common.v1 import change_pb2, job_pb2

pytestmark = [pytest.mark.kernel]
(SCRUB,) = (row for row in BTRFS_ROWS if row.name == "scrub")
RUN = BACKUP_ROWS[0]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    sizes = dict.fromkeys(("leg", "mate", "spare"), 192)
    with storage(tmp_path_factory.mktemp("stage"), sizes) as made:
        yield made
        unmount(made)


@pytest.fixture(scope="module")
def restic(place: Storage) -> Seat:
    """The program that runs backups."""
    place.sit("restore")
    return place.sit("backup")


def slow(place: Storage, bytes_per_second: int) -> None:
    """Bound how fast a scrub goes; 0: not."""
    for file in Path(f"/sys/fs/btrfs/{uuid(place)}/devinfo").glob("*/scrub_speed_max"):
        file.write_text(str(bytes_per_second))


def begun(place: Storage) -> str:
    """A scrub that would take long, as a job that waits; answers its name."""
    place.start()
    SCRUB.before(place)
    slow(place, MIB // 4)
    return job(place, SCRUB)


def job(place: Storage, row: Row) -> str:
    """Have a change taken on as a job; answers its name."""
    request = row.request(place)
    request.change.job = True
    change = ask(place, row.method, request).change
    assert change.outcome == change_pb2.OUTCOME_STARTED
    return str(change.job)


def job_of(place: Storage, name: str) -> Any:
    request = job_pb2.GetJobRequest(name=name)
    return ask(place, f"{COMMON}.JobService/GetJob", request).job


def followed(place: Storage, name: str) -> bool:
    """Whether the job tells how far the scrub is."""
    return bool(job_of(place, name).progress.unit == "bytes")


def scrubs(place: Storage) -> int:
    """How many threads of the worker are in a scrub, by its kernel stacks' system calls."""
    tasks = Path(f"/proc/{place.worker.process.pid}/task")
    found = 0
    for task in tasks.iterdir():
        # ioctl(2) is 16 here; its second argument is what is asked for.
        said = (task / "syscall").read_text().split()
        found += said[0] == "16" and int(said[2], 16) == 0xC400941B
    return found


def test_a_job_goes_on_without_the_daemon(place: Storage) -> None:
    name = begun(place)
    with place.job() as process:
        eventually(lambda: followed(place, name))
        place.kill()
        place.start()
        assert job_of(place, name).state == job_pb2.JOB_STATE_RUNNING
        assert scrubs(place) == 2
        slow(place, 0)
        assert process.wait(60) == 0
    assert job_of(place, name).state == job_pb2.JOB_STATE_SUCCEEDED
    assert SCRUB.witness(place)


def test_a_scrub_goes_on_without_its_job_and_is_not_begun_twice(place: Storage) -> None:
    name = begun(place)
    with place.job() as process:
        eventually(lambda: followed(place, name))
        process.kill()
        process.wait()
    assert scrubs(place) == 2
    with place.job() as process:
        assert process.wait(60) == 0
    told = job_of(place, name)
    assert told.state == job_pb2.JOB_STATE_INTERRUPTED
    assert "the worker goes on with the scrub" in told.error.message
    # Who asks anew follows the one that goes on.
    again = job(place, SCRUB)
    with place.job() as process:
        eventually(lambda: followed(place, again))
        assert scrubs(place) == 2
        slow(place, 0)
        assert process.wait(60) == 0
    assert job_of(place, again).state == job_pb2.JOB_STATE_SUCCEEDED
    assert SCRUB.witness(place)


def test_a_scrub_that_went_with_its_worker_is_told_as_lost(place: Storage) -> None:
    name = begun(place)
    deaths = place.worker.deaths
    with place.job() as process:
        eventually(lambda: followed(place, name))
        place.worker.kill()
        assert process.wait(60) == 0
    eventually(lambda: place.worker.deaths > deaths)
    told = job_of(place, name)
    assert told.state == job_pb2.JOB_STATE_FAILED
    assert told.error.reason == "BTRFS_WORK_LOST"
    assert scrubs(place) == 0
    # The kernel has none either: one that goes on would be cancelled by this.
    argv = ("/usr/bin/btrfs", "scrub", "cancel", str(place.folder / "at"))
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert "not running" in done.stderr


def test_a_backup_that_went_with_its_program_is_told_as_lost_and_the_next_one_is_made(
    place: Storage, restic: Seat
) -> None:
    place.start()
    repository(place)
    with (place.folder / "tree/much").open("wb") as file:
        for _ in range(64):
            file.write(os.urandom(MIB))
    deaths = restic.deaths
    name = job(place, RUN)
    with place.job() as process:
        eventually(lambda: tools(restic) and followed(place, name))
        restic.kill()
        assert process.wait(60) == 0
    eventually(lambda: restic.deaths > deaths)
    told = job_of(place, name)
    assert told.state == job_pb2.JOB_STATE_FAILED
    assert told.error.reason == "RUN_NOT_FOUND"
    assert snapshots(place) == 2
    # The lock that it left is no hindrance.
    name = job(place, RUN)
    with place.job() as process:
        assert process.wait(60) == 0
    assert job_of(place, name).state == job_pb2.JOB_STATE_SUCCEEDED
    assert snapshots(place) == 3


def tools(seat: Seat) -> list[str]:
    """What a program has started, and runs."""
    tasks = Path(f"/proc/{seat.process.pid}/task")
    return [pid for one in tasks.glob("*/children") for pid in one.read_text().split()]
