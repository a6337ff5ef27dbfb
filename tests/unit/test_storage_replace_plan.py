"""Plans of replacements: all comes back, nothing is ever lost, cut off they are taken up again."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from storage_arrays import MIB, uuid_of
from storage_replacing import MISSING, RAID, SWAP, Host, array_of, pool, table

from hostlerd.runtime.errors import InvalidRequest
from hostlerd.storage import errors
from hostlerd.storage.model.array import Sync
from hostlerd.storage.model.array_steps import (
    AddMember,
    CreateArray,
    FailMember,
    RemoveDetached,
    RemoveMember,
    ReplaceMember,
)
from hostlerd.storage.model.btrfs_steps import StartReplace
from hostlerd.storage.model.declared import ActiveSwap, Declared, Units
from hostlerd.storage.model.filesystem_steps import MakeFilesystem, WipeSignatures
from hostlerd.storage.model.mount import Unit
from hostlerd.storage.model.mount_steps import SetSwap
from hostlerd.storage.model.observed import Boot, FstabLine, Signature
from hostlerd.storage.model.replacement import Fate, Weight
from hostlerd.storage.model.smart import Smart, parse
from hostlerd.storage.model.table import GPT
from hostlerd.storage.model.table_steps import ChangeTable
from hostlerd.storage.model.target import Target
from hostlerd.storage.plan.locate import locate
from hostlerd.storage.plan.replace_case import Asked
from hostlerd.storage.plan.table_arrange import WORDS
from hostlerd.storage.worker import sysfs
from hostlerd.storage.worker.locator import switched

GIB = 1 << 30
POOL = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
AREA = "1f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f1"
BLANK = "blank"


def asked(old: str, new: str = BLANK, **more: Any) -> Asked:
    return Asked(f"serial-S{old}", f"serial-S{new}", **more)


def target(name: str) -> Target:
    return Target(f"x-{name}", name, "8:1", 64 * MIB, 1)


def arrayed(
    host: Host, label: str, level: str, names: list[str], layout: str = "", spare: str = ""
) -> None:
    sizes = {**host.disks, **host.part_sizes(), **{one.name: 64 * MIB for one in host.seen}}
    devices = tuple(replace(target(name), size_bytes=sizes[name]) for name in names)
    spares = (target(spare),) if spare else ()
    host.apply(CreateArray(label, level, devices, spares, layout, 64 << 10))


def whole(level: str, count: int, layout: str = "") -> Host:
    """An array of whole disks, and a blank one."""
    names = [f"d{letter}" for letter in "abcdef"[:count]]
    host = Host({name: 64 * MIB for name in (*names, BLANK)})
    arrayed(host, "data", level, names, layout)
    return host


def parted(level: str, count: int, *parts: int, layout: str = "") -> Host:
    """Disks with the same partitions, an array of each number, and a blank disk that is larger."""
    names = [f"d{letter}" for letter in "abcdef"[:count]]
    host = Host({**{name: 256 * MIB for name in names}, BLANK: 300 * MIB})
    for name in names:
        host.tables[name] = table(256 * MIB, *((size, RAID) for size in parts))
    for number in range(1, len(parts) + 1):
        arrayed(host, f"n{number}", level, [f"{name}{number}" for name in names], layout)
    return host


def run(host: Host, wanted: Asked, most: int | None = None) -> list[type]:
    """Carry steps out, at most so many; none of them may lose anything."""
    kinds: list[type] = []
    for step in host.plan(wanted).steps:
        if most is not None and len(kinds) >= most:
            return kinds
        host.apply(step)
        kinds.append(type(step))
        for one in host.seen:
            assert one.has_all_data(), step.describe()
    return kinds


def done(host: Host, wanted: Asked) -> None:
    """Carry it out to its end, as a job does: what is copied is looked at anew."""
    for _ in range(3):
        run(host, wanted)
        host.finish()
    assert host.plan(wanted).steps == ()
    _, found = host.look(wanted)
    assert {one.fate for one in found.contents} <= {Fate.DONE, Fate.BY_HAND}


def is_whole(host: Host, old: str, new: str = BLANK) -> bool:
    """Whether all arrays have all their members, the new disk's and not the old one's."""
    for one in host.seen:
        names = {m.name for m in one.members}
        if one.degraded or any(n.startswith(old) for n in names):
            return False
        if not any(n.startswith(new) for n in names) and not any(n[:2] == "md" for n in names):
            return False
    return True


LEVELS = [
    *(("raid1", 2, ""), ("raid1", 3, ""), ("raid5", 3, ""), ("raid6", 4, "")),
    *(("raid10", 3, "o3"), ("raid10", 4, "n2"), ("raid10", 3, "f2"), ("raid10", 4, "o2")),
]


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(LEVELS),
    st.sampled_from([(), (60,), (40, 80), (20, 30, 90)]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 6),
    st.data(),
)
def test_all_comes_back_wherever_it_was_cut_off(shape, parts, is_pulled, takes_out, cut, data):
    """Of every level, whole disks and partitions; pulled or there; md has noticed or has not."""
    level, count, layout = shape
    host = parted(level, count, *parts, layout=layout) if parts else whole(level, count, layout)
    names = [name for name in host.disks if name != BLANK]
    old = data.draw(st.sampled_from(names))
    model = host.tables.get(old)
    wanted = asked(old)
    if is_pulled:
        host.pull(old)
        if takes_out:
            for uuid, one in host.arrays.items():
                there = tuple(m for m in one.members if m.is_there)
                host.arrays[uuid] = replace(one, members=there)
    run(host, wanted, cut)
    if data.draw(st.booleans()):
        host.finish()
    if data.draw(st.booleans()):
        host.cut_off()
        host.finish()
    done(host, wanted)
    assert is_whole(host, old)
    if model is not None:
        made = host.tables[BLANK]
        assert [(e.number, e.start_sector, e.size_sectors, e.type) for e in made.entries] == [
            (e.number, e.start_sector, e.size_sectors, e.type) for e in model.entries
        ]
        assert made.id != model.id and not {e.uuid for e in made.entries} & {
            e.uuid for e in model.entries
        }


# -- the dying disk is read from as a last resort


@pytest.mark.parametrize(
    ("level", "count", "layout", "kinds"),
    [
        # One more loss would be the end: it stays in use until the copy is there.
        ("raid1", 2, "", [AddMember, ReplaceMember]),
        ("raid5", 3, "", [AddMember, ReplaceMember]),
        ("raid10", 4, "n2", [AddMember, ReplaceMember]),
        ("raid1", 3, "", [AddMember, FailMember, RemoveMember]),
        ("raid6", 4, "", [AddMember, FailMember, RemoveMember]),
        ("raid10", 3, "o3", [AddMember, FailMember, RemoveMember]),
    ],
)
def test_the_old_disk_is_read_only_where_the_last_copy_would_be_alone(level, count, layout, kinds):
    host = whole(level, count, layout)
    assert run(host, asked("db")) == kinds


def test_what_was_copied_to_the_end_is_taken_out():
    host = whole("raid1", 2)
    run(host, asked("db"))
    _, found = host.look(asked("db"))
    assert [one.fate for one in found.contents] == [Fate.RUNNING]
    assert found.contents[0].follow.kind == "md" and not found.steps
    host.finish()
    assert run(host, asked("db")) == [RemoveMember]
    assert is_whole(host, "db")


def test_a_spare_and_a_failed_member_are_taken_out_first():
    host = Host({name: 64 * MIB for name in ("da", "db", "dc", BLANK)})
    arrayed(host, "data", "raid1", ["da", "db"], spare="dc")
    assert run(host, asked("dc")) == [RemoveMember, AddMember]
    host = whole("raid1", 2)
    host.apply(FailMember(target("md127"), uuid_of("data"), target("db")))
    assert run(host, asked("db")) == [RemoveMember, AddMember]


def test_a_stripe_of_mirrors_needs_the_mirror_alone():
    host = Host({name: 64 * MIB for name in ("a1", "a2", "b1", "b2", BLANK)})
    for leg in "ab":
        arrayed(host, leg, "raid1", [f"{leg}1", f"{leg}2"])
    arrayed(host, "data", "raid0", [array_of(host, leg).name for leg in "ab"])
    host.pull("a2")
    plan = host.plan(asked("a2"))
    assert [type(one) for one in plan.steps] == [RemoveDetached, AddMember]
    done(host, asked("a2"))
    assert array_of(host, "a").degraded == 0


def test_a_member_of_a_stripe_cannot_come_back():
    host = whole("raid0", 2)
    _, found = host.look(asked("db"))
    assert [one.fate for one in found.contents] == [Fate.BY_HAND]
    plan = host.plan(asked("db"))
    assert plan.steps == () and plan.notices[0].code == "NOT_BROUGHT_BACK"
    assert "has no other copy" in plan.notices[0].message


def test_what_md_has_taken_out_before_is_known_by_its_superblock():
    host = parted("raid1", 2, 40, 40)
    for step in (FailMember, RemoveMember):
        host.apply(step(target("md127"), uuid_of("n1"), target("db1")))
    kinds = [type(one) for one in host.plan(asked("db")).steps]
    assert kinds == [ChangeTable, AddMember, AddMember, ReplaceMember]
    done(host, asked("db"))
    assert is_whole(host, "db")


# -- which disks are meant


def test_what_is_called_by_nothing_is_gone_if_anything_lacks():
    host = whole("raid1", 2)
    with pytest.raises(errors.DeviceNotFound, match="nothing lacks one"):
        host.plan(asked("gone"))
    # A filesystem of fstab that is not plugged in lacks nothing that could be replaced.
    host.more = {"fstab": (FstabLine(3, f"UUID={AREA}", "/stick", "ext4", ()),)}
    with pytest.raises(errors.DeviceNotFound):
        host.plan(asked("gone"))
    host.pull("da")
    _, found = host.look(asked("da"))
    assert found.old == "serial-Sda" and not found.pull.is_there
    assert "none of those with the serial numbers Sblank, Sdb" in found.pull.words
    assert [one.kind for one in found.contents] == ["array", "filesystem"]
    with pytest.raises(InvalidRequest):
        host.plan(asked("db", "db"))
    with pytest.raises(InvalidRequest):
        host.plan(Asked("", f"serial-S{BLANK}"))
    with pytest.raises(errors.DeviceNotFound):
        host.plan(asked("db", "none"))
    parts = parted("raid1", 2, 40)
    with pytest.raises(InvalidRequest, match="is a partition"):
        parts.plan(Asked("serial-Sda-part1", f"serial-S{BLANK}"))


def test_a_disk_to_pull_is_told_by_all_that_tells_it():
    host = whole("raid1", 2)
    host.of_disks["db"] = {"model": "ST4000", "slot": "pci-0000:00:1f.2-ata-3", "wwn": "0x5"}
    host.of_disks["da"] = {"wwn": "0x4"}
    _, found = host.look(Asked("wwn-0x5", f"serial-S{BLANK}"))
    assert (found.pull.serial, found.pull.wwn, found.pull.is_there) == ("Sdb", "0x5", True)
    for word in ("ST4000", "(db)", "serial number Sdb", "ata-3", "when this is over"):
        assert word in found.pull.words


def test_two_disks_that_are_gone_are_told_apart_by_whoever_asks():
    host = Host({name: 64 * MIB for name in ("a1", "a2", "b1", "b2", BLANK)})
    for leg in "ab":
        arrayed(host, leg, "raid1", [f"{leg}1", f"{leg}2"])
    host.pull("a2")
    host.pull("b2")
    with pytest.raises(errors.ReplacementRefused, match="say which of them was on"):
        host.plan(asked("a2"))
    only = asked("a2", only=(f"md-{uuid_of('a')}",))
    assert [type(one) for one in host.plan(only).steps] == [RemoveDetached, AddMember]
    assert {one.uuid for one in host.plan(only).steps} == {uuid_of("a")}


def test_devices_that_are_no_partitions_of_one_number_are_left_to_people():
    host = parted("raid1", 3, 40, 40)
    host.arrays.clear()
    host.signed.clear()
    arrayed(host, "odd", "raid1", ["da1", "db2", "dc1"])
    host.pull("dc")
    _, found = host.look(asked("dc"))
    assert [one.fate for one in found.contents] == [Fate.BY_HAND]
    assert "partitions of one number" in found.contents[0].words


# -- what the table is copied from


def test_the_table_is_the_old_disks_or_one_with_the_other_halves():
    host = parted("raid1", 2, 40, 80)
    assert host.look(asked("da"))[1].table_of == "serial-Sda"
    host.pull("da")
    _, found = host.look(asked("da"))
    assert found.table_of == "serial-Sdb"
    assert isinstance(found.steps[0], ChangeTable) and len(found.steps) == 5
    added = [one.device for one in found.steps if isinstance(one, AddMember)]
    assert [(one.part.number, one.kernel_name) for one in added] == [(1, "blank1"), (2, "blank2")]
    assert "partition 2 (83886080 bytes) of serial-Sblank" in added[1].describe()
    host.tables["dc"] = table(256 * MIB, (40, RAID), (80, RAID), (20, SWAP))
    host.disks["dc"] = 256 * MIB
    assert len(host.look(asked("da", table_from="serial-Sdc"))[1].steps[0].entries) == 3


def test_a_table_that_somebody_changed_after_the_end_stays():
    host = parted("raid1", 2, 40)
    done(host, asked("da"))
    more = table(300 * MIB, (40, RAID), (30, SWAP))
    host.tables[BLANK] = replace(more, entries=(host.tables[BLANK].entries[0], more.entries[1]))
    assert host.plan(asked("da")).steps == ()


def test_partitions_of_nvme_are_called_with_a_p():
    assert replace(target("nvme0n1"), part=None).kernel_name == "nvme0n1"
    host = parted("raid1", 2, 40)
    host.disks["nvme0n1"] = 300 * MIB
    (step,) = [s for s in host.plan(asked("da", "nvme0n1")).steps if isinstance(s, AddMember)]
    assert step.device.kernel_name == "nvme0n1p1"


# -- the new disk is looked at first


def codes(host: Host, wanted: Asked, weight: Weight) -> set[str]:
    return {one.code for one in host.look(wanted)[1].findings if one.weight is weight}


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        ({"is_read_only": True}, "NEW_READ_ONLY"),
        ({"state": "offline"}, "NEW_NOT_RUNNING"),
        ({"size_bytes": 32 * MIB}, "NEW_TOO_SMALL"),
        ({"dm_name": "crypt"}, "NEW_IS_NO_DISK"),
        ({"signatures": (Signature("ext4", "filesystem", AREA),)}, "NEW_NOT_EMPTY"),
    ],
)
def test_a_disk_that_does_not_do_is_refused(facts, code):
    host = whole("raid1", 2)
    host.of_disks[BLANK] = facts
    assert codes(host, asked("db"), Weight.ERROR) == {code}
    with pytest.raises(errors.ReplacementRefused) as refused:
        host.plan(asked("db"))
    assert refused.value.metadata["findings"] == code


def test_what_is_to_be_known_of_the_new_disk_is_told():
    host = whole("raid1", 2)
    assert codes(host, asked("db"), Weight.NOTE) == {"SMART_UNKNOWN"}
    host.of_disks[BLANK] = {"is_rotational": True, "is_removable": True}
    host.of_disks[BLANK] |= {"logical_sector_bytes": 4096, "physical_sector_bytes": 4096}
    assert codes(host, asked("db"), Weight.NOTE) == {"SMART_UNKNOWN", "KIND_DIFFERS"}
    assert codes(host, asked("db"), Weight.WARNING) == {"SECTORS_DIFFER", "NEW_REMOVABLE"}
    host.of_disks[BLANK] = {"physical_sector_bytes": 4096}
    assert codes(host, asked("db"), Weight.NOTE) == {"SMART_UNKNOWN", "SECTORS_DIFFER"}
    # The disks beside one that is gone are what the new one is compared with.
    host.pull("db")
    assert codes(host, asked("db"), Weight.NOTE) == {"SMART_UNKNOWN", "SECTORS_DIFFER"}


def of_smart(host: Host, smart: Smart) -> dict[str, Weight]:
    _, found = host.look(asked("db"), smart=smart)
    return {one.code: one.weight for one in found.findings}


def test_what_the_new_disk_says_of_itself_counts():
    host = whole("raid1", 2)
    assert of_smart(host, Smart(None, "it is virtual")) == {"SMART_UNKNOWN": Weight.NOTE}
    assert of_smart(host, Smart(True, hours=0)) == {}
    worn = Smart(True, hours=7, damage=("3 media errors",))
    assert of_smart(host, worn) == {"SMART_DAMAGE": Weight.WARNING, "NOT_NEW": Weight.NOTE}
    assert of_smart(host, Smart(False)) == {"SMART_FAILING": Weight.ERROR}


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_whatever_smartctl_says_is_no_error(value):
    said = {
        "smart_status": {"passed": value},
        "power_on_time": {"hours": value},
        "ata_smart_attributes": {"table": value},
        "smartctl": {"messages": value},
        "nvme_smart_health_information_log": {"media_errors": value},
    }
    for one in (value, said, {**said, "smart_status": {"passed": True}}):
        assert parse(json.dumps(one)).passed in (None, True, False)


def test_what_smartctl_says_is_read():
    assert parse("no").why == "smartctl said nothing that can be read"
    words = "/dev/vda: Unable to detect device type"
    said = {"smartctl": {"messages": [{"string": words}, 7]}}
    assert parse(json.dumps(said)) == Smart(None, words)
    assert parse("{}") == Smart(None, "the disk does not say")
    table = [
        {"id": 5, "raw": {"value": 8}},
        {"id": 9, "raw": {"value": 3}},
        {"id": 197, "raw": {"value": 0}},
    ]
    said = {"smart_status": {"passed": True}, "ata_smart_attributes": {"table": table}}
    said |= {"power_on_time": {"hours": 12}, "scsi_grown_defect_list": 2}
    assert parse(json.dumps(said)) == Smart(
        True, hours=12, damage=("8 reallocated sectors", "2 grown defects")
    )
    said = {"smart_status": {"passed": False}}
    said |= {"nvme_smart_health_information_log": {"media_errors": 4, "critical_warning": 0}}
    assert parse(json.dumps(said)) == Smart(False, damage=("4 media errors",))


def test_a_disk_in_use_is_refused():
    host = whole("raid1", 2)
    host.disks |= {"x1": 64 * MIB, "x2": 64 * MIB}
    arrayed(host, "other", "raid1", ["x1", "x2"])
    wanted = asked("db", "x1", only=(f"md-{uuid_of('data')}",))
    assert {"NEW_IN_USE"} <= codes(host, wanted, Weight.ERROR)


def test_a_table_that_does_not_fit_is_told():
    host = parted("raid1", 2, 40, 200)
    host.disks[BLANK] = 128 * MIB
    assert "TABLE_DOES_NOT_FIT" in codes(host, asked("da"), Weight.ERROR)
    with pytest.raises(errors.ReplacementRefused, match="ends at"):
        host.plan(asked("da"))
    # A member on a partition, and no disk to copy a table from.
    host = parted("raid1", 2, 40)
    host.tables["plain"] = table(256 * MIB)
    host.disks["plain"] = 256 * MIB
    host.pull("da")
    wanted = asked("da", table_from="serial-Splain")
    assert "TABLE_UNKNOWN" in codes(host, wanted, Weight.ERROR)


def test_partitions_on_the_new_disk_go_only_if_they_may():
    host = parted("raid1", 2, 40)
    host.tables[BLANK] = table(300 * MIB, (100, RAID))
    assert "NEW_NOT_EMPTY" in codes(host, asked("da"), Weight.ERROR)
    wanted = asked("da", erase=True)
    assert "CONTENT_LOST" in codes(host, wanted, Weight.WARNING)
    # Its first partition begins where the wanted one does, and is another one all the same.
    (added,) = [one for one in host.plan(wanted).steps if isinstance(one, AddMember)]
    assert added.device.part is not None and added.device.part.size_bytes == 40 * MIB
    done(host, wanted)
    assert is_whole(host, "da")
    # The same places, with something on them that came from elsewhere.
    host = parted("raid1", 2, 40)
    host.tables[BLANK] = table(300 * MIB, (40, RAID))
    host.signed["blank1"] = Signature("ext4", "filesystem", AREA)
    assert "NEW_NOT_EMPTY" in codes(host, asked("da"), Weight.ERROR)
    # What the array itself had written there before it was cut off is its own.
    host.signed["blank1"] = Signature("linux_raid_member", "raid", uuid_of("n1"))
    assert not codes(host, asked("da"), Weight.ERROR)
    # A disk as a whole, over partitions.
    host = whole("raid1", 2)
    host.tables[BLANK] = table(64 * MIB, (16, RAID))
    assert "NEW_NOT_EMPTY" in codes(host, asked("da"), Weight.ERROR)


# -- btrfs


def test_a_device_of_btrfs_is_replaced_from_the_others():
    host = Host({name: 256 * MIB for name in ("da", "db", BLANK)})
    host.pools = [pool(POOL, "da", "db")]
    (step,) = host.plan(asked("db")).steps
    assert isinstance(step, StartReplace) and step.avoids_old and step.old[0].name == "db"
    assert "read from only where no other has it" in step.describe()
    # It is pulled: btrfs goes on to have it, and does not call it missing.
    host.pull("db")
    (step,) = host.plan(asked("db")).steps
    assert (step.old, step.device_id) == ((), 2)
    host.pools = [pool(POOL, "da", MISSING), pool(AREA, "", "")]
    done(host, asked("db"))
    assert [one.name for one in host.pools[0].devices] == ["da", BLANK]


def test_a_replacement_of_btrfs_that_goes_on_is_watched():
    host = Host({name: 256 * MIB for name in ("da", "db", BLANK)})
    busy = replace(pool(POOL, "da", "db", BLANK), exclusive_operation="device replace")
    host.pools = [busy]
    _, found = host.look(asked("db"))
    (one,) = found.contents
    assert (one.fate, one.follow.kind, one.follow.size_bytes) == (
        *(Fate.RUNNING, "btrfs", 64 * MIB),
    )
    host.pools = [replace(pool(POOL, "da", "db"), exclusive_operation="device replace")]
    assert not host.look(asked("db"))[1].contents


def test_what_btrfs_cannot_do_is_left_to_people():
    host = Host({name: 256 * MIB for name in ("da", "db", "dc", BLANK)})
    host.pools = [replace(pool(POOL, "da", "db"), exclusive_operation="balance")]
    assert "busy with balance" in host.look(asked("db"))[1].contents[0].words
    host.pools = [pool(POOL, "da", MISSING, MISSING)]
    (one, two) = host.look(asked("gone"))[1].contents
    assert one.fate is two.fate is Fate.BY_HAND and "lacks 2 devices" in one.words
    host.tables["dc"] = table(256 * MIB, (64, RAID), (64, RAID))
    host.pools = [pool(POOL, "dc1", "da", MISSING)]
    assert "partitions of one number" in host.look(asked("gone"))[1].contents[0].words
    host.pools = [pool(POOL, "dc1", MISSING)]
    _, found = host.look(asked("gone"))
    assert found.table_of == "serial-Sdc" and [type(s) for s in found.steps] == [
        *(ChangeTable, StartReplace),
    ]


# -- swap areas, and what is only told


def swapped(host: Host, *, is_ours: bool, used: bool) -> None:
    what = f"/dev/disk/by-uuid/{AREA}"
    unit = Unit(what, "", "swap") if is_ours else None
    declared = Declared("", what, "swap", (), "/etc/x.swap" if is_ours else "fstab line 1", unit)
    name = f"8:{16 * list(host.disks).index('da') + 2}" if "da" in host.disks else ""
    swaps = (ActiveSwap("/dev/da2", name, 8 * MIB, 0, -2),) if used else ()
    host.units = Units((declared,), swaps=swaps)


def with_swap() -> Host:
    host = Host({"da": 256 * MIB, "db": 256 * MIB, BLANK: 300 * MIB})
    for name in ("da", "db"):
        host.tables[name] = table(256 * MIB, (40, RAID), (20, SWAP))
    arrayed(host, "root", "raid1", ["da1", "db1"])
    host.signed["da2"] = Signature("swap", "other", AREA, "area")
    return host


def test_a_swap_area_comes_back_under_its_uuid():
    host = with_swap()
    swapped(host, is_ours=True, used=True)
    kinds = [type(one) for one in host.plan(asked("da")).steps]
    assert kinds[-4:] == [SetSwap, WipeSignatures, MakeFilesystem, SetSwap]
    host.units = replace(host.units, swaps=())
    done(host, asked("da"))
    assert host.signed["blank2"].uuid == AREA and "da2" not in host.signed
    host = with_swap()
    swapped(host, is_ours=False, used=True)
    (swap,) = [one for one in host.look(asked("da"))[1].contents if one.kind == "swap"]
    assert swap.fate is Fate.BY_HAND and "swap it off" in swap.words


def test_the_swap_area_of_a_disk_that_is_gone_comes_back_for_what_declares_it():
    host = with_swap()
    swapped(host, is_ours=True, used=False)
    del host.signed["da2"]
    host.pull("da")
    plan = host.plan(asked("da"))
    assert [type(one) for one in plan.steps][-2:] == [MakeFilesystem, SetSwap]
    assert plan.steps[-2].uuid == AREA and plan.steps[-2].device.part.number == 2
    swapped(host, is_ours=False, used=False)
    assert [type(one) for one in host.plan(asked("da")).steps][-1] is MakeFilesystem
    # The table has no place for it.
    host = whole("raid1", 2)
    swapped(host, is_ours=True, used=False)
    host.pull("db")
    told = [one.words for one in host.look(asked("db"))[1].contents]
    assert any("the table has no place for it" in one for one in told)


def test_what_nothing_brings_back_is_told():
    host = parted("raid1", 2, 40, 40)
    del host.arrays[uuid_of("n2")]
    host.signed["da2"] = Signature("ext4", "filesystem", AREA, "home")
    host.signed["db2"] = Signature("LVM2_member", "raid", "pv")
    told = {one.kind: one for one in host.look(asked("da"))[1].contents}
    assert told["filesystem"].fate is Fate.BY_HAND
    assert "ext4 home has no other copy" in told["filesystem"].words
    told = {one.kind: one for one in host.look(asked("db"))[1].contents}
    assert "by its own tool" in told["LVM2_member"].words
    host.more = {"fstab": (FstabLine(7, f"UUID={AREA}", "/home", "ext4", ()),)}
    host.pull("da")
    plan = host.plan(asked("da"))
    assert any("/home of fstab line 7" in one.message for one in plan.notices)


def test_a_disk_that_had_nothing_but_a_table_has_it_copied():
    host = parted("raid1", 2, 40)
    host.arrays.clear()
    host.signed.clear()
    assert [type(one) for one in host.plan(asked("da")).steps] == [ChangeTable]
    done(host, asked("da"))


# -- the boot loader


def test_what_a_boot_loader_needs_is_noted():
    host = parted("raid1", 2, 40)
    host.tables["da"] = table(
        *(256 * MIB, (40, RAID), (2, WORDS[GPT]["bios-boot"]), (32, WORDS[GPT]["efi"]))
    )
    host.of_disks[BLANK] = {"links": ("/dev/disk/by-path/x", "/dev/disk/by-id/virtio-blank")}
    _, found = host.look(asked("da"))
    notes = {one.code: one for one in found.boot}
    assert set(notes) == {"BIOS_LOADER", "EFI_PARTITION"}
    assert notes["BIOS_LOADER"].command == "grub-install /dev/disk/by-id/virtio-blank"
    assert "partition 3" in notes["EFI_PARTITION"].message
    host.more = {"boot": Boot(loader_partition_uuid="U-DA1")}
    assert "BOOTED_FROM_OLD" in {one.code for one in host.look(asked("da"))[1].boot}
    plain = whole("raid1", 2)
    assert not plain.look(asked("da"))[1].boot
    (note,) = plain.look(asked("da"), code=True)[1].boot
    assert note.command == "grub-install /dev/blank"


def test_the_plan_is_bound_to_the_new_disk_and_says_what_to_pull():
    host = whole("raid1", 2)
    plan = host.plan(asked("db"))
    assert plan.bindings["new"]["serial"] == "Sblank"
    assert plan.notices[-1].code == "PULL"
    host.of_disks[BLANK] = {"disk_sequence": 99}
    assert host.plan(asked("db")).bindings != plan.bindings
    assert Sync().is_idle and GIB


# -- the bay that a disk is in


def test_an_enclosure_blinks_at_a_disk_that_is_in_it():
    host = whole("raid1", 2)
    host.of_disks["db"] = {"enclosure": "6:0:12:0", "bay": "Slot 07"}
    pulled = host.look(asked("db"))[1].pull
    assert (pulled.enclosure, pulled.bay) == ("6:0:12:0", "Slot 07")
    assert "at bay Slot 07 of enclosure 6:0:12:0" in pulled.words
    for is_on in (True, False):
        (step,) = locate("serial-Sdb", is_on, host.graph).steps
        assert step.is_on is is_on and step.inverse().is_on is not is_on
        assert "serial-Sdb" in step.describe()
    with pytest.raises(errors.NotInEnclosure):
        locate("serial-Sda", True, host.graph)
    assert "no enclosure can blink" in host.look(asked("da"))[1].pull.words
    with pytest.raises(InvalidRequest):
        locate("serial-Sda-part1", True, parted("raid1", 2, 40).graph)


def test_the_light_of_a_bay_is_where_the_kernel_links_to(tmp_path):
    """As drivers/misc/enclosure.c has it: no emulator here has an enclosure."""
    whole_, bay = tmp_path / "sdb", tmp_path / "enclosure/6:0:12:0/Slot 07"
    (whole_ / "device").mkdir(parents=True)
    bay.mkdir(parents=True)
    assert sysfs.bay(whole_) is None and not switched(whole_, is_on=True)
    (whole_ / "device/enclosure_device:Slot 07").symlink_to(bay)
    assert sysfs.bay(whole_) == bay and not switched(whole_, is_on=True)
    (bay / "locate").write_text("0")
    for is_on in (True, False):
        assert switched(whole_, is_on=is_on) and (bay / "locate").read_text() == str(int(is_on))
