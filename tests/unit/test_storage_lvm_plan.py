"""Plans of LVM: the second is empty, copies lie apart, nothing is taken that is not free."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from storage_lvm import EXTENT, MIB, World, uuid_of

from hostlerd.runtime.errors import DomainError, InvalidRequest
from hostlerd.runtime.steps import Plan
from hostlerd.storage import errors
from hostlerd.storage.errors import volumes
from hostlerd.storage.model import lvm
from hostlerd.storage.model.filesystem_steps import GrowFilesystem, WipeSignatures
from hostlerd.storage.model.graph import Kind
from hostlerd.storage.model.lvm import Volume, device_uuid
from hostlerd.storage.model.lvm_steps import AbortMove, ExtendGroup, ReduceGroup, StartMove
from hostlerd.storage.model.lvm_volume_steps import CreateVolume, GrowVolume, RepairVolume
from hostlerd.storage.model.observed import LogicalVolume, Signature
from hostlerd.storage.plan import array_create, filesystem, lvm_groups, lvm_mend, lvm_volumes
from hostlerd.storage.plan.array_check import Wanted as WantedArray
from hostlerd.storage.plan.health import health
from hostlerd.storage.plan.lvm_choose import find, members
from hostlerd.storage.plan.lvm_groups import Wanted as WantedGroup
from hostlerd.storage.plan.lvm_volumes import Wanted

NAMES = ("sda", "sdb", "sdc", "sdd")
ODD = (
    "",
    "-x",
    "a b",
    "a/b",
    "../x",
    ".",
    "..",
    "a\n",
    "d\u00e4ta",
    "$(reboot)",
    "x" * 128,
    "--yes",
)


def serial(*letters: str) -> tuple[str, ...]:
    return tuple(f"serial-Ssd{letter}" for letter in letters)


def world(mib: int = 65) -> World:
    return World({name: mib * MIB for name in NAMES})


def ask(have: World, plan: Callable[..., Plan], *words: Any) -> Plan:
    return plan(*words, have.seen, have.graph)


def do(have: World, plan: Callable[..., Plan], *words: Any) -> Plan:
    """Make a plan, do it, and see that the second one is empty."""
    made = ask(have, plan, *words)
    for step in made.steps:
        assert step.describe()
        have.apply(step)
    return made


def with_group(*letters: str, mib: int = 65) -> World:
    have = world(mib)
    do(have, lvm_groups.create, WantedGroup("vg", serial(*letters)))
    return have


def wanted(name: str, kind: str = "linear", extents: int = 4, **more: Any) -> Wanted:
    return replace(Wanted("vg", name, kind, extents * EXTENT), **more)


def with_volume(kind: str = "linear", extents: int = 4, **more: Any) -> World:
    have = with_group("a", "b", "c")
    do(have, lvm_volumes.create, wanted("lv", kind, extents, **more))
    return have


def volume(have: World, name: str = "lv") -> Volume:
    found = have.groups["vg"].volume(name)
    assert found is not None
    return found


def grow(have: World, name: str, extents: int, filesystem_bytes: int = 0) -> Plan:
    look = (have.seen, have.graph, lambda node, kind: filesystem_bytes)
    return lvm_volumes.grow(name, extents * EXTENT, filesystem_bytes > 0, look)


# -- groups


def test_a_group_is_made_once_extended_reduced_and_ended():
    have = with_group("a", "b")
    assert ask(have, lvm_groups.create, WantedGroup("vg", serial("a", "b"))).steps == ()
    with pytest.raises(volumes.GroupExists):
        ask(have, lvm_groups.create, WantedGroup("vg", serial("c")))
    with pytest.raises(volumes.GroupExists):
        ask(have, lvm_groups.create, WantedGroup("vg", serial("a", "b"), 8 * MIB))
    (step,) = do(have, lvm_groups.extend, "vg", *serial("c")).steps
    assert isinstance(step, ExtendGroup) and isinstance(step.inverse(), ReduceGroup)
    assert ask(have, lvm_groups.extend, "vg", *serial("c")).steps == ()
    kinds = [type(one) for one in do(have, lvm_groups.reduce, "vg", *serial("a")).steps]
    assert kinds == [ReduceGroup, WipeSignatures]
    assert ask(have, lvm_groups.reduce, "vg", *serial("a")).steps == ()
    plan = do(have, lvm_groups.delete, f"lvm-{uuid_of('vg')}")
    assert len(plan.steps) == 3 and plan.bindings["devices"]
    assert have.groups == {} and have.signed == {}
    with pytest.raises(volumes.GroupNotFound):
        ask(have, lvm_groups.delete, "vg")


def test_inverses_take_back_what_was_done():
    have = with_group("a", "b")
    before = have.groups["vg"].physical
    (step,) = do(have, lvm_groups.extend, "vg", *serial("c")).steps
    back = step.inverse()
    assert back is not None
    have.apply(back)
    assert have.groups["vg"].physical == before
    have = with_volume()
    for plan in (
        ask(have, lvm_volumes.rename, "vg/lv", "new"),
        ask(have, lvm_volumes.set_active, "vg/lv", False),
    ):
        (step,) = plan.steps
        before_ = volume(have)
        have.apply(step)
        back = step.inverse()
        assert back is not None
        have.apply(back)
        assert replace(volume(have), number="") == replace(before_, number="")


def test_a_group_with_volumes_is_not_ended_nor_a_device_in_use_taken_out():
    have = with_volume(devices=serial("a"))
    with pytest.raises(volumes.GroupNotEmpty, match="lv"):
        ask(have, lvm_groups.delete, "vg")
    with pytest.raises(volumes.PhysicalVolumeInUse) as used:
        ask(have, lvm_groups.reduce, "vg", *serial("a"))
    assert used.value.metadata["device"] == serial("a")[0]
    alone = with_group("a")
    with pytest.raises(volumes.PhysicalVolumeInUse, match="all that"):
        ask(alone, lvm_groups.reduce, "vg", *serial("a"))


def test_what_is_on_a_device_is_moved():
    have = with_volume(devices=serial("a"))
    (step,) = do(have, lvm_groups.move, "vg", *serial("a"), serial("c")).steps
    assert isinstance(step, StartMove) and isinstance(step.inverse(), AbortMove)
    assert "serial-Ssda to serial-Ssdc" in step.describe()
    assert ask(have, lvm_groups.move, "vg", *serial("a"), ()).steps == ()
    assert have.groups["vg"].carrier(have.number("sda")).used_extents == 0
    do(have, lvm_groups.reduce, "vg", *serial("a"))
    with pytest.raises(InvalidRequest):
        ask(have, lvm_groups.move, "vg", *serial("c"), serial("c"))
    with pytest.raises(volumes.PhysicalVolumeNotFound):
        ask(have, lvm_groups.move, "vg", *serial("c"), serial("d"))
    do(have, lvm_volumes.create, wanted("big", extents=20))
    with pytest.raises(volumes.GroupFull):
        ask(have, lvm_groups.move, "vg", *serial("b"), ())


@pytest.mark.parametrize("name", ODD)
def test_odd_names_are_refused(name):
    have = with_volume()
    refused: list[tuple[Callable[..., Plan], tuple[Any, ...]]] = [
        (lvm_groups.create, (WantedGroup(name, serial("d")),)),
        (lvm_volumes.create, (wanted(name),)),
        (lvm_volumes.rename, ("vg/lv", name)),
        (lvm_mend.snapshot, ("vg/lv", name, EXTENT)),
    ]
    for plan, words in refused:
        with pytest.raises(InvalidRequest) as told:
            ask(have, plan, *words)
        assert [one.field for one in told.value.violations] == ["name"]


@given(st.text(st.sampled_from("ab-_.+/ \n\u00e4"), max_size=12), st.sampled_from(("vg", "a-b")))
def test_a_name_that_passes_is_one_word_that_begins_no_option(name, group):
    if lvm.volume_name_fault(group, name):
        return
    assert name and not name.startswith("-") and set(name) <= set("ab-_.+")
    assert lvm.mapped_name(group, name).replace("--", "").count("-") == 1


@pytest.mark.parametrize("name", ["snapshot1", "pvmove0", "x_rimage_0", "a_tdata", "y" * 120])
def test_names_that_lvm_keeps_for_itself(name):
    assert lvm.volume_name_fault("vg", name) and not lvm.group_name_fault(name)


def test_what_is_wrong_whatever_the_host_has():
    have = with_group("a", "b")
    for bad in (
        wanted("x", "raid5"),
        wanted("x", extents=0),
        wanted("x", "raid1", parts=11),
        wanted("x", "raid1", parts=3, devices=serial("a", "b")),
        wanted("x", parts=2),
        wanted("x", stripe_bytes=4096),
        wanted("x", "striped", stripe_bytes=5000),
        wanted("x", pool="pool"),
        wanted("x", "thin"),
        wanted("x", "thin", pool="p", devices=serial("a")),
    ):
        with pytest.raises(InvalidRequest):
            ask(have, lvm_volumes.create, bad)
    for group in (WantedGroup("x", ()), WantedGroup("x", serial("c"), 3 * MIB)):
        with pytest.raises(InvalidRequest):
            ask(have, lvm_groups.create, group)
    for plan, words in (
        (lvm_groups.extend, ("", "x")),
        (lvm_volumes.delete, ("",)),
        (lvm_groups.create, (WantedGroup("x", serial("c", "c")),)),
    ):
        with pytest.raises(InvalidRequest):
            ask(have, plan, *words)
    with pytest.raises(errors.DeviceTooSmall):
        ask(world(4), lvm_groups.create, WantedGroup("x", serial("c")))


# -- the wrong disk


def test_a_device_of_a_group_is_refused_whatever_it_is_wanted_for():
    have = with_volume()
    used = serial("a")[0]
    for plan in (
        lambda graph: filesystem.make(filesystem.Wanted(used, "ext4"), graph),
        lambda graph: filesystem.wipe(used, graph),
        lambda graph: array_create.create(WantedArray("x", "raid1", serial("a", "d")), (), graph),
        lambda graph: lvm_groups.create(WantedGroup("other", (used,)), have.seen, graph),
    ):
        with pytest.raises(errors.DeviceBusy) as busy:
            plan(have.graph)
        assert busy.value.metadata["device"] == used and "vg" in busy.value.message


def test_a_clone_of_a_physical_volume_stops_every_change_of_its_group():
    have = with_volume()
    have.clones["sdd"] = "sda"
    for plan, words in (
        (lvm_groups.delete, ("vg",)),
        (lvm_volumes.delete, ("vg/lv",)),
        (lvm_volumes.create, (wanted("x"),)),
    ):
        with pytest.raises(volumes.PhysicalVolumeCloned) as told:
            ask(have, plan, *words)
        assert all(one in told.value.message for one in (*serial("a"), *serial("d")))


def test_groups_of_one_name_are_told_apart_by_their_uuids():
    have = with_group("a")
    twin = replace(have.groups["vg"], uuid=uuid_of("twin"), physical=())
    with pytest.raises(volumes.GroupAmbiguous, match=uuid_of("twin")):
        find((*have.seen, twin), have.graph, "vg")
    assert find((*have.seen, twin), have.graph, uuid_of("vg")).group == have.groups["vg"]


def test_nothing_is_changed_of_what_is_foreign_or_busy_or_incomplete():
    for change, kind in (
        ({"is_foreign": True}, volumes.GroupForeign),
        (
            {"volumes": (Volume(uuid_of("pm"), "[pvmove0]", EXTENT, "mirror", moves="/dev/sda"),)},
            volumes.GroupBusy,
        ),
    ):
        have = with_group("a", "b")
        have.change("vg", **change)
        with pytest.raises(kind):
            ask(have, lvm_volumes.create, wanted("x"))
    have = with_volume(devices=serial("a"))
    have.pull("sdb")
    with pytest.raises(volumes.GroupIncomplete):
        ask(have, lvm_volumes.create, wanted("x"))
    do(have, lvm_groups.reduce, "vg", "")
    assert have.groups["vg"].missing == 0
    assert ask(have, lvm_groups.reduce, "vg", "").steps == ()
    have.pull("sda")
    with pytest.raises(volumes.PhysicalVolumeInUse, match="lv"):
        ask(have, lvm_groups.reduce, "vg", "")


def test_of_devices_that_lie_on_one_another_the_upper_is_the_member():
    have = with_group("a")
    graph = have.graph
    (member,) = members(graph)
    assert (member.name, member.kind) == ("sda", Kind.DISK)


def test_health_says_that_a_group_lacks_a_device():
    have = with_volume("raid1", devices=serial("a", "b"))
    codes = lambda: {one.code: one.id for one in health(have.observed)[1]}  # noqa: E731
    assert "GROUP_INCOMPLETE" not in codes()
    have.pull("sda")
    assert codes()["GROUP_INCOMPLETE"] == f"lvm-{uuid_of('vg')}"


def test_what_a_mirror_is_made_of_is_no_second_filesystem_nor_a_snapshot_a_clone():
    have = with_volume("raid1", devices=serial("a", "b"))
    group = have.groups["vg"]
    same = Signature("ext4", "filesystem", "11111111-2222-3333-4444-555555555555")
    have.signed[device_uuid(group, volume(have))] = same
    seen = have.observed
    image = replace(
        seen.devices[-1],
        **{"name": "dm-90", "number": "253:90", "dm_name": "vg-lv_rimage_0"},
        dm_uuid=device_uuid(group, replace(volume(have), uuid=uuid_of("image"))),
    )
    snap = replace(image, name="dm-91", number="253:91", dm_name="vg-s")
    snap = replace(snap, dm_uuid=device_uuid(group, replace(volume(have), uuid=uuid_of("s"))))
    kept = LogicalVolume(uuid_of("s"), group.uuid, "s", EXTENT, "linear", "lv")
    for origin, count in (("lv", 0), ("", 1)):
        volumes = (*seen.volumes, replace(kept, origin=origin))
        all_ = replace(seen, devices=(*seen.devices, image, snap), volumes=volumes)
        reasons = [one for one in health(all_)[1] if one.code == "SAME_UUID"]
        assert len(reasons) == count
        assert all("dm-90" not in one.message for one in reasons)
    without_group = replace(seen, devices=(*seen.devices, image), groups=(), volumes=())
    assert "SAME_UUID" in {one.code for one in health(without_group)[1]}


# -- volumes


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(("linear", "striped", "raid1", "thin-pool")),
    st.integers(1, 40 * EXTENT),
    st.integers(2, 4),
    st.lists(st.integers(0, 15), min_size=4, max_size=4),
)
def test_what_is_planned_has_room_and_is_done_once(kind, size, parts, used):
    have = with_group("a", "b", "c", "d")
    physical = have.groups["vg"].physical
    taken = [replace(p, used_extents=u) for p, u in zip(physical, used, strict=True)]
    have.change("vg", physical=tuple(taken))
    in_parts = parts if kind in ("striped", "raid1") else 0
    want = Wanted("vg", "lv", kind, size, parts=in_parts)
    try:
        (step,) = do(have, lvm_volumes.create, want).steps
    except volumes.GroupFull:
        needed = -(-size // EXTENT)
        free = sorted((15 + 1 - u for u in used), reverse=True)
        if kind == "linear":
            assert sum(free) < needed
        return
    assert isinstance(step, CreateVolume)
    assert volume(have).size_bytes >= size > volume(have).size_bytes - parts * EXTENT
    if in_parts:
        assert len(set(step.numbers)) == parts == len(volume(have).carriers)
    assert all(p.used_extents <= p.extents for p in have.groups["vg"].physical)
    assert ask(have, lvm_volumes.create, want).steps == ()


@given(st.lists(st.sampled_from(("x", "y", "z", "")), min_size=4, max_size=4))
def test_copies_are_behind_different_controllers_where_there_are_such(behind):
    have = world()
    have.controllers = dict(zip(NAMES, behind, strict=True))
    do(have, lvm_groups.create, WantedGroup("vg", serial("a", "b", "c", "d")))
    (step,) = do(have, lvm_volumes.create, wanted("lv", "raid1")).steps
    places = [have.controllers[have.disk(one)] or one for one in step.numbers]
    known = {one or name for name, one in have.controllers.items()}
    assert len(step.numbers) == 2 and len(set(places)) == min(2, len(known))


def test_copies_on_the_devices_that_were_named():
    have = with_volume("raid1", devices=serial("c", "a"))
    numbers = {have.number("sda"), have.number("sdc")}
    carriers = {p.number for p in have.groups["vg"].physical if p.uuid in volume(have).carriers}
    assert carriers == numbers
    full = with_volume(devices=serial("a"), extents=14)
    with pytest.raises(volumes.GroupFull):
        ask(full, lvm_volumes.create, wanted("m", "raid1", devices=serial("a", "b")))


def test_thin_volumes_live_in_a_pool_and_may_promise_too_much():
    have = with_group("a", "b")
    do(have, lvm_volumes.create, wanted("pool", "thin-pool", 8))
    plan = do(have, lvm_volumes.create, wanted("t", "thin", 6, pool="pool"))
    assert plan.notices == ()
    plan = do(have, lvm_volumes.create, wanted("u", "thin", 6, pool="pool"))
    assert [one.code for one in plan.notices] == ["THIN_OVERCOMMITTED"]
    with pytest.raises(volumes.VolumeNotFound):
        ask(have, lvm_volumes.create, wanted("w", "thin", pool="nope"))
    with pytest.raises(volumes.VolumeKind):
        ask(have, lvm_volumes.create, wanted("w", "thin", pool="t"))
    with pytest.raises(volumes.VolumeNeeded, match="t, u"):
        ask(have, lvm_volumes.delete, "vg/pool")
    do(have, lvm_mend.snapshot, "vg/t", "s", 0)
    assert not volume(have, "s").is_active and volume(have, "s").is_thin_snapshot
    plan = do(have, lvm_volumes.set_active, "vg/s", True)
    assert [one.code for one in plan.notices] == ["SAME_UUID"]
    do(have, lvm_volumes.set_active, "vg/s", False)
    # A thin snapshot does without its origin.
    do(have, lvm_volumes.delete, "vg/t")
    with pytest.raises(InvalidRequest):
        ask(have, lvm_mend.snapshot, "vg/u", "r", EXTENT)


def test_sizes_are_whole_extents_and_said_so():
    have = with_group("a")
    want = replace(wanted("lv"), size_bytes=1)
    assert [one.code for one in do(have, lvm_volumes.create, want).notices] == ["SIZE_ROUNDED"]
    with pytest.raises(volumes.VolumeExists):
        ask(have, lvm_volumes.create, wanted("lv", extents=9))
    with pytest.raises(volumes.GroupFull) as told:
        ask(have, lvm_volumes.create, wanted("big", extents=99))
    assert ask(have, lvm_volumes.create, wanted("m", extents=3)).notices == ()
    plan = lvm_volumes.grow("vg/lv", 2 * EXTENT + 1, False, (have.seen, have.graph, lambda *_: 0))
    assert [one.code for one in plan.notices] == ["SIZE_ROUNDED"]
    assert told.value.metadata["free_bytes"] == str(15 * EXTENT)


def test_a_volume_grows_with_its_filesystem_and_never_shrinks():
    have = with_volume()
    uuid = device_uuid(have.groups["vg"], volume(have))
    have.signed[uuid] = Signature("ext4", "filesystem", "11111111-2222-3333-4444-555555555555")
    plan = grow(have, "vg/lv", 8, 4 * EXTENT)
    assert [type(one) for one in plan.steps] == [GrowVolume, GrowFilesystem]
    step = plan.steps[1]
    assert isinstance(step, GrowFilesystem)
    assert (step.size_bytes, step.device.size_bytes) == (4 * EXTENT, 8 * EXTENT)
    have.apply(plan.steps[0])
    assert grow(have, "vg/lv", 8, 8 * EXTENT).steps == ()
    # The volume has grown, and its filesystem has been forgotten.
    assert [type(one) for one in grow(have, "vg/lv", 8, 4 * EXTENT).steps] == [GrowFilesystem]
    with pytest.raises(InvalidRequest):
        grow(have, "vg/lv", 7)
    with pytest.raises(InvalidRequest):
        grow(have, "vg/lv", 0)
    with pytest.raises(volumes.GroupFull):
        grow(have, "vg/lv", 4096)
    mirror = with_volume("raid1", 10, devices=serial("a", "b"))
    with pytest.raises(volumes.GroupFull):
        grow(mirror, "vg/lv", 26)
    do(have, lvm_volumes.set_active, "vg/lv", False)
    with pytest.raises(volumes.VolumeBusy):
        grow(have, "vg/lv", 9, EXTENT)


def test_what_is_not_grown():
    have = with_volume()
    do(have, lvm_mend.snapshot, "vg/lv", "s", 2 * EXTENT)
    with pytest.raises(volumes.VolumeNeeded, match="s"):
        grow(have, "vg/lv", 9)
    with pytest.raises(volumes.VolumeKind, match="snapshot"):
        grow(have, "vg/s", 9)
    have = with_volume("raid1")
    have.set_volume("vg", "lv", health="partial")
    with pytest.raises(volumes.VolumeKind, match="partial"):
        grow(have, "vg/lv", 9)


def test_a_volume_in_use_is_neither_deleted_nor_deactivated_nor_merged_into():
    have = with_volume()
    do(have, lvm_mend.snapshot, "vg/lv", "s", 2 * EXTENT)
    have.mounted[volume(have).number] = "/srv"
    node_id = f"dm-{device_uuid(have.groups['vg'], volume(have))}"
    for plan, words in (
        (lvm_volumes.set_active, ("vg/lv", False)),
        (lvm_mend.merge, ("vg/s", False)),
    ):
        with pytest.raises(errors.DeviceBusy, match="/srv") as busy:
            ask(have, plan, *words)
        assert busy.value.metadata["device"] == node_id
    with pytest.raises(volumes.VolumeNeeded):
        ask(have, lvm_volumes.delete, "vg/lv")
    later = ask(have, lvm_mend.merge, "vg/s", True)
    assert [one.code for one in later.notices] == ["MERGE_LATER"]
    assert "when that is next activated" in later.steps[0].describe()
    have.mounted.clear()
    have.set_volume("vg", "lv", is_open=True)
    for plan, words in (
        (lvm_volumes.set_active, ("vg/lv", False)),
        (lvm_mend.merge, ("vg/s", False)),
    ):
        with pytest.raises(volumes.VolumeBusy):
            ask(have, plan, *words)


def test_a_volume_is_deleted_with_what_it_holds_told():
    have = with_volume()
    uuid = device_uuid(have.groups["vg"], volume(have))
    have.signed[uuid] = Signature("ext4", "filesystem", "u-1", "music")
    plan = ask(have, lvm_volumes.delete, "/dev/vg/lv")
    assert [one.code for one in plan.notices] == ["CONTENT_LOST"]
    assert "music" in plan.notices[0].message and plan.bindings["volume"] == volume(have).uuid
    do(have, lvm_volumes.set_active, "vg/lv", False)
    plan = do(have, lvm_volumes.delete, f"dm-{uuid}")
    assert [one.code for one in plan.notices] == ["CONTENT_UNKNOWN"]
    with pytest.raises(volumes.VolumeNotFound):
        ask(have, lvm_volumes.delete, "vg/lv")


def test_renamed_once():
    have = with_volume()
    do(have, lvm_volumes.create, wanted("other"))
    with pytest.raises(volumes.VolumeExists):
        ask(have, lvm_volumes.rename, "vg/lv", "other")
    do(have, lvm_volumes.rename, "vg/lv", "new")
    assert ask(have, lvm_volumes.rename, "vg/new", "new").steps == ()


# -- snapshots and copies


def test_a_template_is_cloned_once_and_grown_and_never_shrunk():
    have = with_group("a", "b")
    do(have, lvm_volumes.create, wanted("pool", "thin-pool", 8))
    do(have, lvm_volumes.create, wanted("t", "thin", 6, pool="pool"))
    uuid = device_uuid(have.groups["vg"], volume(have, "t"))
    with pytest.raises(volumes.VolumeKind, match="no signature"):
        ask(have, lvm_mend.clone, ("vg/t", "c", 0, ""))
    have.signed[uuid] = Signature("ext4", "filesystem", "u-1")
    (step,) = do(have, lvm_mend.clone, ("vg/t", "c", 9 * EXTENT, "web.example")).steps
    assert "called web.example" in step.describe() and step.inverse() is None
    assert volume(have, "c").size_bytes == 9 * EXTENT
    assert ask(have, lvm_mend.clone, ("vg/t", "c", 9 * EXTENT, "web.example")).steps == ()
    with pytest.raises(volumes.VolumeExists):
        ask(have, lvm_mend.clone, ("vg/t", "pool", 0, ""))
    with pytest.raises(volumes.VolumeKind):
        ask(have, lvm_mend.clone, ("vg/pool", "x", 0, ""))
    for name, size, host in (("a b", 0, ""), ("x", EXTENT, ""), ("x", -1, ""), ("x", 0, "A b")):
        with pytest.raises(InvalidRequest):
            ask(have, lvm_mend.clone, ("vg/t", name, size, host))
    long = ".".join(["x" * 60] * 2)
    with pytest.raises(InvalidRequest):
        ask(have, lvm_mend.clone, ("vg/t", "x", 0, long))


def test_snapshots_are_taken_and_merged():
    have = with_volume(extents=8)
    plan = do(have, lvm_mend.snapshot, "vg/lv", "s", EXTENT)
    assert [one.code for one in plan.notices] == ["SNAPSHOT_SMALL"]
    assert ask(have, lvm_mend.snapshot, "vg/lv", "s", EXTENT).steps == ()
    do(have, lvm_volumes.create, wanted("other"))
    with pytest.raises(volumes.VolumeExists):
        ask(have, lvm_mend.snapshot, "vg/lv", "other", EXTENT)
    with pytest.raises(volumes.VolumeKind):
        ask(have, lvm_mend.snapshot, "vg/s", "t", EXTENT)
    with pytest.raises(InvalidRequest):
        ask(have, lvm_mend.snapshot, "vg/lv", "t", 0)
    with pytest.raises(volumes.VolumeKind):
        ask(have, lvm_mend.merge, "vg/lv", False)
    plan = do(have, lvm_mend.merge, "vg/s", False)
    assert plan.bindings["origin"] == volume(have).uuid and "lost" in plan.steps[0].describe()
    have.set_volume("vg", "lv", is_merging=False)
    # More room than all of it can take is not taken.
    (step,) = ask(have, lvm_mend.snapshot, "vg/lv", "s", 1 << 50).steps
    assert step.extents <= 11


def test_a_merge_that_goes_on_is_not_begun_again():
    have = with_volume()
    do(have, lvm_mend.snapshot, "vg/lv", "s", EXTENT)
    have.set_volume("vg", "s", is_merging=True)
    assert ask(have, lvm_mend.merge, "vg/s", False).steps == ()
    with pytest.raises(volumes.GroupBusy, match="merge of s"):
        ask(have, lvm_volumes.create, wanted("x"))


def test_the_device_of_a_mirror_that_is_gone_is_replaced_by_a_blank_one():
    have = with_volume("raid1", devices=serial("a", "b"))
    with pytest.raises(InvalidRequest):
        ask(have, lvm_mend.replace, "vg/lv", "", *serial("d"))
    have.pull("sda")
    with pytest.raises(InvalidRequest, match="copy"):
        ask(have, lvm_mend.replace, "vg/lv", "", *serial("b"))
    plan = do(have, lvm_mend.replace, "vg/lv", "", *serial("d"))
    assert [type(one) for one in plan.steps] == [ExtendGroup, RepairVolume]
    assert plan.steps[1].seqno == 0 and plan.bindings["device"].id == serial("d")[0]
    assert ask(have, lvm_mend.replace, "vg/lv", "", *serial("d")).steps == ()
    do(have, lvm_groups.reduce, "vg", "")
    # And one that is still there, by one that is in the group.
    (step,) = do(have, lvm_mend.replace, "vg/lv", *serial("b"), *serial("c")).steps
    assert "replace serial-Ssdb by serial-Ssdc" in step.describe()
    assert ask(have, lvm_mend.replace, "vg/lv", *serial("b"), *serial("c")).steps == ()


def test_what_cannot_be_replaced():
    have = with_volume("raid1", devices=serial("a", "b"), extents=10)
    small = replace(have, disks={**have.disks, "sdd": 20 * MIB})
    small.pull("sda")
    with pytest.raises(volumes.GroupFull):
        ask(small, lvm_mend.replace, "vg/lv", "", *serial("d"))
    have = with_volume("raid1", devices=serial("a", "b"), extents=10)
    do(have, lvm_volumes.create, wanted("x", extents=10, devices=serial("c")))
    have.pull("sda")
    with pytest.raises(volumes.GroupFull):
        ask(have, lvm_mend.replace, "vg/lv", "", *serial("c"))
    have.pull("sdb")
    with pytest.raises(volumes.VolumeLacksData):
        ask(have, lvm_mend.replace, "vg/lv", "", *serial("d"))
    with pytest.raises(volumes.VolumeKind):
        ask(have, lvm_mend.replace, "vg/x", "", *serial("d"))


def test_a_description_is_put_back_of_its_own_group_while_nothing_is_active():
    have = with_volume()
    kept = [("one", uuid_of("vg")), ("two", uuid_of("other"))]
    with pytest.raises(errors.SavedNotFound):
        ask(have, lvm_groups.restore, "vg", "two", kept)
    with pytest.raises(volumes.VolumeBusy):
        ask(have, lvm_groups.restore, "vg", "one", kept)
    do(have, lvm_volumes.set_active, "vg/lv", False)
    (step,) = do(have, lvm_groups.restore, "vg", "one", kept).steps
    assert step.inverse() is None and "kept as one" in step.describe()


@given(st.integers(1, 1 << 50), st.integers(1, 8))
def test_extents_hold_what_was_asked_and_no_more_than_one_stripe_beside(size, multiple):
    group = with_group("a").groups["vg"]
    extents = group.extents_of(size, multiple)
    assert extents % multiple == 0
    assert (extents - multiple) * EXTENT < size <= extents * EXTENT


def test_every_refusal_of_lvm_has_a_reason_of_its_own():
    kinds = [k for k in vars(volumes).values() if isinstance(k, type)]
    own = [k for k in kinds if issubclass(k, DomainError) and k is not DomainError]
    assert len({k.reason for k in own}) == len(own) > 10
