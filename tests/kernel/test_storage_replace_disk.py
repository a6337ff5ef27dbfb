"""A disk takes the place of another in a btrfs, on loop devices; btrfs-progs says whether so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from storage_btrfs import BTRFS, SIZE_MIB, Pool, made
from storage_daemon import World, world
from storage_devices import MIB, called, loop, mounted, run
from storage_jobs import begin, done, told

from hostler.api.common.v1 import job_pb2

pytestmark = [pytest.mark.kernel]
NOUN = "disk"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("disk")) as made:
        yield made


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    with made(tmp_path, "-d", "raid1", "-m", "raid1") as pool:
        yield pool


def fates(found: Any) -> list[str]:
    return [f"{one.kind} {one.fate}" for one in found.contents]


def test_a_disk_of_btrfs_is_replaced_to_the_end_once(host: World, pool: Pool) -> None:
    fields = {"old": called(pool.two), "new": called(pool.spare)}
    found = host.call(NOUN, "PlanReplacement", "vera", **fields)
    assert fates(found.replacement) == ["btrfs 1"] and len(found.plan.steps) == 1
    assert "read from only where no other has it" in found.plan.steps[0].description
    assert found.replacement.pull.name == pool.two.name and found.replacement.pull.present
    with pytest.raises(grpc.RpcError) as denied:
        host.call(NOUN, "ReplaceDisk", "vera", change={"validate_only": True}, **fields)
    assert denied.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert host.refusal(lambda: host.call(NOUN, "ReplaceDisk", **fields)) == (
        "DESTROY_TOKEN_REQUIRED"
    )
    jobs = done(host, NOUN, "ReplaceDisk", **fields)
    progress = [one.progress for one in jobs if one.progress.unit == "bytes"]
    assert progress[-1].done == progress[-1].total == SIZE_MIB * MIB
    assert [one.code for one in jobs[-1].change.warnings][-1] == "PULL"
    shown = run(BTRFS, "filesystem", "show", str(pool.at))
    assert pool.spare.device in shown and pool.two.device not in shown
    assert pool.data() == pool.digest
    assert not host.destroy(NOUN, "ReplaceDisk", **fields).change.changed
    assert fates(host.call(NOUN, "PlanReplacement", "vera", **fields).replacement) == ["btrfs 3"]
    said = host.hostler("storage", "replace-disk", fields["old"], fields["new"], "--check")
    assert "SMART_UNKNOWN" in said and f"pull ({pool.two.name})" in said


def test_a_new_disk_that_is_not_empty_is_left_alone_unless_it_may_be_lost(
    host: World, pool: Pool
) -> None:
    run("/usr/sbin/mkfs.ext4", "-q", "-L", "was here", pool.spare.device)
    before = pool.spare.hash()
    fields = {"old": called(pool.two), "new": called(pool.spare)}
    assert host.refusal(lambda: host.call(NOUN, "ReplaceDisk", **fields)) == "REPLACEMENT_REFUSED"
    said = host.hostler(
        *("--plan", "storage", "replace-disk", fields["old"], fields["new"]), status=1
    )
    assert "is not empty: it holds ext4" in said
    with mounted(pool.spare.device, pool.at.with_name("ext4")):
        in_use = {**fields, "erase": True}
        assert host.refusal(lambda: host.call(NOUN, "ReplaceDisk", **in_use)) == (
            "REPLACEMENT_REFUSED"
        )
    run("/usr/sbin/blockdev", "--flushbufs", pool.spare.device)
    assert pool.spare.blkid("LABEL") == "was here" and len(before) == 64
    jobs = done(host, NOUN, "ReplaceDisk", erase=True, **fields)
    assert "CONTENT_LOST" in {one.code for one in jobs[-1].change.warnings}
    assert pool.data() == pool.digest


def test_a_disk_that_is_gone_is_replaced_by_whatever_it_was_called(
    host: World, tmp_path: Path
) -> None:
    with made(tmp_path, "-d", "raid1", "-m", "raid1", is_whole=False) as pool:
        fields = {"old": "ZA1GONE", "new": called(pool.spare)}
        found = host.call(NOUN, "PlanReplacement", "vera", **fields).replacement
        assert not found.pull.present and "ZA1GONE is gone already" in found.pull.words
        done(host, NOUN, "ReplaceDisk", **fields)
        assert "MISSING" not in run(BTRFS, "filesystem", "show", str(pool.at)).upper()
        assert pool.data() == pool.digest
        nothing = {**fields, "new": called(pool.two)}
        assert host.refusal(lambda: host.call(NOUN, "ReplaceDisk", **nothing)) == (
            "DEVICE_NOT_FOUND"
        )


def test_a_new_disk_is_written_and_read_and_is_empty_then(host: World, tmp_path: Path) -> None:
    with loop(tmp_path, "new", 8) as new:
        run("/usr/sbin/mkfs.ext4", "-q", "-L", "was here", new.device)
        with mounted(new.device, tmp_path / "at"):
            used = lambda: host.call(NOUN, "BurnInDisk", disk=called(new))  # noqa: E731
            assert host.refusal(used) == "DEVICE_BUSY"
        jobs = done(host, NOUN, "BurnInDisk", disk=called(new))
        assert [one.code for one in jobs[-1].change.warnings] == ["CONTENT_LOST"]
        progress = [one.progress for one in jobs if one.progress.unit == "bytes"]
        assert progress[-1].done == progress[-1].total == 16 * MIB
        run("/usr/sbin/blockdev", "--flushbufs", new.device)
        content = new.file.read_bytes()
        # Each block of it was written, and no two are the same; its ends are empty.
        blocks = {content[at : at + 4096] for at in range(MIB, 6 * MIB, 4096)}
        assert len(blocks) == 5 * MIB // 4096
        assert not any(content[:MIB]) and not any(content[-MIB:])
        assert not run("/usr/sbin/wipefs", "--noheadings", new.device)
        newest = host.call("filesystem", "ListSaved", "vera").saved[0]
        assert newest.operation == "StartBurnIn" and newest.signatures[0].startswith("ext4 ")


def test_a_disk_that_does_not_keep_what_is_written_fails(host: World, tmp_path: Path) -> None:
    # Its file has no room for more than a part of it.
    options = ("-t", "tmpfs", "-o", "size=16m")
    with mounted("tmpfs", tmp_path / "at", *options) as at, loop(at, "bad", 64) as bad:
        job = told(host, *begin(host, NOUN, "BurnInDisk", disk=called(bad)))[-1]
        assert job.state == job_pb2.JOB_STATE_FAILED, job
        assert job.error.reason == "BURN_IN_FAILED" and "at byte" in job.error.message
