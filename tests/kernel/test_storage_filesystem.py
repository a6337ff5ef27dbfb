"""Filesystems through the daemon: plan, token, worker, and what is told of it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from hosts_witness import eventually
from storage_daemon import World, world
from storage_devices import MIB, Loop, called, loop, mounted, run

from hostler.api.common.v1 import change_pb2
from hostler.api.storage.v1 import filesystem_pb2, filesystem_pb2_grpc

pytestmark = [pytest.mark.kernel]
UUID = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
NOUN = "filesystem"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("storage")) as made:
        yield made


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Loop]:
    with loop(tmp_path, "disk", 32) as made:
        yield made


def test_a_filesystem_is_made_by_its_plan_and_its_token(host: World, disk: Loop) -> None:
    run("/usr/sbin/mkswap", "--label", "was here", disk.device)
    before, wanted = disk.hash(), {"device": called(disk), "type": "ext4", "uuid": UUID}
    planned = host.call(NOUN, "MakeFilesystem", change={"validate_only": True}, **wanted).change
    assert planned.outcome == change_pb2.OUTCOME_PLANNED
    (lost,) = [one.message for one in planned.warnings if one.code == "CONTENT_LOST"]
    assert "holds swap" in lost and "'was here'" in lost
    options = {"plan_hash": planned.plan.hash}
    again = lambda **more: host.call(NOUN, "MakeFilesystem", change={**options, **more}, **wanted)  # noqa: E731
    assert host.refusal(again) == "DESTROY_TOKEN_REQUIRED"
    with pytest.raises(grpc.RpcError) as denied:
        host.call(NOUN, "MakeFilesystem", "olga", change={"validate_only": True}, **wanted)
    assert denied.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert disk.hash() == before
    done = again(destroy_token=planned.destroy_token)
    assert (done.change.outcome, done.uuid) == (change_pb2.OUTCOME_APPLIED, UUID)
    assert (disk.blkid("TYPE"), disk.blkid("UUID")) == ("ext4", UUID)
    # The same once more is there already.
    assert not host.destroy(NOUN, "MakeFilesystem", **wanted).change.changed
    kept = [one for one in host.call(NOUN, "ListSaved", "vera").saved if one.name == done.saved]
    assert [one.signatures[0].split()[0] for one in kept] == ["swap"]
    restored = host.destroy(NOUN, "RestoreSaved", device=called(disk), saved=done.saved)
    assert disk.blkid("LABEL") == "was here"
    assert [one.split()[0] for one in restored.signatures] == ["swap"]


def test_a_token_is_for_the_device_and_not_for_its_name(
    host: World, disk: Loop, tmp_path: Path
) -> None:
    wanted = {"device": called(disk), "type": "ext4"}
    planned = host.call(NOUN, "MakeFilesystem", change={"validate_only": True}, **wanted).change
    other = tmp_path / "other"
    other.write_bytes(os.urandom(32 * MIB))
    run("/usr/sbin/losetup", "--detach", disk.device)
    run("/usr/sbin/losetup", disk.device, str(other))
    held = other.read_bytes()
    options = {"plan_hash": planned.plan.hash, "destroy_token": planned.destroy_token}
    again = lambda **at: host.call(NOUN, "MakeFilesystem", change=options, type="ext4", **at)  # noqa: E731
    assert host.refusal(lambda: again(device=wanted["device"])) == "DEVICE_NOT_FOUND"
    assert host.refusal(lambda: again(device=called(disk))) == "PLAN_CHANGED"
    assert other.read_bytes() == held


def test_a_label_is_changed_and_a_check_says_what_is_wrong(
    host: World, disk: Loop, tmp_path: Path
) -> None:
    run("/usr/sbin/mkfs.ext4", "-q", "-U", UUID, disk.device)
    with mounted(disk.device, tmp_path / "at"):
        host.call(NOUN, "SetLabel", "olga", device=UUID, label="new")
        assert not host.call(NOUN, "SetLabel", "olga", device=UUID, label="new").change.changed
        busy = lambda: host.call(NOUN, "CheckFilesystem", "vera", device=UUID)  # noqa: E731
        assert host.refusal(busy) == "DEVICE_BUSY"
        wipe = lambda: host.destroy(NOUN, "WipeSignatures", device=UUID)  # noqa: E731
        assert host.refusal(wipe) == "DEVICE_BUSY"
    assert disk.blkid("LABEL") == "new"
    assert host.call(NOUN, "CheckFilesystem", "vera", device=UUID).clean
    run("/usr/sbin/debugfs", "-w", "-R", "set_inode_field <2> links_count 9", disk.device)
    before = disk.hash()
    checked = host.call(NOUN, "CheckFilesystem", "vera", device=UUID)
    assert not checked.clean and "ref count is 9" in checked.said
    assert disk.hash() == before


def test_a_filesystem_grows_once(host: World, tmp_path: Path) -> None:
    with loop(tmp_path, "one", 16) as one:
        run("/usr/sbin/mkfs.ext4", "-q", "-U", UUID, one.device)
        assert not host.call(NOUN, "GrowFilesystem", "olga", device=UUID).change.changed
        with one.file.open("ab") as file:
            file.truncate(64 * MIB)
        run("/usr/sbin/losetup", "--set-capacity", one.device)
        assert host.call(NOUN, "GrowFilesystem", "olga", device=UUID).change.changed
        assert not host.call(NOUN, "GrowFilesystem", "olga", device=UUID).change.changed
        with mounted(one.device, tmp_path / "at") as place:
            found = os.statvfs(place)
        assert found.f_blocks * found.f_frsize > 56 * MIB
    with loop(tmp_path, "pool", 128) as pool:
        run("/usr/sbin/mkfs.btrfs", "-q", "-U", UUID, pool.device)
        with pool.file.open("ab") as file:
            file.truncate(256 * MIB)
        run("/usr/sbin/losetup", "--set-capacity", pool.device)
        grow = lambda: host.call(NOUN, "GrowFilesystem", "olga", device=UUID)  # noqa: E731
        assert host.refusal(grow) == "NOT_MOUNTED"
        with mounted(pool.device, tmp_path / "at") as place:
            assert grow().change.changed
            run("/usr/bin/btrfs", "filesystem", "sync", str(place))
            assert not grow().change.changed
            assert f"{256 * MIB}" in run("/usr/bin/btrfs", "filesystem", "usage", "-b", str(place))


def test_a_daemon_that_dies_leaves_the_worker_to_finish_and_the_next_one_says_so(
    host: World, disk: Loop
) -> None:
    wanted = {"device": called(disk), "type": "ext4", "uuid": UUID}
    planned = host.call(NOUN, "MakeFilesystem", change={"validate_only": True}, **wanted).change
    options = {
        "plan_hash": planned.plan.hash,
        "destroy_token": planned.destroy_token,
        "request_id": UUID,
    }
    request = filesystem_pb2.MakeFilesystemRequest(change=options, **wanted)
    with disk.locked(), host.daemon.channel("alice") as channel:
        stub = filesystem_pb2_grpc.FilesystemServiceStub(channel)
        call = stub.MakeFilesystem.future(request, timeout=60, wait_for_ready=True)
        # The worker has it, and waits for the lock.
        eventually(lambda: disk.device in open_files(host.worker.pid))
        host.daemon.process.kill()
        host.daemon.process.wait()
        call.cancel()
    host.daemon.kill_and_start()
    eventually(lambda: disk.blkid("UUID") == UUID)
    retried = host.call(NOUN, "MakeFilesystem", change=options, **wanted).change
    assert retried.outcome == change_pb2.OUTCOME_UNKNOWN
    assert [one.code for one in retried.warnings] == ["CHANGE_INTERRUPTED"]
    # Asked anew, it is there.
    assert not host.destroy(NOUN, "MakeFilesystem", **wanted).change.changed


def open_files(pid: int) -> set[str]:
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            found.add(str(entry.readlink()))
    return found


def test_the_command_shows_the_plan_and_does_it(host: World, disk: Loop) -> None:
    words = ("make", called(disk), "ext4", "--label", "spare", "--uuid", UUID)
    shown = host.hostler("--plan", "storage", "filesystem", *words)
    assert "what it holds is lost" in shown and disk.name in shown
    assert disk.blkid("TYPE") == ""
    host.hostler("--yes", "storage", "filesystem", *words)
    assert (disk.blkid("TYPE"), disk.blkid("LABEL")) == ("ext4", "spare")
    assert "clean" in host.hostler("storage", "filesystem", "check", UUID)
    host.hostler("--yes", "storage", "filesystem", "grow", UUID)
    host.hostler("--yes", "storage", "filesystem", "label", UUID, "")
    assert disk.blkid("LABEL") == ""
    host.hostler("--yes", "storage", "filesystem", "wipe", UUID)
    told = json.loads(host.hostler("-o", "json", "storage", "saved", "list"))
    newest = told[0]["result"]["saved"][0]
    assert newest["operation"] == "WipeSignatures"
    assert newest["name"] in host.hostler("storage", "saved", "list")
    host.hostler("--yes", "storage", "saved", "restore", called(disk), newest["name"])
    assert disk.blkid("UUID") == UUID
    refused = host.hostler("--yes", "storage", "filesystem", "wipe", disk.device, status=1)
    assert f"say {called(disk)}" in refused
    run("/usr/sbin/debugfs", "-w", "-R", "set_inode_field <2> links_count 9", disk.device)
    assert "FAULTS" in host.hostler("storage", "filesystem", "check", UUID, status=1)
