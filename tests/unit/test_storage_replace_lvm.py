"""What of LVM comes back with a disk: moved from one that is there, mended for one that is not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from storage_lvm import EXTENT, MIB, World, uuid_of
from storage_replacing import UNASKED, table

from hostlerd.runtime.steps import canonical
from hostlerd.storage import errors
from hostlerd.storage.model.declared import Units
from hostlerd.storage.model.filesystem_steps import WipeSignatures
from hostlerd.storage.model.lvm_steps import ExtendGroup, ReduceGroup, RemoveMissing, StartMove
from hostlerd.storage.model.lvm_volume_steps import RepairVolume
from hostlerd.storage.model.replacement import Fate, Replacement
from hostlerd.storage.model.table import empty
from hostlerd.storage.plan import lvm_groups, lvm_volumes, replace_disk
from hostlerd.storage.plan.lvm_volumes import Wanted
from hostlerd.storage.plan.replace_case import Asked, Case, case
from hostlerd.storage.plan.replace_lvm import of_lvm
from hostlerd.storage.worker.carry import check
from hostlerd.storage.worker.operations import OPERATIONS

LVM_TYPE = "E6D6D379-F507-44C2-A23C-238F2A3DF928"


def host(*volumes: tuple[str, str, int, str], mib: int = 65) -> World:
    """A group of a and b, volumes of so many extents (name, kind, extents, on), and c, blank."""
    have = World({f"sd{letter}": mib * MIB for letter in "abc"})
    for step in lvm_groups.create(
        lvm_groups.Wanted("vg", ("serial-Ssda", "serial-Ssdb")), have.seen, have.graph
    ).steps:
        have.apply(step)
    for name, kind, extents, on in volumes:
        devices = tuple(f"serial-Ssd{letter}" for letter in on)
        wanted = Wanted("vg", name, kind, size_bytes=extents * EXTENT, devices=devices)
        for step in lvm_volumes.create(wanted, have.seen, have.graph).steps:
            have.apply(step)
    return have


def known(have: World, old: str, new: str = "c") -> Case:
    asked = Asked(f"serial-Ssd{old}", f"serial-Ssd{new}")
    return case(asked, have.observed, have.graph, (), Units(), have.seen)


def look(have: World, old: str) -> tuple[Case, Replacement]:
    one = known(have, old)
    none = empty("", have.disks["sdc"], 512)
    return one, replace_disk.examine(one, none, None, smart=UNASKED)


def kinds(have: World, old: str) -> list[type]:
    return [type(one) for one in replace_disk.plan(*look(have, old)).steps]


def run(have: World, old: str, most: int = 99) -> list[type]:
    done = []
    for step in replace_disk.plan(*look(have, old)).steps[:most]:
        have.apply(step)
        done.append(type(step))
    return done


def pull(have: World, disk: str) -> None:
    """Have it be gone from the host as well; the numbers of the others stay."""
    have.pull(disk)
    number = list(have.disks).index(disk)
    disks = list(have.disks.items())
    disks[number] = (f"gone{number}", 1 << 12)
    have.disks = dict(disks)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(0, 4), st.integers(0, 5), st.booleans())
def test_all_is_on_the_new_disk_wherever_it_was_cut_off(mirror, linear, cut, is_pulled):
    volumes = [("m", "raid1", mirror, "ab")]
    if linear and not is_pulled:
        volumes.append(("l", "linear", linear, "a"))
    have = host(*volumes)
    if is_pulled:
        pull(have, "sda")
    run(have, "a", cut)
    for _ in range(3):
        run(have, "a")
    assert kinds(have, "a") == []
    (content,) = [one for one in look(have, "a")[1].contents if one.kind == "lvm"]
    assert content.fate is Fate.DONE
    (group,) = have.seen
    numbers = {one.number for one in group.physical}
    assert numbers == {have.number("sdb"), have.number("sdc")} and not group.missing
    new = group.carrier(have.number("sdc"))
    assert new is not None and all(new.uuid in v.carriers for v in group.visible)
    assert "sda" not in have.signed


def test_of_a_disk_that_is_there_all_is_moved_while_it_is_used():
    have = host(("m", "raid1", 3, "ab"), ("l", "linear", 2, "a"))
    assert run(have, "a") == [ExtendGroup, StartMove]
    _, found = look(have, "a")
    assert not found.errors and kinds(have, "a") == [ReduceGroup, WipeSignatures]


def test_of_a_disk_that_is_gone_mirrors_are_mended_and_the_group_does_without_it():
    have = host(("m", "raid1", 3, "ab"))
    pull(have, "sda")
    steps = replace_disk.plan(*look(have, "a")).steps
    assert [type(one) for one in steps] == [ExtendGroup, RepairVolume, RemoveMissing]
    seqnos = [one.seqno for one in steps]
    assert seqnos[0] == have.groups["vg"].seqno and seqnos[1:] == [0, 0]
    (content,) = [one for one in look(have, "a")[1].contents if one.kind == "lvm"]
    assert content.follow is not None and content.follow.size_bytes == 4 * EXTENT
    for step in steps:
        have.apply(step)
    have.set_volume("vg", "m", sync_percent=40.0)
    (content,) = [one for one in look(have, "a")[1].contents if one.kind == "lvm"]
    assert content.fate is Fate.RUNNING and content.follow is not None


def words_of(have: World, old: str = "a") -> str:
    (one,) = [each for each in look(have, old)[1].contents if each.kind == "lvm"]
    assert one.fate is Fate.BY_HAND and not one.steps
    return one.words


def test_what_had_no_other_copy_is_left_to_people():
    have = host(("m", "raid1", 3, "ab"), ("l", "linear", 2, "a"))
    pull(have, "sda")
    assert "l had no other copy" in words_of(have)
    plan = replace_disk.plan(*look(have, "a"))
    assert not plan.steps and plan.notices[0].code == "NOT_BROUGHT_BACK"


def test_what_goes_on_or_is_others_is_left_alone():
    have = host(("m", "raid1", 3, "ab"))
    have.groups["vg"] = replace(have.groups["vg"], is_foreign=True)
    assert "exported" in words_of(have)
    have = host(("m", "raid1", 3, "ab"))
    have.set_volume("vg", "m", moves="/dev/sda")
    (one,) = [each for each in look(have, "a")[1].contents if each.kind == "lvm"]
    assert one.fate is Fate.RUNNING
    have.set_volume("vg", "m", moves="/dev/sdx")
    assert "busy with" in words_of(have)
    pull(have, "sda")
    assert "busy with" in words_of(have)
    have = host(("m", "raid1", 3, "ab"))
    have.pull("sdb")
    assert "lacks 1 other devices" in words_of(have)


def test_a_disk_that_is_too_small_is_refused():
    have = host(("m", "raid1", 4, "ab"))
    have.disks["sdc"] = 18 * MIB
    pull(have, "sda")
    _, found = look(have, "a")
    assert {one.code for one in found.errors} == {"NEW_TOO_SMALL"}
    with pytest.raises(errors.ReplacementRefused):
        kinds(have, "a")
    have.disks["sdc"] = 65 * MIB
    assert not look(have, "a")[1].errors


def parted(have: World, want: Any) -> tuple[Any, ...]:
    """What is planned where the others are partitions, on one that the table makes."""
    one = known(have, "a")
    moved = {name: (name, 0) if name == "sdc" else (f"x{name}", 2) for name in one.places}
    one = replace(one, places=moved, want=want)
    return tuple(of_lvm(one))


def test_a_partition_that_is_made_before_takes_the_place():
    have = host(("m", "raid1", 3, "ab"))
    pull(have, "sda")
    (content,) = parted(have, table(64 * MIB, (8, LVM_TYPE), (48, LVM_TYPE)))
    added, mended, _ = content.steps
    assert added.device.part is not None and added.device.part.number == 2
    number = have.number("sdc")
    assert mended.number == f"{number}/2" and "partition 2" in mended.describe()
    assert added.inverse().number == f"{number}/2"
    for step in (added, mended, added.inverse()):
        fields = {"op": type(step).__name__, **canonical(step)}
        assert check(fields, OPERATIONS)[0] == fields["op"]
    # Nothing says where it would be.
    (content,) = parted(have, None)
    assert content.fate is Fate.TO_DO and not content.steps
    (content,) = parted(have, table(64 * MIB, (8, LVM_TYPE)))
    assert content.fate is Fate.TO_DO and not content.steps
    assert uuid_of("vg") in content.id


def test_devices_that_are_no_partitions_of_one_number_are_left_to_people():
    have = World({f"sd{letter}": 65 * MIB for letter in "abcd"})
    named = tuple(f"serial-Ssd{letter}" for letter in "abd")
    for step in lvm_groups.create(lvm_groups.Wanted("vg", named), have.seen, have.graph).steps:
        have.apply(step)
    pull(have, "sda")
    one = known(have, "a")
    one = replace(one, places={**one.places, "sdd": ("sdx", 3)})
    (content,) = of_lvm(one)
    assert content.fate is Fate.BY_HAND and "partitions of one number" in content.words
