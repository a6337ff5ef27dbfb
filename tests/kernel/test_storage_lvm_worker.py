"""What the worker refuses to do with LVM, on loop devices; what it does, see tests/vm."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from storage_devices import Loop, fields, loop, mounted, run, target, worker

from hostlerd.runtime.errors import InvalidRequest
from hostlerd.storage import errors
from hostlerd.storage.errors import volumes
from hostlerd.storage.kernel.worker_client import Worker
from hostlerd.storage.model.lvm_steps import CreateGroup, ExtendGroup, ReduceGroup, RemoveGroup
from hostlerd.storage.model.lvm_volume_steps import CreateVolume, DeleteVolume, RenameVolume

pytestmark = pytest.mark.kernel
UUID = "IpLvZh-Dp0g-8GMe-v87q-K5Ya-1pYp-4CiQ1R"
WORDS = ("", "a b", "../x", "a/b", "-x", "x" * 128, "a\n", "d\u00e4ta", "$(reboot)", "--yes")
# The machine of the tests has no LVM, in its kernel or at all.
WITHOUT_LVM = (errors.ToolMissing, errors.ToolFailed, volumes.GroupChanged)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with worker(tmp_path_factory.mktemp("lvm")) as made:
        yield made


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Loop, Loop]]:
    folder = tmp_path_factory.mktemp("disks")
    with loop(folder, "one", 32) as one, loop(folder, "two", 32) as two:
        run("/usr/sbin/mkfs.ext4", "-q", one.device)
        yield one, two


def group(disks: tuple[Loop, Loop]) -> CreateGroup:
    return CreateGroup("vg", tuple(target(one) for one in disks), 4 << 20)


def volume(disks: tuple[Loop, Loop], **more: Any) -> CreateVolume:
    devices = (target(disks[0]),)
    made = CreateVolume("vg", UUID, 1, 0, devices, "lv", "linear", 4, (devices[0].number,))
    return replace(made, **more)


def test_devices_of_a_group_that_cannot_be_made_are_as_they_were(
    asked: Worker, disks: tuple[Loop, Loop]
) -> None:
    before = [one.hash() for one in disks]
    with pytest.raises((errors.ToolMissing, errors.ToolFailed)) as told:
        asked.apply(group(disks))
    assert told.value.metadata["tool"] == "lvm"
    assert [one.hash() for one in disks] == before and disks[0].blkid("TYPE") == "ext4"


def test_a_device_in_use_comes_into_no_group(
    asked: Worker, disks: tuple[Loop, Loop], tmp_path: Path
) -> None:
    one, other = (target(each) for each in disks)
    with mounted(disks[0].device, tmp_path / "at") as place:
        for step in (group(disks), ExtendGroup("vg", UUID, 1, 0, (other,), one)):
            with pytest.raises(errors.DeviceBusy, match=f"mounted on {place}") as busy:
                asked.apply(step)
            assert busy.value.metadata["device"] == one.id
    run("/usr/sbin/mkfs.ext4", "-q", "-F", disks[0].device)
    with pytest.raises(errors.SignaturesChanged):
        asked.apply(replace(group(disks), devices=(one, other)))


def test_words_that_are_none_of_lvms_reach_no_tool(asked: Worker, disks: tuple[Loop, Loop]) -> None:
    for words in WORDS:
        for step in (
            replace(group(disks), group=words),
            volume(disks, volume=words),
            volume(disks, uuid=words),
            RenameVolume("vg", UUID, 1, 0, (target(disks[0]),), "lv", UUID, words),
        ):
            with pytest.raises(InvalidRequest):
                asked.apply(step)
    for more in (
        {"kind": "raid5"},
        {"extents": 0},
        {"numbers": ("sda",)},
        {"parts": 0},
        {"pool": "-x"},
        {"missing": -1},
        {"devices": ()},
    ):
        with pytest.raises(InvalidRequest):
            asked.apply(volume(disks, **more))


def test_a_device_is_in_a_group_once(asked: Worker, disks: tuple[Loop, Loop]) -> None:
    one = target(disks[0])
    for step in (
        CreateGroup("vg", (one, one), 4 << 20),
        ExtendGroup("vg", UUID, 1, 0, (one,), one),
    ):
        with pytest.raises(errors.DomainError, match="twice"):
            asked.apply(step)


def test_what_is_no_group_is_taken_for_none(asked: Worker, disks: tuple[Loop, Loop]) -> None:
    one, other = (target(each) for each in disks)
    before = [each.hash() for each in disks]
    for step in (
        ExtendGroup("vg", UUID, 1, 0, (one,), other),
        ReduceGroup("vg", UUID, 1, 0, (one,), one.number),
        RemoveGroup("vg", UUID, 1, 0, (one, other)),
        volume(disks),
        DeleteVolume("vg", UUID, 1, 0, (one,), "lv", UUID),
    ):
        with pytest.raises(WITHOUT_LVM):
            asked.apply(step)
    assert [each.hash() for each in disks] == before
    assert asked.ask("ListGroupBackups", {}) == {"items": []}
    assert asked.ask("LookLvm", {"devices": []}) == {"reports": []}


def test_another_device_is_not_touched(asked: Worker, disks: tuple[Loop, Loop]) -> None:
    one = target(disks[0])
    for wrong in ({"size_bytes": 64 << 20}, {"number": "253:127"}, {"disk_sequence": 1}):
        with pytest.raises(errors.DeviceChanged):
            asked.apply(CreateGroup("vg", (replace(one, **wrong),), 4 << 20))


def test_no_field_is_left_out_or_added(asked: Worker, disks: tuple[Loop, Loop]) -> None:
    whole = fields(volume(disks))
    for key in whole:
        with pytest.raises(InvalidRequest):
            asked.ask("CreateVolume", {k: v for k, v in whole.items() if k != key})
    with pytest.raises(InvalidRequest):
        asked.ask("CreateVolume", {**whole, "force": True})
