"""What is planned for btrfs, and what is refused before any disk is touched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostlerd.runtime.errors import DomainError, InvalidRequest
from hostlerd.runtime.steps import Plan
from hostlerd.storage import errors
from hostlerd.storage.kernel.btrfs import attached
from hostlerd.storage.model import btrfs_steps as steps
from hostlerd.storage.model.btrfs import PROFILES, Subvolume, Work, path_fault
from hostlerd.storage.model.observed import (
    Btrfs,
    BtrfsAllocation,
    BtrfsDevice,
    Device,
    Mount,
    Observed,
    Signature,
)
from hostlerd.storage.plan import btrfs, btrfs_devices, btrfs_subvolumes
from hostlerd.storage.plan.graph import build

GIB = 1 << 30
UUID = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
OTHER = "1f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f1"
SOURCE = "2f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f2"
CLEAN = {"write_errs": 0, "corruption_errs": 0}


def disk(name: str, number: int, size_gib: int = 16, held: Signature | None = None) -> Device:
    return Device(
        name,
        f"8:{number}",
        size_gib * GIB,
        512,
        512,
        disk_sequence=number + 1,
        serial=f"S-{name}",
        signatures=(held,) if held else (),
    )


def member(name: str, device_id: int, allocated_gib: int = 2, **more: object) -> BtrfsDevice:
    made = BtrfsDevice(name, device_id, False, CLEAN, 16 * GIB, allocated_gib * GIB)
    return replace(made, **more)  # type: ignore[arg-type]


def allocated(data: str, metadata: str) -> tuple[BtrfsAllocation, ...]:
    return tuple(
        BtrfsAllocation(kind, profile, GIB, GIB, GIB, GIB)
        for kind, profile in (("data", data), ("metadata", metadata), ("system", metadata))
    )


HELD = Signature("btrfs", "filesystem", UUID, "pool")
POOL = Btrfs(
    UUID, "pool", (member("sda", 1), member("sdb", 2)), allocated("raid1", "raid1"), "none"
)
DISKS = (
    *(disk("sda", 0, held=HELD), disk("sdb", 16, held=HELD), disk("sdc", 32)),
    *(disk("small", 48, 8), disk("sde", 64, held=Signature("ext4", "filesystem", OTHER, "old"))),
)
MOUNTED = Mount("/srv", "0:40", "/", "btrfs", "/dev/sda", False)


def seen(pool: Btrfs = POOL, *mounts: Mount) -> Observed:
    return Observed(DISKS, mounts or (MOUNTED,), btrfs=(pool,))


def with_graph(plan: Callable[..., Plan], *words: object, pool: Btrfs = POOL) -> Plan:
    of = seen(pool)
    return plan(*words, of, build(of))


def replaced(old: str, new: str, pool: Btrfs = POOL) -> Plan:
    return with_graph(btrfs_devices.replace, "pool", old, new, pool=pool)


MISSING = replace(POOL, devices=(member("sda", 1), member("", 2, is_missing=True)))
THREE = replace(POOL, devices=(*POOL.devices, member("sdc", 3)))


def test_a_filesystem_is_called_by_what_lasts() -> None:
    for words in (UUID, UUID.upper(), f"filesystem-{UUID}", "pool"):
        assert btrfs.find(seen(), words) is POOL
    two = replace(seen(), btrfs=(POOL, replace(POOL, uuid=OTHER)))
    with pytest.raises(errors.BtrfsAmbiguous, match=OTHER):
        btrfs.find(two, "pool")
    assert btrfs.find(two, OTHER).uuid == OTHER
    with pytest.raises(errors.BtrfsNotFound):
        btrfs.find(seen(), "/srv")
    with pytest.raises(InvalidRequest):
        btrfs.find(seen(), "")
    with pytest.raises(errors.BtrfsNotFound):
        btrfs.find(replace(seen(), btrfs=(replace(POOL, label=""),)), "pool")


def test_a_replacement_is_bound_to_both_devices() -> None:
    plan = replaced("S-sdb", "S-sde")
    (step,) = plan.steps
    assert isinstance(step, steps.StartReplace)
    assert (step.device_id, step.old[0].name, step.new.name) == (2, "sdb", "sde")
    assert [one.code for one in plan.notices] == ["CONTENT_LOST"]
    assert plan.bindings["device"]["signatures"] == [f"ext4 {OTHER}"]
    assert step.inverse() == steps.CancelBtrfsWork(UUID, "replace")
    assert "S-sde" in step.describe() and "what the new one holds is lost" in step.describe()
    (gone,) = replaced("", "S-sdc", MISSING).steps
    assert isinstance(gone, steps.StartReplace)
    assert (gone.device_id, gone.old) == (2, ())
    assert "missing" in gone.describe()


def test_what_is_so_already_is_no_change() -> None:
    after = replace(POOL, devices=(member("sda", 1), member("sdc", 2)))
    for plan in (
        replaced("S-sdb", "S-sdc", after),
        replaced("", "S-sdb"),
        with_graph(btrfs_devices.add, "pool", "S-sdb"),
        with_graph(btrfs_devices.remove, "pool", "S-sdc"),
        with_graph(btrfs_devices.remove, "pool", ""),
        btrfs.balance("pool", btrfs.Wanted("raid1", "raid1"), seen()),
        with_graph(btrfs.reset_errors, "pool", ""),
    ):
        assert plan.steps == () and plan.etag
    assert replaced("S-sdb", "S-sdc").etag != replaced("S-sdb", "S-sdc", after).etag


def test_counters_that_are_forgotten_are_told() -> None:
    bad = member("sdb", 2, errors={"corruption_errs": 7, "write_errs": 0})
    pool = replace(POOL, devices=(member("sda", 1), bad))
    plan = with_graph(btrfs.reset_errors, "pool", "", pool=pool)
    assert plan.steps == (steps.ResetErrorCounters(UUID, (2,)),)
    assert "corruption_errs 7" in plan.notices[0].message
    assert not with_graph(btrfs.reset_errors, "pool", "S-sda", pool=pool).steps


def busy(doing: str) -> Btrfs:
    return replace(POOL, exclusive_operation=doing)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: replaced("S-sdb", "S-small"), errors.DeviceTooSmall),
        (lambda: replaced("S-sdb", "S-sdb"), InvalidRequest),
        (lambda: replaced("S-sdb", "S-sda"), InvalidRequest),
        (lambda: replaced("S-sdc", "S-sde"), InvalidRequest),
        (lambda: replaced("", "S-sdc"), InvalidRequest),
        (lambda: replaced("sdb", "S-sdc"), errors.DeviceNameNotLasting),
        (lambda: replaced("S-sdb", "S-sdc", busy("balance")), errors.BtrfsBusy),
        (
            lambda: with_graph(btrfs_devices.remove, "pool", "S-sdb"),
            errors.TooFewDevices,
        ),
        (
            lambda: with_graph(btrfs_devices.remove, "pool", "", pool=MISSING),
            errors.TooFewDevices,
        ),
        (
            lambda: with_graph(
                btrfs_devices.remove,
                "pool",
                "S-sdc",
                pool=replace(
                    THREE,
                    devices=(
                        *(member(n, i, 16) for i, n in ((1, "sda"), (2, "sdb"))),
                        member("sdc", 3),
                    ),
                ),
            ),
            errors.DeviceTooSmall,
        ),
        (
            lambda: with_graph(btrfs_devices.add, "pool", "S-sdc", pool=busy("device replace")),
            errors.BtrfsBusy,
        ),
        (lambda: btrfs.scrub("pool", False, seen(busy("device replace"))), errors.BtrfsBusy),
        (lambda: btrfs.balance("pool", btrfs.Wanted("raid7"), seen()), InvalidRequest),
        (lambda: btrfs.balance("pool", btrfs.Wanted(usage_percent=101), seen()), InvalidRequest),
        (lambda: btrfs.balance("pool", btrfs.Wanted("raid1c3"), seen()), errors.TooFewDevices),
        (lambda: btrfs.balance("pool", btrfs.Wanted("single"), seen()), errors.LessRedundancy),
        (
            lambda: btrfs.balance(
                "pool",
                btrfs.Wanted("raid10"),
                seen(replace(POOL, devices=(member("sda", 1), member("sdb", 2, 16)))),
            ),
            errors.DeviceTooSmall,
        ),
    ],
)
def test_what_is_refused(make: Callable[[], Plan], kind: type[DomainError]) -> None:
    with pytest.raises(kind):
        make()


def test_a_device_in_use_is_refused() -> None:
    of = seen(POOL, MOUNTED, Mount("/old", "8:64", "/", "ext4", "/dev/sde", False))
    with pytest.raises(errors.DeviceBusy, match="mounted on /old"):
        btrfs_devices.add("pool", "S-sde", of, build(of))


def test_a_removal_says_how_much_it_moves() -> None:
    (step,) = with_graph(btrfs_devices.remove, "pool", "S-sdc", pool=THREE).steps
    assert isinstance(step, steps.StartRemoval)
    assert (step.device_id, step.used_bytes) == (3, 2 * GIB)
    lost = replace(THREE, devices=(*POOL.devices, member("", 3, is_missing=True)))
    (step,) = with_graph(btrfs_devices.remove, "pool", "", pool=lost).steps
    assert isinstance(step, steps.StartRemoval) and step.device == ()


@given(
    st.sampled_from(sorted(PROFILES)),
    st.sampled_from(sorted(PROFILES)),
    st.sampled_from(["", *sorted(PROFILES)]),
    st.sampled_from(["", *sorted(PROFILES)]),
    st.integers(1, 6),
    st.booleans(),
)
def test_a_conversion_leads_to_what_is_wanted_and_loses_nothing_by_mistake(
    data: str, metadata: str, into: str, metadata_into: str, count: int, is_meant: bool
) -> None:
    devices = tuple(member(f"sd{n}", n + 1) for n in range(count))
    have = replace(POOL, devices=devices, allocations=allocated(data, metadata))
    wanted = btrfs.Wanted(into, metadata_into, less_redundancy=is_meant)
    try:
        plan = btrfs.balance("pool", wanted, seen(have))
    except errors.TooFewDevices:
        assert any(one and PROFILES[one].least_devices > count for one in (into, metadata_into))
        return
    except errors.LessRedundancy:
        assert not is_meant
        return
    after = have
    for step in plan.steps:
        assert isinstance(step, steps.StartBalance)
        after = replace(have, allocations=allocated(step.data or data, step.metadata or metadata))
        if not step.is_forced:
            for before, then in ((data, step.data), (metadata, step.metadata)):
                assert not then or PROFILES[then].losses >= PROFILES[before].losses
    for profile, kind in ((into, "data"), (metadata_into, "metadata")):
        found = {one.profile for one in after.allocations if one.kind == kind}
        assert not profile or found == {profile}
    if into or metadata_into:
        assert btrfs.balance("pool", wanted, seen(after)).steps == ()


TOP = Subvolume(5, "", 0, SOURCE)
HOME = Subvolume(256, "home", 5, UUID, generation=9)
SNAP = Subvolume(257, "home/snap", 256, OTHER, source_uuid=UUID, is_read_only=True)
THERE = (TOP, HOME, SNAP)


def test_subvolumes_and_snapshots_once() -> None:
    (step,) = btrfs_subvolumes.create("srv", POOL, THERE).steps
    assert step == steps.CreateSubvolume(UUID, "srv")
    assert step.inverse() == steps.TakeBackSubvolume(UUID, "srv", "")
    assert not btrfs_subvolumes.create("home", POOL, THERE).steps
    (step,) = btrfs_subvolumes.snapshot("home", "x", True, POOL, THERE).steps
    assert step == steps.CreateSnapshot(UUID, "home", 256, UUID, "x", True)
    assert step.inverse() == steps.TakeBackSubvolume(UUID, "x", UUID)
    assert "read-only snapshot of home as x" in step.describe()
    assert btrfs_subvolumes.snapshot("", "x", False, POOL, THERE).steps[0].describe()
    assert not btrfs_subvolumes.snapshot("home", "home/snap", True, POOL, THERE).steps
    assert not btrfs_subvolumes.delete("gone", POOL, THERE, seen()).steps
    plan = btrfs_subvolumes.delete("home/snap", POOL, THERE, seen())
    assert plan.steps == (steps.DeleteSubvolume(UUID, "home/snap", 257, OTHER, 0),)
    assert plan.bindings["subvolume"] == [UUID, 257, OTHER, 0]
    assert "no snapshot of it" in plan.notices[0].message


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: btrfs_subvolumes.create("home/snap", POOL, THERE), errors.SubvolumeExists),
        (lambda: btrfs_subvolumes.create("/home", POOL, THERE), InvalidRequest),
        (
            lambda: btrfs_subvolumes.snapshot("home", "home/snap", False, POOL, THERE),
            errors.SubvolumeExists,
        ),
        (
            lambda: btrfs_subvolumes.snapshot("gone", "x", False, POOL, THERE),
            errors.SubvolumeNotFound,
        ),
        (lambda: btrfs_subvolumes.snapshot("..", "a//b", False, POOL, THERE), InvalidRequest),
        (lambda: btrfs_subvolumes.delete("home", POOL, THERE, seen()), errors.SubvolumeBusy),
        (
            lambda: btrfs_subvolumes.delete(
                "home/snap", POOL, THERE, seen(POOL, replace(MOUNTED, root="/home/snap/a"))
            ),
            errors.SubvolumeBusy,
        ),
        (lambda: btrfs_subvolumes.delete("", POOL, THERE, seen()), InvalidRequest),
    ],
)
def test_what_is_refused_of_subvolumes(make: Callable[[], Plan], kind: type[DomainError]) -> None:
    with pytest.raises(kind):
        make()


def test_all_faults_of_paths_are_told_at_once() -> None:
    with pytest.raises(InvalidRequest) as refused:
        btrfs_subvolumes.snapshot("..", "a//b", False, POOL, THERE)
    assert {one.field for one in refused.value.violations} == {"source", "path"}


@pytest.mark.parametrize(
    "path", ["", "/a", "a/", "a//b", ".", "a/../b", "a\n", "a\0", "x" * 256, "a/" * 600, "\udcff"]
)
def test_paths_that_are_none(path: str) -> None:
    assert path_fault(path)


@pytest.mark.parametrize("path", ["@", "@home", "a/b c/d", "ä", "x" * 255, "...", "-r"])
def test_paths_that_are(path: str) -> None:
    assert path_fault(path) == ""


def test_what_goes_on_is_read_from_what_the_worker_tells() -> None:
    told = {"kind": "scrub", "state": "done", "counts": {"2": {"csum_errors": 1}}}
    assert Work.read(told).counts == {2: {"csum_errors": 1}}


def test_what_was_pulled_is_missing_though_another_has_its_name() -> None:
    def told(*devices: Device, now: tuple[Signature, ...] | None = ()) -> list[tuple[str, bool]]:
        (found,) = attached((POOL,), devices, lambda _: now)
        return [(one.name, one.is_missing) for one in found.devices]

    one, two = DISKS[:2]
    assert told(one, two) == [("sda", False), ("sdb", False)]
    # It is gone; and then a blank disk has its name.
    assert told(one) == [("sda", False), ("", True)]
    assert told(one, replace(two, signatures=())) == [("sda", False), ("", True)]
    # It does not answer, or has become one of the filesystem since.
    assert told(one, replace(two, signatures=()), now=None)[1] == ("sdb", False)
    assert told(one, replace(two, signatures=()), now=(HELD,))[1] == ("sdb", False)
    mapped = replace(POOL, devices=(member("sda", 1), member("vg-lv", 2)))
    (found,) = attached((mapped,), (one, replace(two, name="dm-1", dm_name="vg-lv")), lambda _: ())
    assert found.devices[1].name == "dm-1"
    # What is out of sight, what lacks, and the target of a replacement stay what they are.
    odd = (member("", 1), member("", 2, is_missing=True), member("sdc", 0))
    (found,) = attached((replace(POOL, devices=odd),), DISKS, lambda _: ())
    assert found.devices == odd
