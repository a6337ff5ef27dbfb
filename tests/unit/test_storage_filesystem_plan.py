"""What is planned for filesystems, and what is refused before any disk is touched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from hostlerd.runtime.errors import DomainError, InvalidRequest
from hostlerd.runtime.steps import Plan
from hostlerd.storage import errors
from hostlerd.storage.model.filesystem import KINDS, label_fault, uuid_fault
from hostlerd.storage.model.filesystem_steps import GrowFilesystem, SetLabel
from hostlerd.storage.model.graph import Graph
from hostlerd.storage.model.observed import Device, Mount, Observed, PartitionFacts, Signature
from hostlerd.storage.model.saved import Saved
from hostlerd.storage.model.target import Target
from hostlerd.storage.plan import filesystem as plan
from hostlerd.storage.plan.graph import build

MIB = 1 << 20
UUID = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
EXT4 = Signature("ext4", "filesystem", UUID, "data")
DISK = Device("sda", "8:0", 1024 * MIB, 512, 512, disk_sequence=3, serial="WD-1")
PART = replace(
    DISK, name="sda1", number="8:1", partition=PartitionFacts("sda", 1, 2048), signatures=(EXT4,)
)
MOUNTED = Mount("/srv", "8:1", "/", "ext4", "/dev/sda1", False)
SAVED = Saved("20260131T120000Z-0123abcd", "WipeSignatures", 1, Target("a", "b", "1:1", 1, 1), ())


def graph(*devices: Device, mounts: tuple[Mount, ...] = ()) -> Graph:
    return build(Observed(devices, mounts))


def on(signature: Signature | None, mounts: tuple[Mount, ...] = (), **more: object) -> Graph:
    """A disk with one partition, and what lies on that."""
    held = (signature,) if signature else ()
    part = replace(PART, signatures=held, **more)  # type: ignore[arg-type]
    return graph(DISK, part, mounts=mounts)


PARTITION = "serial-WD-1-part1"


def test_what_is_lost_is_said_and_bound() -> None:
    made = plan.make(plan.Wanted(PARTITION, "swap", "new"), on(EXT4))
    assert [one.code for one in made.notices] == ["CONTENT_LOST"]
    assert "ext4" in made.notices[0].message and "'data'" in made.notices[0].message
    (step,) = made.steps
    assert step.inverse() is None
    assert "labelled 'new'" in step.describe() and "serial WD-1" in step.describe()
    bound = made.bindings["device"]
    assert (bound["disk_sequence"], bound["signatures"]) == (3, [f"ext4 {UUID}"])
    whole = plan.wipe("WD-1", on(EXT4))
    assert [one.subject for one in whole.notices] == [PARTITION]
    (restored,) = plan.restore(PARTITION, SAVED.id, [SAVED], on(None)).steps
    assert SAVED.id in restored.describe() and restored.inverse() is None
    assert whole.steps[0].inverse() is None and "wipe" in whole.steps[0].describe()


def test_what_is_there_already_is_no_change() -> None:
    for made in (
        plan.make(plan.Wanted(PARTITION, "ext4", "data", UUID), on(EXT4)),
        plan.wipe(PARTITION, on(None)),
        plan.set_label(PARTITION, "data", on(EXT4)),
        plan.grow(PARTITION, DISK.size_bytes - MIB, on(EXT4)),
    ):
        assert made.steps == () and made.etag == made.etag_after != ""
    assert plan.make(plan.Wanted(PARTITION, "ext4", "data"), on(EXT4)).steps


def test_a_label_is_taken_back_and_growing_is_not() -> None:
    (step,) = plan.set_label(PARTITION, "new", on(EXT4, (MOUNTED,))).steps
    assert isinstance(step, SetLabel)
    assert step.inverse() == replace(step, label="data", before="new")
    after = replace(EXT4, label="new")
    changed = plan.set_label(PARTITION, "new", on(EXT4))
    assert plan.set_label(PARTITION, "new", on(after)).etag == changed.etag_after
    (grown,) = plan.grow(PARTITION, 16 * MIB, on(EXT4)).steps
    assert isinstance(grown, GrowFilesystem) and grown.inverse() is None
    assert "from 16777216 bytes" in grown.describe()
    assert "'new' in place of 'data'" in step.describe()
    btrfs = replace(EXT4, type="btrfs")
    assert plan.growable(PARTITION, on(btrfs))[1] == "btrfs"
    assert plan.checkable(PARTITION, on(btrfs))[1] == "btrfs"


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: plan.make(plan.Wanted(PARTITION, "ntfs"), on(None)), InvalidRequest),
        (lambda: plan.make(plan.Wanted(PARTITION, "xfs", "x" * 13), on(None)), InvalidRequest),
        (lambda: plan.make(plan.Wanted(PARTITION, "vfat", "", UUID), on(None)), InvalidRequest),
        (
            lambda: plan.make(plan.Wanted(PARTITION, "ext4"), on(EXT4, (MOUNTED,))),
            errors.DeviceBusy,
        ),
        (lambda: plan.make(plan.Wanted("WD-1", "ext4"), on(EXT4, (MOUNTED,))), errors.DeviceBusy),
        (
            lambda: plan.make(plan.Wanted(PARTITION, "ext4"), on(None, is_read_only=True)),
            errors.DeviceReadOnly,
        ),
        (
            lambda: plan.make(plan.Wanted(PARTITION, "xfs"), on(None, size_bytes=MIB)),
            errors.DeviceTooSmall,
        ),
        (lambda: plan.wipe(PARTITION, on(EXT4, (MOUNTED,))), errors.DeviceBusy),
        (lambda: plan.restore(PARTITION, "nothing", [SAVED], on(None)), errors.SavedNotFound),
        (lambda: plan.set_label(PARTITION, "x", on(None)), errors.FilesystemNotFound),
        (lambda: plan.set_label(PARTITION, "a\nb", on(EXT4)), InvalidRequest),
        (
            lambda: plan.set_label(PARTITION, "X", on(replace(EXT4, type="vfat"), (MOUNTED,))),
            errors.DeviceBusy,
        ),
        (
            lambda: plan.grow(PARTITION, MIB, on(replace(EXT4, type="swap"))),
            errors.FilesystemNotFound,
        ),
        (lambda: plan.grow(PARTITION, MIB, on(replace(EXT4, type="xfs"))), errors.NotMounted),
        (lambda: plan.checkable(PARTITION, on(EXT4, (MOUNTED,)))[0], errors.DeviceBusy),
        (
            lambda: plan.checkable(PARTITION, on(replace(EXT4, type="swap")))[0],
            errors.FilesystemNotFound,
        ),
    ],
)
def test_what_cannot_be_is_refused(make: Callable[[], Plan], kind: type[DomainError]) -> None:
    with pytest.raises(kind):
        make()


def test_labels_and_uuids_are_those_that_each_kind_takes() -> None:
    for kind, takes in KINDS.items():
        assert not label_fault(kind, "X" * takes.label_bytes_most)
        assert label_fault(kind, "X" * (takes.label_bytes_most + 1))
        assert label_fault(kind, "a/b") and label_fault(kind, " a")
        assert not uuid_fault(kind, "") and uuid_fault(kind, "--force")
    assert label_fault("vfat", "lower") and not uuid_fault("vfat", "12AB-34CD")
    assert label_fault("ext4", "ü" * 9)


def test_what_is_saved_is_read_as_it_was_told() -> None:
    told = {
        "id": SAVED.id,
        "operation": "WipeSignatures",
        "unix_s": 1,
        "target": {"id": "a", "name": "b", "number": "1:1", "size_bytes": 1, "disk_sequence": 1}
        | {"serial": "", "wwn": "", "signatures": ["ext4 x"]},
        "regions": [{"offset": 0, "length": 1, "sha256": ""}],
    }
    assert Saved.read(told).target.signatures == ("ext4 x",)
    with pytest.raises(KeyError):
        Saved.read({**told, "target": {}})
