"""btrfs through the daemon and its worker, on loop devices; btrfs-progs says whether it is so."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts_witness import eventually
from storage_btrfs import BTRFS, SIZE_MIB, Pool, damage, made, part, place_of
from storage_daemon import World, world
from storage_devices import MIB, called, loop, mounted, run
from storage_jobs import begin, cancel, done, told

from hostler.api.common.v1 import job_pb2, job_pb2_grpc

pytestmark = [pytest.mark.kernel]
NOUN = "btrfs"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("btrfs")) as made:
        yield made


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    with made(tmp_path, "-d", "raid1", "-m", "raid1") as pool:
        yield pool


def test_what_is_told_is_what_btrfs_says(host: World, pool: Pool) -> None:
    run(BTRFS, "subvolume", "create", str(pool.at / "home"))
    run(BTRFS, "subvolume", "create", str(pool.at / "home/deep"))
    (pool.at / "home/folder").mkdir()
    run(BTRFS, "subvolume", "snapshot", "-r", str(pool.at / "home"), f"{pool.at}/home/folder/snap")
    run(BTRFS, "filesystem", "sync", str(pool.at))
    for words in (pool.uuid, pool.label, f"filesystem-{pool.uuid}"):
        found = host.call(NOUN, "GetBtrfs", "vera", filesystem=words).filesystem
        assert (found.uuid, found.label, list(found.mounts)) == (
            pool.uuid,
            pool.label,
            [str(pool.at)],
        )
    assert [one.name for one in found.devices] == [pool.one.name, pool.two.name]
    assert [one.id for one in found.devices] == [
        called(each).rpartition("#")[0] for each in (pool.one, pool.two)
    ]
    shown = run(BTRFS, "filesystem", "show", "--raw", str(pool.at))
    for device, told_of in zip(
        found.devices, re.findall(r"size (\d+) used (\d+) path", shown), strict=True
    ):
        assert (device.size_bytes, device.allocated_bytes) == tuple(map(int, told_of))
    usage = json.loads(run(BTRFS, "--format", "json", "filesystem", "df", str(pool.at)))
    wanted = {
        (one["bg-type"].lower(), one["bg-profile"].lower(), int(one["total"]), int(one["used"]))
        for one in usage["filesystem-df"]
        if one["bg-type"] != "GlobalReserve"
    }
    assert wanted == {
        (one.kind, one.profile, one.total_bytes, one.used_bytes) for one in found.allocations
    }
    assert pool.uuid in {one.uuid for one in host.call(NOUN, "ListBtrfs", "vera").filesystems}
    listed = host.call(NOUN, "ListSubvolumes", "vera", filesystem=pool.label).subvolumes
    said = run(BTRFS, "subvolume", "list", "-pu", str(pool.at))
    rows = re.findall(r"ID (\d+) gen (\d+) parent (\d+) .* uuid (\S+) path (\S+)", said)
    assert {(str(s.id), str(s.generation), str(s.parent_id), s.uuid, s.path) for s in listed} == {
        *rows
    }
    by_path = {one.path: one for one in listed}
    assert set(by_path) == {"home", "home/deep", "home/folder/snap"}
    snap = by_path["home/folder/snap"]
    assert snap.read_only and snap.source_uuid == by_path["home"].uuid
    assert abs(snap.create_time.seconds - time.time()) < 60
    missing = lambda: host.call(NOUN, "GetBtrfs", "vera", filesystem="other")  # noqa: E731
    assert host.refusal(missing) == "BTRFS_NOT_FOUND"


def test_silent_damage_of_one_leg_is_found_put_right_and_counted(host: World, pool: Pool) -> None:
    at = place_of(pool, pool.two)
    right = part(pool.two, at, 5)
    damage(pool.two, at, 5)
    # Only counted at first.
    (found,) = done(host, NOUN, "ScrubBtrfs", filesystem=pool.label, read_only=True)[
        -1
    ].change.warnings
    assert found.code == "BTRFS_DAMAGED" and "csum_errors 5" in found.message
    jobs = done(host, NOUN, "ScrubBtrfs", filesystem=pool.label)
    (found,) = jobs[-1].change.warnings
    assert found.code == "BTRFS_CORRECTED", found
    assert f"device 2 ({pool.two.name})" in found.message
    assert "csum_errors 5" in found.message and "corrected_errors 5" in found.message
    progress = jobs[-1].progress
    assert progress.unit == "bytes" and progress.done == progress.total >= 2 * 24 * MIB
    assert pool.stats() == {pool.one.device: 0, pool.two.device: 10}
    again = done(host, NOUN, "ScrubBtrfs", filesystem=pool.label)[-1]
    assert not again.change.warnings
    # On the leg itself, not only read from the other one.
    assert part(pool.two, at, 5) == right and pool.data() == pool.digest
    health = host.hostler("storage", "health", status=1)
    assert "BTRFS_ERRORS" in health and pool.two.name in health
    reset = host.call(NOUN, "ResetErrorCounters", "olga", filesystem=pool.label).change
    assert [one.code for one in reset.warnings] == ["ERRORS_FORGOTTEN"]
    assert "corruption_errs 10" in reset.warnings[0].message
    assert set(pool.stats().values()) == {0}
    assert not host.call(NOUN, "ResetErrorCounters", "olga", filesystem=pool.label).change.changed


def test_what_no_other_copy_has_is_told_and_not_hidden(host: World, tmp_path: Path) -> None:
    with made(tmp_path, "-d", "single", "-m", "raid1") as pool:
        places = [(leg, place_of(pool, leg)) for leg in (pool.one, pool.two)]
        ((leg, at),) = [one for one in places if one[1] >= 0]
        damage(leg, at, 3)
        (found,) = done(host, NOUN, "ScrubBtrfs", filesystem=pool.uuid)[-1].change.warnings
        assert found.code == "BTRFS_UNCORRECTABLE"
        assert "uncorrectable_errors 3" in found.message


def test_a_scrub_that_is_cancelled_ceases(host: World, pool: Pool) -> None:
    # It would take over a minute and a half.
    pool.slow(MIB // 4)
    name, process = begin(host, NOUN, "ScrubBtrfs", filesystem=pool.label)
    eventually(lambda: "bytes" in _unit(host, name))
    begun = time.monotonic()
    cancel(host, name)
    found = told(host, name, process)
    assert time.monotonic() - begun < 30
    assert found[-1].state == job_pb2.JOB_STATE_CANCELLED
    assert 0 < found[-1].progress.done < found[-1].progress.total
    assert "not running" in _stderr(BTRFS, "scrub", "cancel", str(pool.at))
    pool.slow(0)
    assert not done(host, NOUN, "ScrubBtrfs", filesystem=pool.label)[-1].change.warnings


def _unit(host: World, name: str) -> str:
    with host.daemon.channel("vera") as channel:
        job = job_pb2_grpc.JobServiceStub(channel).GetJob(job_pb2.GetJobRequest(name=name)).job
    return job.progress.unit if job.progress.done else ""


def _stderr(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False).stderr


def test_subvolumes_are_made_and_deleted_by_their_paths(host: World, pool: Pool) -> None:
    def there() -> set[str]:
        said = run(BTRFS, "subvolume", "list", str(pool.at))
        return set(re.findall(r"path (\S+)", said))

    assert host.call(
        NOUN, "CreateSubvolume", "olga", filesystem=pool.label, path="srv"
    ).change.changed
    assert there() == {"srv"}
    assert not host.call(
        NOUN, "CreateSubvolume", "olga", filesystem=pool.label, path="srv"
    ).change.changed
    (pool.at / "srv/file").write_text("kept")
    shot = {"filesystem": pool.label, "source": "srv", "path": "srv.1", "read_only": True}
    assert host.call(NOUN, "CreateSnapshot", "olga", **shot).change.changed
    assert not host.call(NOUN, "CreateSnapshot", "olga", **shot).change.changed
    assert "ro=true" in run(BTRFS, "property", "get", str(pool.at / "srv.1"), "ro")
    other = {**shot, "read_only": False}
    assert host.refusal(lambda: host.call(NOUN, "CreateSnapshot", **other)) == "SUBVOLUME_EXISTS"
    (pool.at / "srv/file").write_text("changed")
    assert (pool.at / "srv.1/file").read_text() == "kept"

    bare = lambda: host.call(NOUN, "DeleteSubvolume", filesystem=pool.label, path="srv")  # noqa: E731
    assert host.refusal(bare) == "DESTROY_TOKEN_REQUIRED"
    # What was written to between the plan and its being carried out stays.
    fields = {"filesystem": pool.label, "path": "srv"}
    planned = host.call(NOUN, "DeleteSubvolume", change={"validate_only": True}, **fields).change
    assert [one.code for one in planned.warnings] == ["CONTENT_LOST"]
    assert "srv.1" in planned.warnings[0].message
    (pool.at / "srv/file").write_text("newer")
    run(BTRFS, "filesystem", "sync", str(pool.at))
    options = {"plan_hash": planned.plan.hash, "destroy_token": planned.destroy_token}
    stale = lambda: host.call(NOUN, "DeleteSubvolume", change=options, **fields)  # noqa: E731
    assert host.refusal(stale) in ("PLAN_CHANGED", "SUBVOLUME_CHANGED")
    assert there() == {"srv", "srv.1"}
    # What is mounted stays, whoever has mounted it.
    at = pool.at.with_name("sub")
    with mounted(pool.one.device, at, "-o", "subvol=srv.1"):
        held = lambda: host.destroy(NOUN, "DeleteSubvolume", filesystem=pool.label, path="srv.1")  # noqa: E731
        assert host.refusal(held) == "SUBVOLUME_BUSY"
    assert host.destroy(NOUN, "DeleteSubvolume", **fields).change.changed
    assert there() == {"srv.1"}
    assert not host.destroy(NOUN, "DeleteSubvolume", **fields).change.changed
    bad = lambda: host.call(NOUN, "CreateSubvolume", filesystem=pool.label, path="../etc")  # noqa: E731
    assert host.refusal(bad) == "INVALID_REQUEST"
    host.hostler("--yes", "storage", "btrfs", "delete", pool.label, "srv.1")
    assert there() == set()


def test_no_way_leads_out_of_the_filesystem(host: World, pool: Pool) -> None:
    """A link in it, and another filesystem mounted over a folder of it."""
    outside = pool.at.with_name("outside")
    outside.mkdir()
    (pool.at / "link").symlink_to(outside)
    (pool.at / "over").mkdir()
    run("/usr/sbin/mkfs.btrfs", "-q", pool.spare.device)
    with mounted(pool.spare.device, pool.at / "over"):
        for path in ("link/a", "over/a"):
            ask = lambda p=path: host.call(NOUN, "CreateSubvolume", filesystem=pool.label, path=p)  # noqa: E731
            assert host.refusal(ask) == "NOT_MOUNTED", path
        assert not list((pool.at / "over").iterdir()) and not list(outside.iterdir())


def test_a_device_of_a_mirror_is_replaced_with_progress_and_the_data_is_the_same(
    host: World, pool: Pool
) -> None:
    run("/usr/sbin/mkfs.ext4", "-q", "-L", "was here", pool.spare.device)
    fields = {"filesystem": pool.label, "old": called(pool.two), "new": called(pool.spare)}
    planned = host.call(NOUN, "ReplaceDevice", change={"validate_only": True}, **fields).change
    assert [one.code for one in planned.warnings] == ["CONTENT_LOST"]
    assert host.refusal(lambda: host.call(NOUN, "ReplaceDevice", **fields)) == (
        "DESTROY_TOKEN_REQUIRED"
    )
    used = {**fields, "new": called(pool.one)}
    assert host.refusal(lambda: host.call(NOUN, "ReplaceDevice", **used)) == "INVALID_REQUEST"
    with mounted(pool.spare.device, pool.at.with_name("ext4")):
        assert host.refusal(lambda: host.call(NOUN, "ReplaceDevice", **fields)) == "DEVICE_BUSY"
    found = done(host, NOUN, "ReplaceDevice", **fields)
    progress = [one.progress for one in found if one.progress.unit == "bytes"]
    assert progress[-1].done == progress[-1].total == SIZE_MIB * MIB
    shown = run(BTRFS, "filesystem", "show", str(pool.at))
    assert pool.spare.device in shown and pool.two.device not in shown
    assert pool.data() == pool.digest
    assert pool.two.blkid("TYPE") == ""
    assert not host.destroy(NOUN, "ReplaceDevice", **fields).change.changed
    assert not done(host, NOUN, "ScrubBtrfs", filesystem=pool.label)[-1].change.warnings
    newest = host.call("filesystem", "ListSaved", "vera").saved[0]
    assert newest.operation == "StartReplace"
    assert newest.signatures[0].startswith("ext4 ")


def test_a_target_that_is_too_small_is_refused_and_left_alone(
    host: World, pool: Pool, tmp_path: Path
) -> None:
    with loop(tmp_path, "small", SIZE_MIB - 1) as small:
        run("/usr/sbin/mkfs.ext4", "-q", small.device)
        before = small.hash()
        fields = {"filesystem": pool.label, "old": called(pool.two), "new": called(small)}
        assert host.refusal(lambda: host.call(NOUN, "ReplaceDevice", **fields)) == (
            "DEVICE_TOO_SMALL"
        )
        assert small.hash() == before


def test_what_is_missing_is_replaced(host: World, tmp_path: Path) -> None:
    with made(tmp_path, "-d", "raid1", "-m", "raid1", is_whole=False) as pool:
        (_, gone) = host.call(NOUN, "GetBtrfs", "vera", filesystem=pool.label).filesystem.devices
        assert gone.missing and gone.size_bytes == SIZE_MIB * MIB
        done(host, NOUN, "ReplaceDevice", filesystem=pool.label, new=called(pool.spare))
        assert "MISSING" not in run(BTRFS, "filesystem", "show", str(pool.at)).upper()
        assert pool.data() == pool.digest
        assert not done(host, NOUN, "ScrubBtrfs", filesystem=pool.label)[-1].change.warnings


def test_devices_come_and_go_and_profiles_change(host: World, tmp_path: Path) -> None:
    with made(tmp_path, "-d", "raid1", "-m", "raid1", size_mib=4096) as pool:
        _come_and_go(host, pool)


def _come_and_go(host: World, pool: Pool) -> None:
    def profiles() -> dict[str, str]:
        said = run(BTRFS, "filesystem", "df", str(pool.at))
        return dict(re.findall(r"^(\w+), (\w+):", said, re.MULTILINE))

    few = lambda: host.call(NOUN, "RemoveDevice", filesystem=pool.label, device=called(pool.two))  # noqa: E731
    assert host.refusal(few) == "TOO_FEW_DEVICES"
    assert host.destroy(
        NOUN, "AddDevice", filesystem=pool.label, device=called(pool.spare)
    ).change.changed
    less = lambda: host.call(NOUN, "BalanceBtrfs", filesystem=pool.label, data="single")  # noqa: E731
    assert host.refusal(less) == "LESS_REDUNDANCY"
    done(host, NOUN, "BalanceBtrfs", filesystem=pool.label, data="raid1c3", metadata="raid1c3")
    assert (profiles()["Data"], profiles()["Metadata"]) == ("RAID1C3", "RAID1C3")
    wanted = {
        "filesystem": pool.label,
        "data": "raid1",
        "metadata": "raid1",
        "less_redundancy": True,
    }
    found = done(host, NOUN, "BalanceBtrfs", **wanted)[-1]
    assert {one.code for one in found.change.warnings} == {"LESS_REDUNDANCY"}
    assert found.progress.unit == "chunks" and found.progress.done == found.progress.total
    assert (profiles()["Data"], profiles()["Metadata"]) == ("RAID1", "RAID1")
    assert not host.call(NOUN, "BalanceBtrfs", **wanted).change.changed
    done(host, NOUN, "RemoveDevice", filesystem=pool.label, device=called(pool.two))
    assert pool.two.device not in run(BTRFS, "filesystem", "show", str(pool.at))
    assert pool.data() == pool.digest


def test_the_commands_say_it_too(host: World, pool: Pool) -> None:
    words = ("storage", "btrfs")
    assert "raid1 24.0" in host.hostler(*words, "list")
    host.hostler("--yes", *words, "create", pool.label, "srv")
    host.hostler("--yes", *words, "snapshot", pool.label, "srv", "srv.1", "--read-only")
    listed = host.hostler(*words, "subvolumes", pool.label)
    assert re.search(r"srv\.1 .*yes +srv ", listed), listed
    host.hostler("--yes", *words, "scrub", pool.label)
    shown = host.hostler(
        "--plan", *words, "replace", pool.label, "--old", called(pool.two), called(pool.spare)
    )
    assert "what the new one holds is lost" in shown
    assert "TOO_FEW" in host.hostler(
        "--yes", *words, "remove", pool.label, called(pool.two), status=1
    )
