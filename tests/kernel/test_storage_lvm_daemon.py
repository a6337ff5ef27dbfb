"""LVM through the daemon, as far as a kernel without it goes: plans, tokens and refusals."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
from storage_daemon import World, world
from storage_devices import Loop, called, graph, loop, run

from hostler.api.common.v1 import change_pb2

pytestmark = [pytest.mark.kernel]
NOUN = "lvm"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("groups")) as made:
        yield made


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Loop, Loop]]:
    folder = tmp_path_factory.mktemp("disks")
    with loop(folder, "one", 32) as one, loop(folder, "two", 32) as two:
        run("/usr/sbin/mkfs.ext4", "-q", "-L", "was here", one.device)
        yield one, two


def test_a_group_is_planned_for_its_devices_and_what_fails_leaves_them(
    host: World, disks: tuple[Loop, Loop]
) -> None:
    seen = graph()
    names = [called(one, seen) for one in disks]
    before = [one.hash() for one in disks]
    wanted = {"name": "vg", "devices": names}
    planned = host.call(NOUN, "CreateVolumeGroup", change={"validate_only": True}, **wanted).change
    assert planned.outcome == change_pb2.OUTCOME_PLANNED and planned.destroy_token
    (step,) = planned.plan.steps
    assert step.kind == "CreateGroup" and "extents of 4194304 bytes" in step.description
    assert all(name.rpartition("#")[0] in step.description for name in names)
    bare = lambda **more: host.call(NOUN, "CreateVolumeGroup", **wanted, **more)  # noqa: E731
    assert host.refusal(bare) == "DESTROY_TOKEN_REQUIRED"
    with pytest.raises(grpc.RpcError) as denied:
        host.call(NOUN, "CreateVolumeGroup", "olga", change={"validate_only": True}, **wanted)
    assert denied.value.code() is grpc.StatusCode.PERMISSION_DENIED
    # This machine has no LVM: the tool is not there, or the kernel says no.
    options = {"plan_hash": planned.plan.hash, "destroy_token": planned.destroy_token}
    assert host.refusal(lambda: bare(change=options)) in ("TOOL_MISSING", "TOOL_FAILED")
    assert [one.hash() for one in disks] == before


def test_what_is_asked_of_groups_that_are_not_there(host: World) -> None:
    assert list(host.call(NOUN, "ListVolumeGroups", "vera").groups) == []
    assert list(host.call(NOUN, "ListGroupBackups", "vera").backups) == []
    in_group = {"group": "vg"}
    of_volume = {"volume": "vg/lv"}
    for method, fields in {
        "GetVolumeGroup": in_group,
        "ExtendVolumeGroup": {**in_group, "device": "x"},
        "ReduceVolumeGroup": in_group,
        "MovePhysicalVolume": {**in_group, "device": "x"},
        "DeleteVolumeGroup": in_group,
        "CreateVolume": {**in_group, "name": "lv", "kind": 1, "size_bytes": 1},
        "RestoreGroup": in_group,
        "GrowVolume": {**of_volume, "size_bytes": 1},
        "RenameVolume": {**of_volume, "name": "new"},
        "ActivateVolume": of_volume,
        "DeactivateVolume": of_volume,
        "CreateVolumeSnapshot": {**of_volume, "name": "s"},
        "CloneVolume": {**of_volume, "name": "c"},
        "MergeVolumeSnapshot": of_volume,
        "DeleteVolume": of_volume,
        "ReplaceVolumeDevice": {**of_volume, "new": "x"},
    }.items():
        asked = lambda m=method, f=fields: host.call(NOUN, m, **f)  # noqa: E731
        expected = "GROUP_NOT_FOUND" if "group" in fields else "VOLUME_NOT_FOUND"
        assert host.refusal(asked) == expected, method
    odd = lambda: host.call(NOUN, "CreateVolume", group="vg", name="a b", size_bytes=1)  # noqa: E731
    assert host.refusal(odd) == "INVALID_REQUEST"


def test_the_command_says_it_too(host: World, disks: tuple[Loop, Loop]) -> None:
    seen = graph()
    names = [called(one, seen) for one in disks]
    words = ("storage", "lvm", "create-group", "vg", "--extent", "8M", *names)
    shown = host.hostler("--plan", *words)
    assert "make volume group vg, with extents of 8388608 bytes" in shown
    assert disks[0].blkid("LABEL") == "was here"
    odd = ("storage", "lvm", "create-group", "a b", *names)
    assert "INVALID_REQUEST" in host.hostler("--plan", *odd, status=1)
    for argv in (
        ("create", "vg/lv", "--size", "1G", "--kind", "mirror"),
        ("grow", "vg/lv", "--size", "2G"),
        ("rename", "vg/lv", "new"),
        ("activate", "vg/lv"),
        ("deactivate", "vg/lv"),
        ("snapshot", "vg/lv", "s", "--size", "1G"),
        ("clone", "vg/t", "c", "--hostname", "c"),
        ("merge", "vg/s"),
        ("delete", "vg/lv"),
        ("replace", "vg/lv", "x"),
        ("extend", "vg", "x"),
        ("reduce", "vg"),
        ("move", "vg", "x"),
        ("delete-group", "vg"),
        ("restore", "vg", "x"),
    ):
        assert "_NOT_FOUND" in host.hostler("--plan", "storage", "lvm", *argv, status=1)
    assert "GROUP_NOT_FOUND" in host.hostler("storage", "lvm", "get", "vg", status=1)
    for argv in (("list",), ("backups",)):
        assert "HOST" in host.hostler("storage", "lvm", *argv)
