"""A filesystem is put to work: what keeps all passes, what has lost a byte is named."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import storage_jobs
from hosts_witness import eventually
from storage_copies import CopyWorld, copy_world

from hostler.api.common.v1 import job_pb2
from hostler.core.copying.burn_in import Burnt, burn_in
from hostler.core.copying.place import place_of
from hostler.core.copying.refused import CopyRefused

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]
MIB = 1 << 20


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CopyWorld]:
    place, root = (tmp_path_factory.mktemp(name) for name in ("daemon", "root"))
    with copy_world(place, root) as made:
        yield made


def test_a_disk_that_keeps_all_passes_and_nothing_stays(host: CopyWorld) -> None:
    (host.root / "disk").mkdir()
    asked = {"folder": str(host.root / "disk"), "size_bytes": 24 * MIB, "rounds": 3}
    made = host.call("copy", "BurnIn", **asked).outcome
    assert made.rounds == 3 and made.files > 20
    assert made.read_bytes == 3 * 24 * MIB and 24 * MIB < made.written_bytes < 3 * 24 * MIB
    assert list((host.root / "disk").iterdir()) == []
    told = host.hostler(
        *("--yes", "storage", "burn-in", str(host.root / "disk")),
        *("--size", "1M", "--rounds", "1"),
    )
    assert "all as they were" in told


def test_a_byte_that_changes_meanwhile_fails_the_job_by_name(host: CopyWorld) -> None:
    disk = host.root / "bad"
    disk.mkdir()
    asked = {"folder": str(disk), "size_bytes": 24 * MIB, "rounds": 1000}
    name, process = storage_jobs.begin(host, "copy", "BurnIn", **asked)
    damage(disk)
    (job,) = storage_jobs.told(host, name, process)[-1:]
    assert (job.state, job.error.reason) == (job_pb2.JOB_STATE_FAILED, "COPY_DAMAGED"), job
    assert "is not what was written" in job.error.message
    assert list(disk.iterdir()) == []


def damage(disk: Path) -> None:
    """Change a byte of some files that are there."""
    found = eventually(lambda: len(files(disk)) > 30 and files(disk), 30)
    for path in random.Random(1).sample(found, 10):  # noqa: S311
        try:
            with path.open("r+b") as file:
                byte = file.read(1)
                file.seek(0)
                file.write(bytes([byte[0] ^ 4]))
        except FileNotFoundError:
            continue


def files(disk: Path) -> list[Path]:
    return [one for one in disk.glob(".hostler-copy-*/copy/*/*") if one.stat().st_size]


def test_cancelled_it_leaves_nothing(host: CopyWorld) -> None:
    disk = host.root / "stopped"
    disk.mkdir()
    asked = {"folder": str(disk), "size_bytes": 24 * MIB, "rounds": 1000}
    name, process = storage_jobs.begin(host, "copy", "BurnIn", **asked)
    eventually(lambda: files(disk), 30)
    storage_jobs.cancel(host, name)
    (job,) = storage_jobs.told(host, name, process)[-1:]
    assert job.state == job_pb2.JOB_STATE_CANCELLED, job
    eventually(lambda: not list(disk.iterdir()), 20)


@pytest.mark.parametrize("what", ["removed", "added", "cut", "swapped"])
def test_what_is_found_is_exactly_what_was_written(tmp_path: Path, what: str) -> None:
    calls = 0

    def meddle(done: int, total: int) -> None:
        nonlocal calls
        calls += 1
        there = files(tmp_path)
        # All has been written when the first is read.
        if done <= 8 * MIB or calls < 0:
            return
        calls = -(1 << 30)
        one, other = sorted(there, key=lambda path: path.parent.name + "/" + path.name)[-2:]
        if what == "removed":
            other.unlink()
        elif what == "added":
            (other.parent / "zz").write_bytes(b"more")
        elif what == "cut":
            other.write_bytes(other.read_bytes()[:-1])
        else:
            swap = one.read_bytes()
            one.write_bytes(other.read_bytes())
            other.write_bytes(swap)

    with place_of(tmp_path / "burn-in") as place, pytest.raises(CopyRefused) as caught:
        burn_in(place, 8 * MIB, 1, 7, meddle)
    assert caught.value.reason == "DAMAGED"
    assert list(tmp_path.iterdir()) == []


def test_more_than_there_is_room_for_is_refused(tmp_path: Path) -> None:
    with place_of(tmp_path / "burn-in") as place:
        with pytest.raises(CopyRefused) as caught:
            burn_in(place, 1 << 60, 1, 7, lambda done, total: None)
        assert caught.value.reason == "TARGET_FULL"
        made = burn_in(place, MIB, 2, 7, lambda done, total: None)
    assert isinstance(made, Burnt) and made.read_bytes == 2 * MIB
