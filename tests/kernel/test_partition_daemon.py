"""Partition tables through the daemon and the command line: plan, token, worker, witness."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from partition_tools import by_sfdisk
from storage_daemon import World, world
from storage_devices import Loop, called, loop, run

from hostler.api.common.v1 import change_pb2

pytestmark = pytest.mark.kernel
NOUN = "partition"
WHOLE = """
kind = "gpt"
[[partitions]]
number = 1
size_bytes = 8_388_608
type = "efi"
name = "boot"
[[partitions]]
number = 2
name = "root"
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("storage")) as made:
        yield made


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Loop]:
    with loop(tmp_path, "disk", 32, "--partscan") as made:
        yield made


def names(one: Loop) -> list[str]:
    return [row["name"] for row in by_sfdisk(one.device)["partitions"]]


def test_a_table_is_changed_by_its_plan_and_its_token(host: World, disk: Loop) -> None:
    device = called(disk)
    wanted = {
        "device": device,
        "table": {"kind": "TABLE_KIND_GPT", "partitions": [{"number": 1, "name": "one"}]},
    }
    before = disk.hash()
    planned = host.call(NOUN, "ApplyTable", change={"validate_only": True}, **wanted)
    assert planned.change.outcome == change_pb2.OUTCOME_PLANNED
    assert "add partition 1 (sectors 2048 to" in planned.change.plan.steps[0].description
    options = {"plan_hash": planned.change.plan.hash}
    again = lambda **more: host.call(NOUN, "ApplyTable", change={**options, **more}, **wanted)  # noqa: E731
    assert host.refusal(again) == "DESTROY_TOKEN_REQUIRED"
    with pytest.raises(grpc.RpcError) as denied:
        host.call(NOUN, "ApplyTable", "olga", change={"validate_only": True}, **wanted)
    assert denied.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert disk.hash() == before
    token = planned.change.destroy_token
    assert again(destroy_token=token).change.outcome == change_pb2.OUTCOME_APPLIED
    assert names(disk) == ["one"]
    assert not host.destroy(NOUN, "ApplyTable", **wanted).change.changed
    seen = host.call(NOUN, "GetTable", "vera", device=device).table
    (row,) = by_sfdisk(disk.device)["partitions"]
    (part,) = seen.partitions
    assert (part.start_sector, part.size_sectors, part.uuid) == (
        *(row["start"], row["size"]),
        row["uuid"],
    )
    assert (seen.id, seen.primary.good, seen.backup.good) == (
        by_sfdisk(disk.device)["id"],
        *(True, True),
    )
    # A table that somebody else has changed is not the one of the plan.
    edit = {"device": device, "edits": [{"delete": 1}]}
    planned = host.call(NOUN, "ApplyTable", change={"validate_only": True}, **edit)
    quiet = ("--quiet", "--no-reread", "--no-tell-kernel")
    run("/usr/sbin/sfdisk", *quiet, "--part-label", disk.device, "1", "other")
    options = {
        "plan_hash": planned.change.plan.hash,
        "destroy_token": planned.change.destroy_token,
    }
    stale = lambda: host.call(NOUN, "ApplyTable", change=options, **edit)  # noqa: E731
    assert host.refusal(stale) == "PLAN_CHANGED"
    assert names(disk) == ["other"]


def test_by_the_command_line(host: World, disk: Loop, tmp_path: Path) -> None:
    device, file, kept = called(disk), tmp_path / "disk.toml", tmp_path / "kept"
    file.write_text(WHOLE)
    table = ("storage", "table")
    change = ("--yes", *table)
    host.hostler(*change, "apply", device, "-f", str(file))
    assert names(disk) == ["boot", "root"]
    assert "in " + str(kept) in host.hostler(*table, "backup", device, str(kept))
    assert "has the table of" in host.hostler(*table, "verify", str(kept), device)
    whole = disk.hash()
    resized = ("--resize", "2=4M", "--name", "2=small", "--delete", "1", "--add", "size=max,name=x")
    plan = host.hostler("--plan", *table, "apply", device, *resized)
    assert "shrinks from" in plan
    assert disk.hash() == whole
    host.hostler(*change, "apply", device, *resized)
    assert sorted(names(disk)) == ["small", "x"]
    shown = host.hostler(*table, device)
    assert "small" in shown
    assert "partition 2 is another one" in host.hostler(
        *table, "verify", str(kept), device, status=1
    )
    host.hostler(*change, "restore", str(kept), device)
    assert disk.hash() == whole
    with loop(tmp_path, "new", 48, "--partscan") as new:
        host.hostler(*change, "copy", called(new), "--from", device)
        assert names(new) == ["boot", "root"]
        assert by_sfdisk(new.device)["id"] != by_sfdisk(disk.device)["id"]
        host.hostler(*change, "copy", called(new), "--from-file", str(kept), "--keep-ids")
        assert by_sfdisk(new.device)["id"] == by_sfdisk(disk.device)["id"]
    with loop(tmp_path, "small", 16, "--partscan") as small:
        told = host.hostler(*change, "copy", called(small), "--from", device, status=1)
        assert "partition 2 ends at" in told
    assert disk.hash() == whole


def test_what_is_wrong_with_a_table_is_told(host: World, disk: Loop) -> None:
    run("/usr/sbin/sgdisk", "-n", "1:2048:+4M", disk.device)
    with disk.file.open("r+b") as file:
        file.seek(-512, 2)
        file.write(bytes(512))
    run("/usr/sbin/blockdev", "--flushbufs", disk.device)
    told = host.hostler("storage", "table", called(disk), status=1)
    assert "GPT_BACKUP" in told
    assert host.refusal(lambda: host.call(NOUN, "GetTable", device=disk.name)) == (
        "DEVICE_NAME_NOT_LASTING"
    )
    broken = lambda: host.call(NOUN, "RestoreTable", device=called(disk), backup=b"x")  # noqa: E731
    assert host.refusal(broken) == "INVALID_REQUEST"
