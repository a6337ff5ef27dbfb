"""What the worker does to devices, and what it refuses, on loop devices of the test."""

from __future__ import annotations

import json
import os
import socket
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from storage_devices import MIB, Loop, attach, fields, loop, mounted, run, target, worker

from hostlerd.runtime.errors import InvalidRequest
from hostlerd.storage import errors
from hostlerd.storage.kernel.worker_client import Worker
from hostlerd.storage.model.filesystem_steps import (
    GrowFilesystem,
    MakeFilesystem,
    RestoreSaved,
    SetLabel,
    WipeSignatures,
)
from hostlerd.storage.model.target import Slice
from hostlerd.storage.worker.identity import opened
from hostlerd.storage.worker.refused import Refused

pytestmark = pytest.mark.kernel
UUID = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("worker")


@pytest.fixture(scope="module")
def asked(place: Path) -> Iterator[Worker]:
    with worker(place) as made:
        yield made


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Loop]:
    with loop(tmp_path, "disk", 32) as made:
        yield made


@pytest.mark.parametrize(
    ("kind", "size_mib", "uuid"),
    [
        ("ext4", 32, UUID),
        ("btrfs", 128, UUID),
        ("xfs", 320, UUID),
        ("vfat", 32, "1234-ABCD"),
        ("swap", 32, UUID),
    ],
)
def test_each_kind_is_made_over_another(
    kind: str, size_mib: int, uuid: str, asked: Worker, tmp_path: Path
) -> None:
    with loop(tmp_path, "one", size_mib) as one:
        run("/usr/sbin/mkfs.ext4", "-q", one.device)
        answer = asked.apply(MakeFilesystem(target(one), kind, "SOME LABEL", uuid))
        assert (one.blkid("TYPE"), one.blkid("LABEL")) == (kind, "SOME LABEL")
        assert one.blkid("UUID") == answer["uuid"] == uuid
        listed = json.loads(run("/usr/sbin/wipefs", "--no-act", "--json", one.device))
        assert {each["type"] for each in listed["signatures"]} <= {kind, "dos"}
        # This kernel need not have vfat.
        if kind == "vfat":
            run("/usr/sbin/fsck.vfat", "-n", one.device)
        elif kind != "swap":
            with mounted(one.device, tmp_path / "at") as place:
                (place / "file").write_text("here")


def test_what_was_wiped_is_put_back(asked: Worker, disk: Loop, tmp_path: Path) -> None:
    run("/usr/sbin/mkfs.ext4", "-q", "-L", "kept", disk.device)
    with mounted(disk.device, tmp_path / "at") as place:
        (place / "file").write_bytes(os.urandom(MIB))
    before = disk.hash()
    saved = asked.apply(WipeSignatures(target(disk)))["saved"]
    assert disk.blkid("TYPE") == ""
    assert run("/usr/sbin/wipefs", "--no-act", disk.device) == ""
    answer = asked.apply(RestoreSaved(target(disk), saved[target(disk).id]))
    assert answer["signatures"] == [f"ext4 {disk.blkid('UUID')}"]
    assert disk.hash() == before
    (newest, first) = asked.ask("ListSaved", {})["items"][:2]
    assert (newest["operation"], first["operation"]) == ("RestoreSaved", "WipeSignatures")


def test_what_contradicts_itself_is_wiped_as_it_was_seen(asked: Worker, disk: Loop) -> None:
    run("/usr/sbin/mkfs.ext4", "-q", disk.device)
    with disk.file.open("rb+") as file:
        file.seek(0x10040)
        # The magic of a btrfs within an ext4: blkid cannot choose.
        file.write(b"_BHRfS_M")
    run("/usr/sbin/blockdev", "--flushbufs", disk.device)
    run("/usr/sbin/blkid", "-p", disk.device, status=8)
    seen = target(disk)
    assert seen.signatures == ("ambivalent",)
    asked.apply(WipeSignatures(seen))
    assert run("/usr/sbin/wipefs", "--no-act", disk.device) == ""


def test_what_fails_changes_nothing(asked: Worker, disk: Loop) -> None:
    run("/usr/sbin/mkfs.ext4", "-q", disk.device)
    before = disk.hash()
    with pytest.raises(errors.ToolFailed) as failed:
        # Far too small: mkfs.xfs says so after the old superblock is gone.
        asked.apply(MakeFilesystem(target(disk), "xfs"))
    assert "300" in failed.value.metadata["stderr"]
    assert disk.hash() == before


def test_a_label_is_set_mounted_and_not(asked: Worker, disk: Loop, tmp_path: Path) -> None:
    run("/usr/sbin/mkfs.ext4", "-q", disk.device)
    asked.apply(SetLabel(target(disk), "ext4", "first", ""))
    assert disk.blkid("LABEL") == "first"
    with mounted(disk.device, tmp_path / "at"):
        asked.apply(SetLabel(target(disk), "ext4", "second", "first"))
    assert disk.blkid("LABEL") == "second"
    run("/usr/sbin/mkswap", disk.device)
    asked.apply(SetLabel(target(disk), "swap", "swapped", ""))
    assert disk.blkid("LABEL") == "swapped"
    run("/usr/sbin/swapon", disk.device)
    try:
        with pytest.raises(errors.DeviceBusy):
            asked.apply(SetLabel(target(disk), "swap", "other", "swapped"))
    finally:
        run("/usr/sbin/swapoff", disk.device)
    run("/usr/sbin/mkfs.vfat", "-I", disk.device)
    asked.apply(SetLabel(target(disk), "vfat", "NEW", ""))
    assert disk.blkid("LABEL") == "NEW"


# ext4 that is mounted asks for CAP_SYS_RESOURCE, which a container need not have.
@pytest.mark.parametrize(("make", "is_mounted"), [("ext4", False), ("btrfs", True), ("xfs", True)])
def test_a_filesystem_grows(make: str, is_mounted: bool, asked: Worker, tmp_path: Path) -> None:
    small = {"ext4": 16, "btrfs": 128, "xfs": 320}[make]
    with loop(tmp_path, "one", small) as one:
        run(f"/usr/sbin/mkfs.{make}", "-q", one.device)
        with one.file.open("ab") as file:
            file.truncate((small + 128) * MIB)
        run("/usr/sbin/losetup", "--set-capacity", one.device)
        with ExitStack() as stack:
            if is_mounted:
                stack.enter_context(mounted(one.device, tmp_path / "at"))
            asked.apply(GrowFilesystem(target(one), make, small * MIB))
        with mounted(one.device, tmp_path / "at") as place:
            found = os.statvfs(place)
        assert found.f_blocks * found.f_frsize > (small + 60) * MIB


def refused(asked: Worker, disk: Loop, step: object, kind: type[Exception]) -> str:
    """Ask for what must be refused; answer the words. Nothing may have changed."""
    before = disk.hash()
    with pytest.raises(kind) as told:
        asked.apply(step)  # type: ignore[arg-type]
    assert disk.hash() == before
    return str(told.value)


def test_a_device_in_use_is_not_touched(asked: Worker, disk: Loop, tmp_path: Path) -> None:
    run("/usr/sbin/mkfs.ext4", "-q", disk.device)
    wipe = WipeSignatures(target(disk))
    with mounted(disk.device, tmp_path / "at", "-o", "ro") as place:
        assert f"mounted on {place}" in refused(asked, disk, wipe, errors.DeviceBusy)
    upper = attach(Path(disk.device))
    try:
        name = upper.removeprefix("/dev/")
        assert f"{name} lies on it" in refused(asked, disk, wipe, errors.DeviceBusy)
    finally:
        run("/usr/sbin/losetup", "--detach", upper)
    claimed = os.open(disk.device, os.O_RDONLY | os.O_EXCL)
    try:
        assert "claimed" in refused(asked, disk, wipe, errors.DeviceBusy)
    finally:
        os.close(claimed)
    run("/usr/sbin/mkswap", disk.device)
    wipe = WipeSignatures(target(disk))
    run("/usr/sbin/swapon", disk.device)
    try:
        before = disk.file.read_bytes()
        with pytest.raises(errors.DeviceBusy, match="swapped to"):
            asked.apply(wipe)
        assert disk.file.read_bytes() == before
    finally:
        run("/usr/sbin/swapoff", disk.device)
    run("/usr/sbin/blockdev", "--setro", disk.device)
    try:
        refused(asked, disk, wipe, errors.DeviceReadOnly)
    finally:
        # The next one who has this loop device would have it read-only.
        run("/usr/sbin/blockdev", "--setrw", disk.device)


def test_another_device_is_not_touched(asked: Worker, disk: Loop, tmp_path: Path) -> None:
    run("/usr/sbin/mkfs.ext4", "-q", disk.device)
    seen = target(disk)
    changed = {
        "number": "7:250",
        "size_bytes": seen.size_bytes + 512,
        "disk_sequence": seen.disk_sequence + 1,
        "serial": "WD-1",
        "wwn": "0x5000",
    }
    for field, value in changed.items():
        step = WipeSignatures(replace(seen, **{field: value}))
        refused(asked, disk, step, errors.DeviceChanged)
    nowhere = replace(seen, name="sdzz9")
    refused(asked, disk, WipeSignatures(nowhere), errors.DeviceGone)
    run("/usr/sbin/mkswap", disk.device)
    words = refused(asked, disk, WipeSignatures(seen), errors.SignaturesChanged)
    assert "holds swap" in words
    with loop(tmp_path, "other", 32) as other:
        saved = asked.apply(WipeSignatures(target(disk)))["saved"][seen.id]
        step = RestoreSaved(target(other), saved)
        refused(asked, other, step, errors.SavedOfAnotherDevice)
    refused(asked, disk, RestoreSaved(target(disk), saved[:-1] + "_"), InvalidRequest)


def test_a_lock_of_another_program_is_waited_for_and_then_refused(
    asked: Worker, disk: Loop
) -> None:
    with disk.locked():
        refused(asked, disk, WipeSignatures(target(disk)), errors.DeviceLocked)
    asked.apply(WipeSignatures(target(disk)))


def test_what_is_saved_and_damaged_is_not_put_back(asked: Worker, disk: Loop, place: Path) -> None:
    run("/usr/sbin/mkfs.ext4", "-q", disk.device)
    name = asked.apply(WipeSignatures(target(disk)))["saved"][target(disk).id]
    kept = place / "worker-state/saved" / name / "regions.zlib"
    content = bytearray(zlib.decompress(kept.read_bytes()))
    content[len(content) // 2] ^= 0x01
    kept.write_bytes(zlib.compress(content))
    refused(asked, disk, RestoreSaved(target(disk), name), errors.SavedDamaged)


STRANGE: tuple[dict[str, object], ...] = (
    {"op": "Format"},
    {"force": True},
    {"type": "ntfs"},
    {"label": "a\nb"},
    {"device": None},
    {"device": {"name": "../sda"}},
    {"device": {"name": "sd..a"}},
    {"device": {"size_bytes": "1"}},
    {"device": {"signatures": "ext4"}},
    {"device": {"path": "/dev/sda"}},
)


def test_what_is_not_in_the_grammar_is_refused(asked: Worker, disk: Loop, place: Path) -> None:
    request = {"op": "MakeFilesystem", **fields(MakeFilesystem(target(disk), "ext4"))}
    before = disk.hash()
    with socket.socket(socket.AF_UNIX) as door:
        door.connect(str(place / "worker.sock"))
        answers = door.makefile("rb")
        for change in STRANGE:
            inner = change.get("device")
            strange = {"device": {**request["device"], **inner}} if isinstance(inner, dict) else {}
            door.sendall(json.dumps({**request, **change, **strange}).encode() + b"\n")
            assert json.loads(answers.readline())["reason"] in ("INVALID", "MALFORMED"), change
    assert disk.hash() == before


def test_a_partition_that_is_not_there_is_not_taken_for_its_disk(asked: Worker, disk: Loop) -> None:
    run("/usr/sbin/mkfs.ext4", "-q", disk.device)
    before = disk.hash()
    part = replace(target(disk), signatures=(), part=Slice(1, MIB, 8 * MIB))
    made = MakeFilesystem(part, "swap")
    assert "has no partition 1" in refused(asked, disk, made, errors.DeviceGone)
    # What opens its device by itself does not take it for the disk either.
    with pytest.raises(Refused, match="is to be made before"), opened(part):
        pass
    faulty = {**fields(made), "device": {**fields(part), "part": {"number": 0}}}
    with pytest.raises(InvalidRequest):
        asked.ask("MakeFilesystem", faulty)
    assert disk.hash() == before
