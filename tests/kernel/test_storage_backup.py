"""Backups with the real restic: restored as they were, and no damage that a drill passes over."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from hosts_witness import eventually
from storage_backups import (
    SECRET,
    backup_world,
    definition,
    described,
    get,
    odd_tree,
    secret,
    settled,
)
from storage_daemon import World
from storage_devices import attach, mounted, run
from storage_programs import running_job

from hostler.api.common.v1 import job_pb2, job_pb2_grpc

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]
NOUN = "backup"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with backup_world(tmp_path_factory.mktemp("backups")) as made:
        yield made


@pytest.fixture
def place(tmp_path: Path) -> Path:
    secret(tmp_path)
    (tmp_path / "tree").mkdir()
    return tmp_path


def job(host: World, method: str, **fields: Any) -> Any:
    """Have something done as a job; answer the job when it is over."""
    name = host.call(NOUN, method, change={"job": True}, **fields).change.job
    with host.daemon.channel("alice") as channel, running_job(host) as process:
        stub = job_pb2_grpc.JobServiceStub(channel)
        # Somebody watches: a daemon that nobody calls for a minute goes.
        eventually(lambda: stub.ListJobs(job_pb2.ListJobsRequest()) and process.poll() == 0, 90)
        return stub.GetJob(job_pb2.GetJobRequest(name=name), timeout=30).job


def test_an_odd_tree_is_restored_as_it_was(host: World, place: Path) -> None:
    odd_tree(place / "tree")
    wanted = definition(place, "odd")
    planned = host.call(NOUN, "ApplyBackup", backup=wanted, change={"validate_only": True}).change
    assert planned.changed and [one.code for one in planned.warnings] == ["BACKUP_NOT_SCHEDULED"]
    assert not list((host.place / "worker-state").glob("backups/odd.json"))
    assert host.call(NOUN, "ApplyBackup", backup=wanted).change.changed
    assert not host.call(NOUN, "ApplyBackup", backup=wanted).change.changed
    codes = [one.code for one in get(host, "odd").warnings]
    assert codes == ["BACKUP_NEVER_RUN", "NEVER_DRILLED"]
    time.sleep(0.1)
    before = described(place / "tree")
    ran = settled(host, "RunBackup", name="odd")
    assert not ran.last_run.reason, ran.last_run.message
    assert [one.code for one in ran.warnings] == ["NEVER_DRILLED"]
    (snapshot,) = host.call(NOUN, "ListSnapshots", "vera", name="odd").snapshots
    assert snapshot.id[:8] == ran.last_good_run.snapshot
    target = place / "back"
    host.call(NOUN, "RestoreBackup", name="odd", snapshot=snapshot.id[:8], target=str(target))
    eventually(lambda: not get(host, "odd").busy, 60)
    restored = Path(f"{target}{place}/tree")
    assert described(restored) == before
    drilled = settled(host, "DrillBackup", name="odd", full=True)
    assert not drilled.last_drill.reason, drilled.last_drill.message
    assert drilled.last_good_full_drill.files == len(before) - 1 - 3
    assert not drilled.warnings
    assert not list((host.place / "restore-state/drills").iterdir())
    # It is not restored over what is there.
    again = lambda: host.call(NOUN, "RestoreBackup", name="odd", target=str(place / "tree/x"))  # noqa: E731
    assert host.refusal(again) == "INVALID_REQUEST"


def repository_files(place: Path) -> list[Path]:
    """All files of a repository; none of them may be damaged unseen."""
    found = [one for one in (place / "repository").rglob("*") if one.is_file()]
    kinds = {one.relative_to(place / "repository").parts[0] for one in found}
    assert kinds == {"config", "keys", "snapshots", "index", "data"}, kinds
    return sorted(found)


def test_a_byte_that_is_another_in_any_file_of_the_repository_fails_the_drill_by_name(
    host: World, place: Path
) -> None:
    name = "damaged"
    (place / "tree/words").write_text("what was backed up\n" * 100)
    (place / "tree/noise").write_bytes(os.urandom(200_000))
    host.call(NOUN, "ApplyBackup", backup=definition(place, name))
    # A second run, so that packs, indexes and snapshots are there that the latest does not need.
    settled(host, "RunBackup", name=name)
    (place / "tree/noise").write_bytes(os.urandom(200_000))
    time.sleep(0.1)
    assert not settled(host, "RunBackup", name=name).last_run.reason
    whole = settled(host, "DrillBackup", name=name, full=True).last_drill
    assert not whole.reason, whole.message
    assert whole.files == 2
    files = repository_files(place)
    for at, file in enumerate(files):
        content, mode = file.read_bytes(), file.stat().st_mode
        file.chmod(0o600)
        position = (0, len(content) // 2, len(content) - 1)[at % 3]
        if file.parent.name == "keys":
            # Of all that is there, this restic itself passes over.
            position = content.index(b'"hostname":"') + len(b'"hostname":"')
        with file.open("r+b") as opened:
            opened.seek(position)
            opened.write(bytes([content[position] ^ 1 << at % 8]))
        short = str(file.relative_to(place / "repository"))
        seen = settled(host, "DrillBackup", name=name, full=True)
        assert seen.last_drill.reason == "DRILL_FAILED", (short, position, seen.last_drill)
        assert short in seen.last_drill.message
        assert "DRILL_FAILED" in [one.code for one in seen.warnings]
        # What was proven before is not forgotten over it.
        assert seen.last_good_full_drill.start_time == whole.start_time
        file.write_bytes(content)
        file.chmod(mode)
    again = settled(host, "DrillBackup", name=name, full=True)
    assert not again.last_drill.reason and not again.warnings
    print(f"\n{len(files)} files of a repository, each damaged in a byte")


def test_a_job_follows_a_drill_and_fails_with_it(host: World, place: Path) -> None:
    name = "followed"
    (place / "tree/noise").write_bytes(os.urandom(100_000))
    host.call(NOUN, "ApplyBackup", backup=definition(place, name))
    ran = job(host, "RunBackup", name=name)
    assert ran.state == job_pb2.JOB_STATE_SUCCEEDED, ran
    drilled = job(host, "DrillBackup", name=name, sample_files=5)
    assert drilled.state == job_pb2.JOB_STATE_SUCCEEDED, drilled
    assert not host.call(NOUN, "GetBackup", name=name).backup.HasField("last_good_full_drill")
    # The pack that has the file's contents. (Where one is gone, restic tries for half a minute.)
    largest = max(repository_files(place), key=lambda one: one.stat().st_size)
    largest.chmod(0o600)
    largest.write_bytes(largest.read_bytes()[:-1])
    failed = job(host, "DrillBackup", name=name, full=True)
    assert failed.state == job_pb2.JOB_STATE_FAILED
    assert "DRILL_FAILED" in str(failed)
    assert largest.name[:8] in str(failed)


def test_a_live_file_that_was_changed_behind_the_back_of_its_times_fails_the_drill(
    host: World, place: Path
) -> None:
    name = "silent"
    file = place / "tree/file"
    disk = place / "disk"
    with disk.open("wb") as opened:
        opened.truncate(16 << 20)
    run("/usr/sbin/mkfs.ext4", "-q", str(disk))
    with filesystem(disk, place / "tree"):
        file.write_bytes(b"a" * 1000)
        (place / "tree/other").write_bytes(b"b" * 1000)
        time.sleep(0.1)
        host.call(NOUN, "ApplyBackup", backup=definition(place, name))
        assert not settled(host, "RunBackup", name=name).last_run.reason
        # What is changed with its times is another file by now, and no fault of the backup.
        (place / "tree/other").write_bytes(b"c" * 1000)
        assert not settled(host, "DrillBackup", name=name, full=True).last_drill.reason
    at = disk.read_bytes().index(b"a" * 1000)
    with disk.open("r+b") as opened:
        opened.seek(at + 500)
        opened.write(b"x")
    with filesystem(disk, place / "tree"):
        failed = settled(host, "DrillBackup", name=name, full=True).last_drill
    assert failed.reason == "DRILL_FAILED"
    assert f"'{file}': has other contents" in failed.message


@contextmanager
def filesystem(disk: Path, at: Path) -> Iterator[None]:
    """Mount what a file holds, by a loop device that is gone afterwards."""
    device = attach(disk)
    try:
        with mounted(device, at):
            yield
            # Who has taken a copy of all mounts meanwhile keeps this one, and nothing is written.
            run("/usr/bin/sync", "--file-system", str(at))
    finally:
        run("/usr/sbin/losetup", "--detach", device)


def test_what_is_not_well_is_refused_or_told(host: World, place: Path) -> None:
    name = "wrong"
    wanted = definition(place, name)
    faults = {**wanted, "paths": ["relative"], "repository": "ftp://x", "excludes": ["!x"]}
    with pytest.raises(grpc.RpcError) as refused:
        host.call(NOUN, "ApplyBackup", backup=faults)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    words = refused.value.details()
    assert all(field in words for field in ("paths[0]", "repository", "excludes[0]"))
    with pytest.raises(grpc.RpcError) as denied:
        host.call(NOUN, "ApplyBackup", "olga", backup=wanted)
    assert denied.value.code() is grpc.StatusCode.PERMISSION_DENIED
    host.call(NOUN, "ApplyBackup", backup=wanted)
    (place / "tree/file").write_text("x")
    (place / "password").chmod(0o644)
    assert settled(host, "RunBackup", name=name).last_run.reason == "SECRET_UNUSABLE"
    (place / "password").chmod(0o600)
    assert not settled(host, "RunBackup", name=name).last_run.reason
    # A repository that is gone, as with a disk that is not mounted, is not made anew.
    (place / "repository").rename(place / "elsewhere")
    assert settled(host, "RunBackup", name=name).last_run.reason == "REPOSITORY_MISSING"
    assert not (place / "repository").exists()
    assert settled(host, "DrillBackup", name=name, full=True).last_drill.reason
    (place / "elsewhere").rename(place / "repository")
    (place / "full").mkdir()
    (place / "full/file").write_text("mine")
    host.call(NOUN, "RestoreBackup", name=name, target=str(place / "full"))
    eventually(lambda: not get(host, name).busy, 60)
    assert [one.name for one in (place / "full").iterdir()] == ["file"]
    assert host.refusal(lambda: host.call(NOUN, "RunBackup", name="none")) == "BACKUP_NOT_FOUND"
    # Not a word of the password anywhere that is told or kept.
    told = [str(get(host, name)), *(p.read_text() for p in host.place.rglob("*.json"))]
    told += [p.read_text(errors="replace") for p in host.place.rglob("*.jsonl")]
    assert len(told) > 3 and not any(SECRET in text for text in told)
    assert host.call(NOUN, "DeleteBackup", name=name).change.changed
    assert not host.call(NOUN, "DeleteBackup", name=name).change.changed
    assert (place / "repository/config").exists()
