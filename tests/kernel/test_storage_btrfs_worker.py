"""What the worker makes sure of by itself before it does anything to a btrfs."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hosts_witness import eventually
from storage_btrfs import BTRFS, Pool, made
from storage_devices import MIB, mounted, run, target, worker, worker_process

from hostlerd.runtime.errors import InvalidRequest
from hostlerd.storage import errors
from hostlerd.storage.kernel.btrfs_work import follow, look, subvolumes
from hostlerd.storage.kernel.worker_client import Worker
from hostlerd.storage.model.btrfs_steps import (
    AddBtrfsDevice,
    CancelBtrfsWork,
    CreateSnapshot,
    CreateSubvolume,
    DeleteSubvolume,
    ResetErrorCounters,
    StartBalance,
    StartRemoval,
    StartReplace,
    StartScrub,
    TakeBackSubvolume,
)

pytestmark = pytest.mark.kernel
UNIT = Path(__file__).parents[2] / "packaging/systemd/hostler-storage-worker.service"
UUID = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with worker(tmp_path_factory.mktemp("btrfs")) as made:
        yield made


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    with made(tmp_path, "-d", "raid1", "-m", "raid1") as pool:
        yield pool


def replacing(pool: Pool) -> StartReplace:
    size = pool.two.file.stat().st_size
    return StartReplace(pool.uuid, 2, (target(pool.two),), target(pool.spare), size)


@pytest.mark.parametrize("path", ["", "/etc", "../etc", "a/../b", "a//b", "a\n", "x" * 256])
def test_paths_that_lead_elsewhere_are_outside_of_the_grammar(asked: Worker, path: str) -> None:
    for step in (
        CreateSubvolume(UUID, path),
        CreateSnapshot(UUID, "a", 256, UUID, path),
        TakeBackSubvolume(UUID, path, ""),
        DeleteSubvolume(UUID, path, 256, UUID, 1),
    ):
        with pytest.raises(InvalidRequest):
            asked.apply(step)


@pytest.mark.parametrize("uuid", ["", "../x", "0f1e2d3c", UUID.upper(), f"{UUID}\n"])
def test_uuids_that_are_none_are_outside_of_the_grammar(asked: Worker, uuid: str) -> None:
    for step in (
        StartScrub(uuid),
        StartBalance(uuid),
        ResetErrorCounters(uuid, (1,)),
        CancelBtrfsWork(uuid, "scrub"),
        CreateSubvolume(uuid, "a"),
    ):
        with pytest.raises(InvalidRequest):
            asked.apply(step)
    with pytest.raises(InvalidRequest):
        asked.apply(StartBalance(UUID, "raid7"))
    with pytest.raises(InvalidRequest):
        asked.apply(StartBalance(UUID, kinds=("system",)))
    with pytest.raises(errors.NotMounted):
        asked.apply(StartScrub(UUID))


def test_a_replacement_of_another_device_than_the_plan_saw_touches_nothing(
    asked: Worker, pool: Pool
) -> None:
    run("/usr/sbin/mkfs.ext4", "-q", pool.spare.device)
    step = replacing(pool)
    before = pool.spare.hash()
    for wrong, kind in (
        (replace(step, device_id=1), errors.DeviceChanged),
        (replace(step, device_id=3), errors.DeviceGone),
        # It is there, and not missing.
        (replace(step, old=()), errors.DeviceBusy),
        (replace(step, new=replace(step.new, signatures=())), errors.SignaturesChanged),
        (replace(step, new=target(pool.one)), errors.DeviceBusy),
        (replace(step, uuid=UUID), errors.NotMounted),
    ):
        with pytest.raises(kind):
            asked.apply(wrong)
    assert pool.spare.hash() == before
    with mounted(pool.spare.device, pool.at.with_name("ext4")), pytest.raises(errors.DeviceBusy):
        asked.apply(step)
    removal = StartRemoval(pool.uuid, 1, (target(pool.two),), 1)
    with pytest.raises(errors.DeviceChanged):
        asked.apply(removal)
    with pytest.raises(errors.BtrfsBusy, match="too few devices"):
        asked.apply(replace(removal, device_id=2))
    assert pool.spare.blkid("TYPE") == "ext4"
    assert look(asked, pool.uuid, "replace").state == "none"


def test_nothing_is_written_to_a_device_while_a_scrub_goes_on(asked: Worker, pool: Pool) -> None:
    run("/usr/sbin/mkfs.ext4", "-q", "-L", "was here", pool.spare.device)
    step, added = replacing(pool), AddBtrfsDevice(pool.uuid, target(pool.spare))
    before = pool.spare.hash()
    pool.slow(MIB)
    asked.apply(StartScrub(pool.uuid))
    for each in (step, added):
        with pytest.raises(errors.BtrfsBusy, match="busy with scrub"):
            asked.apply(each)
    asked.apply(CancelBtrfsWork(pool.uuid, "scrub"))
    ceased = look(asked, pool.uuid, "scrub")
    assert (ceased.state, ceased.is_cancelled) == ("done", True)
    assert 0 < ceased.done < ceased.total
    assert pool.spare.hash() == before
    pool.slow(0)
    asked.apply(step)
    told = []
    follow(asked, pool.uuid, "replace", told.append)
    assert told[-1].done == told[-1].total
    assert pool.data() == pool.digest


def test_a_replacement_that_is_cancelled_leaves_the_old_one_in_use(
    asked: Worker, pool: Pool
) -> None:
    # A replacement reads as a scrub does.
    pool.slow(MIB)
    asked.apply(replacing(pool))
    eventually(lambda: look(asked, pool.uuid, "replace").state == "running")
    asked.apply(CancelBtrfsWork(pool.uuid, "replace"))
    found = look(asked, pool.uuid, "replace")
    assert (found.state, found.is_cancelled, found.error) == ("done", True, "")
    shown = run(BTRFS, "filesystem", "show", str(pool.at))
    assert pool.two.device in shown and pool.spare.device not in shown
    assert pool.data() == pool.digest


def test_what_was_made_is_taken_back_only_as_it_was_made(asked: Worker, pool: Pool) -> None:
    def there() -> set[str]:
        return set(re.findall(r"path (\S+)", run(BTRFS, "subvolume", "list", str(pool.at))))

    for name in ("empty", "used"):
        asked.apply(CreateSubvolume(pool.uuid, name))
    (pool.at / "used/file").write_text("mine")
    found = {one.path: one for one in subvolumes(asked, pool.uuid, sync=True)}
    used = found["used"]
    for name, is_read_only in (("fixed", True), ("fresh", False), ("written", False)):
        asked.apply(CreateSnapshot(pool.uuid, "used", used.id, used.uuid, name, is_read_only))
    (pool.at / "written/file").write_text("newer")
    for name in ("empty", "fixed", "fresh", "gone"):
        source = used.uuid if name in ("fixed", "fresh") else ""
        asked.apply(TakeBackSubvolume(pool.uuid, name, source))
    for name, source in (("used", ""), ("written", used.uuid)):
        with pytest.raises(errors.SubvolumeChanged):
            asked.apply(TakeBackSubvolume(pool.uuid, name, source))
    assert there() == {"used", "written"}
    with pytest.raises(errors.SubvolumeExists):
        asked.apply(CreateSubvolume(pool.uuid, "used"))
    now = {one.path: one for one in subvolumes(asked, pool.uuid, sync=True)}["used"]
    step = DeleteSubvolume(pool.uuid, "used", now.id, now.uuid, now.generation)
    for wrong in (
        replace(step, generation=now.generation - 1),
        replace(step, id=now.id + 1),
        replace(step, subvolume_uuid=UUID),
        replace(step, path="written"),
    ):
        with pytest.raises(errors.SubvolumeChanged):
            asked.apply(wrong)
    assert there() == {"used", "written"}
    asked.apply(step)
    assert there() == {"written"}
    with pytest.raises(errors.SubvolumeChanged):
        asked.apply(CreateSnapshot(pool.uuid, "written", now.id, now.uuid, "x"))


def test_a_device_that_is_added_holds_nothing_else(asked: Worker, pool: Pool) -> None:
    run("/usr/sbin/mkfs.ext4", "-q", pool.spare.device)
    asked.apply(AddBtrfsDevice(pool.uuid, target(pool.spare)))
    assert pool.spare.blkid("TYPE") == "btrfs"
    assert pool.spare.device in run(BTRFS, "filesystem", "show", str(pool.at))


def test_a_worker_stays_as_long_as_something_goes_on(pool: Pool, tmp_path: Path) -> None:
    with worker_process(tmp_path, idle_s=1) as process:
        asked = Worker(tmp_path / "worker.sock")
        pool.slow(MIB)
        asked.apply(StartScrub(pool.uuid))
        time.sleep(3)
        assert process.poll() is None
        assert look(asked, pool.uuid, "scrub").state == "running"
        asked.apply(CancelBtrfsWork(pool.uuid, "scrub"))
        eventually(lambda: process.poll() is not None)
        assert process.returncode == 0


def test_the_capabilities_of_the_unit_are_enough(pool: Pool, tmp_path: Path) -> None:
    """A subvolume that is a user's, in a folder that only he may enter, and all that lasts."""
    (said,) = re.findall(r"^CapabilityBoundingSet=(.+)$", UNIT.read_text(), re.MULTILINE)
    bounds = ",".join(["-all", *(f"+{one[4:].lower()}" for one in said.split())])
    wrapper = ("/usr/bin/setpriv", "--bounding-set", bounds)
    with worker_process(tmp_path, wrapper=wrapper):
        asked, uuid = Worker(tmp_path / "worker.sock"), pool.uuid
        asked.apply(CreateSubvolume(uuid, "home"))
        os.chown(pool.at / "home", 1000, 1000)
        (pool.at / "home").chmod(0o700)
        (home,) = [one for one in subvolumes(asked, uuid, sync=True) if one.path == "home"]
        asked.apply(CreateSnapshot(uuid, "home", home.id, home.uuid, "home/snap", True))
        for path in ("home/snap", "home"):
            # The first one goes from the second, which is another one by that.
            one = {each.path: each for each in subvolumes(asked, uuid, sync=True)}[path]
            asked.apply(DeleteSubvolume(uuid, path, one.id, one.uuid, one.generation))
        asked.apply(StartScrub(uuid))
        follow(asked, uuid, "scrub", lambda _: None)
        asked.apply(replacing(pool))
        follow(asked, uuid, "replace", lambda _: None)
        asked.apply(AddBtrfsDevice(uuid, target(pool.two)))
        asked.apply(StartBalance(uuid, usage_percent=5))
        follow(asked, uuid, "balance", lambda _: None)
        asked.apply(StartRemoval(uuid, 3, (target(pool.two),), 0))
        follow(asked, uuid, "remove", lambda _: None)
        asked.apply(ResetErrorCounters(uuid, (1, 2)))
        assert set(pool.stats()) == {pool.one.device, pool.spare.device}
