"""What the worker refuses to do to arrays, on loop devices; what it does, see tests/vm."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from storage_devices import MIB, Loop, fields, loop, mounted, run, target, worker

from hostlerd.runtime.errors import InvalidRequest
from hostlerd.storage import errors
from hostlerd.storage.kernel.worker_client import Worker
from hostlerd.storage.model.array_steps import (
    AddMember,
    AssembleArray,
    CreateArray,
    DiscardArray,
    FailMember,
    RemoveDetached,
    ReplaceMember,
    ReshapeArray,
    ResumeArray,
    SetSyncAction,
    StopArray,
    ZeroMember,
)

pytestmark = pytest.mark.kernel
UUID = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
WORDS = ("", "a b", "../x", "a/b", "-x", "x" * 25, "a\n", "d\u00e4ta", "$(reboot)", "--run")


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with worker(tmp_path_factory.mktemp("md")) as made:
        yield made


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Loop, Loop]]:
    folder = tmp_path_factory.mktemp("disks")
    with loop(folder, "one", 32) as one, loop(folder, "two", 32) as two:
        run("/usr/sbin/mkfs.ext4", "-q", one.device)
        yield one, two


def mirror(disks: tuple[Loop, Loop], **more: object) -> CreateArray:
    made = CreateArray("data", "raid1", tuple(target(one) for one in disks), bitmap=True)
    return replace(made, **more)  # type: ignore[arg-type]


def test_devices_of_an_array_that_cannot_be_made_are_as_they_were(
    asked: Worker, disks: tuple[Loop, Loop]
) -> None:
    """The machine of the tests has no md, in its kernel or at all."""
    before = [one.hash() for one in disks]
    with pytest.raises((errors.ToolMissing, errors.ToolFailed)):
        asked.apply(mirror(disks))
    assert [one.hash() for one in disks] == before and disks[0].blkid("TYPE") == "ext4"


def test_a_device_in_use_is_not_made_a_member(
    asked: Worker, disks: tuple[Loop, Loop], tmp_path: Path
) -> None:
    step = mirror(disks)
    with mounted(disks[0].device, tmp_path / "at"):
        with pytest.raises(errors.DeviceBusy) as busy:
            asked.apply(step)
        assert busy.value.metadata["device"] == target(disks[0]).id
    run("/usr/sbin/mkfs.ext4", "-q", "-F", disks[0].device)
    with pytest.raises(errors.SignaturesChanged):
        asked.apply(step)


def test_words_that_are_none_of_mds_reach_no_tool(asked: Worker, disks: tuple[Loop, Loop]) -> None:
    whole = mirror(disks)
    for field in ("name", "level", "layout"):
        for words in WORDS if field != "layout" else WORDS[1:]:
            with pytest.raises(InvalidRequest) as refused:
                asked.apply(replace(whole, **{field: words}))  # type: ignore[arg-type]
            assert [one.field for one in refused.value.violations] == [field]


def test_a_device_is_a_member_once(asked: Worker, disks: tuple[Loop, Loop]) -> None:
    before = disks[0].hash()
    for step in (mirror((disks[0], disks[0])), mirror(disks, spares=(target(disks[1]),))):
        with pytest.raises(errors.DomainError) as refused:
            asked.apply(step)
        assert "twice" in refused.value.message
    assert disks[0].hash() == before


def test_what_is_no_array_is_taken_for_none(asked: Worker, disks: tuple[Loop, Loop]) -> None:
    one, other = (target(each) for each in disks)
    before = [each.hash() for each in disks]
    for step in (
        AddMember(one, UUID, other),
        FailMember(one, UUID, other),
        RemoveDetached(one, UUID, ("sda",)),
        ReplaceMember(one, UUID, other, replace(other)),
        ReshapeArray(one, UUID, 3),
        ResumeArray(one, UUID),
        SetSyncAction(one, UUID, "check"),
        StopArray(one, UUID, "data", (other,)),
        DiscardArray(one, UUID),
    ):
        with pytest.raises(errors.DomainError) as refused:
            asked.apply(step)
        assert refused.value.reason in ("DEVICE_CHANGED", "INVALID_REQUEST", "WORKER_REFUSED")
    assert [each.hash() for each in disks] == before


def test_a_device_of_another_name_or_size_is_not_zeroed(
    asked: Worker, disks: tuple[Loop, Loop]
) -> None:
    before = disks[0].hash()
    for wrong in ({"size_bytes": 64 * MIB}, {"number": "9:127"}, {"disk_sequence": 1}):
        with pytest.raises(errors.DeviceChanged):
            asked.apply(ZeroMember(replace(target(disks[0]), **wrong)))
    assert disks[0].hash() == before


def test_no_field_is_left_out_or_added(asked: Worker, disks: tuple[Loop, Loop]) -> None:
    whole = fields(AssembleArray(UUID, "data", (target(disks[0]),)))
    for key in whole:
        with pytest.raises(InvalidRequest):
            asked.ask("AssembleArray", {k: v for k, v in whole.items() if k != key})
    with pytest.raises(InvalidRequest):
        asked.ask("AssembleArray", {**whole, "force": True})
    with pytest.raises(InvalidRequest):
        asked.ask("AssembleArray", {**whole, "uuid": "any"})
