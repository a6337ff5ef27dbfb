"""What LVM's own report says, read as it was said in guests and made up where it may lie."""

from __future__ import annotations

from typing import Any

import pytest

from hostlerd.storage.model import lvm_report
from hostlerd.storage.model.lvm import PhysicalVolume, busy_with

PV = {"pv_uuid": "", "pv_name": "", "pv_major": "8", "pv_minor": "0", "pv_pe_count": "15"}
PV |= {"pv_pe_alloc_count": "0", "pv_missing": "0", "pv_allocatable": "1"}
LV = dict.fromkeys(lvm_report.FIELDS["lv"].split(","), "")
LV |= {"lv_size": "8388608", "lv_device_open": "-1", "lv_merging": "0"}
LV |= {"lv_kernel_major": "-1", "lv_kernel_minor": "-1", "lv_active": "active"}
VG = {"vg_name": "vg", "vg_uuid": "G", "vg_seqno": "7", "vg_extent_size": "4194304"}
VG |= {"vg_exported": "0", "vg_lock_type": "", "vg_clustered": "0"}


def report(
    pvs: list[dict[str, str]],
    lvs: list[dict[str, str]],
    segs: list[dict[str, str]],
    **vg: str,
) -> list[dict[str, Any]]:
    return [
        {
            "vg": [{**VG, **vg}],
            "pv": [{**PV, **one} for one in pvs],
            "lv": [{**LV, **one} for one in lvs],
            "seg": segs,
            "pvseg": [],
        },
        # Physical volumes without a group come last.
        {"vg": [{**VG, "vg_uuid": "", "vg_name": ""}], "pv": [{**PV, "pv_uuid": "o"}]},
    ]


def mirror() -> list[dict[str, Any]]:
    """A mirror whose second device is gone, and the parts that it is made of."""
    pvs = [
        {"pv_uuid": "A", "pv_name": "/dev/vdb", "pv_minor": "16", "pv_pe_alloc_count": "3"},
        {"pv_uuid": "B", "pv_name": "[unknown]", "pv_major": "-1", "pv_missing": "1"},
    ]
    lvs = [
        {
            **{"lv_uuid": "m", "lv_name": "mir", "sync_percent": "50.00", "lv_device_open": "1"},
            **{"lv_kernel_major": "253", "lv_kernel_minor": "4", "lv_health_status": "partial"},
            **{"lv_layout": "raid,raid1", "lv_role": "public"},
        },
        {"lv_uuid": "i0", "lv_name": "[mir_rimage_0]", "lv_parent": "mir"},
        {"lv_uuid": "i1", "lv_name": "[mir_rimage_1]", "lv_parent": "mir"},
        {"lv_uuid": "r0", "lv_name": "[mir_rmeta_0]", "lv_parent": "mir"},
    ]
    images = "mir_rimage_0(0),mir_rimage_1(0)"
    segs = [
        {"lv_uuid": "m", "segtype": "raid1", "devices": images, "stripes": "2"},
        {"lv_uuid": "i0", "segtype": "linear", "devices": "/dev/vdb(1)", "stripes": "1"},
        {"lv_uuid": "i1", "segtype": "linear", "devices": "[unknown](1)", "stripes": "1"},
        {"lv_uuid": "r0", "segtype": "linear", "devices": "/dev/vdb(0)", "stripes": "1"},
    ]
    return report(pvs, lvs, segs)


def test_a_mirror_lies_where_its_parts_lie():
    (group,) = lvm_report.read(mirror())
    assert (group.name, group.seqno, group.missing, group.is_foreign) == ("vg", 7, 1, False)
    assert group.physical == (PhysicalVolume("A", "8:16", 15, 3), PhysicalVolume("B", "", 15, 0))
    assert group.free_extents == 12
    (one,) = group.visible
    assert (one.kind, one.legs, one.carriers) == ("raid1", 2, ("A", "B"))
    assert (one.sync_percent, one.health, one.is_open, one.number) == (50, "partial", True, "253:4")
    assert (one.layout, one.role) == (("raid", "raid1"), ("public",))
    parts = {v.name: (v.carriers, v.parent) for v in group.volumes if not v.is_visible}
    assert parts["[mir_rimage_1]"] == (("B",), "mir")


def test_volumes_that_lie_on_each_other_in_a_circle_end():
    segs = [
        {"lv_uuid": "a", "segtype": "linear", "devices": "b(0)", "stripes": "1"},
        {"lv_uuid": "b", "segtype": "linear", "devices": "a(0)", "stripes": "1"},
    ]
    lvs = [{"lv_uuid": "a", "lv_name": "a"}, {"lv_uuid": "b", "lv_name": "b"}]
    (group,) = lvm_report.read(report([{"pv_uuid": "A", "pv_name": "/dev/vdb"}], lvs, segs))
    assert [one.carriers for one in group.visible] == [(), ()]


@pytest.mark.parametrize(
    "vg", [{"vg_exported": "1"}, {"vg_lock_type": "dlm"}, {"vg_clustered": "1"}]
)
def test_groups_that_are_not_this_hosts(vg):
    (group,) = lvm_report.read(report([], [], [], **vg))
    assert group.is_foreign


def test_what_goes_on():
    move = {"lv_uuid": "p", "lv_name": "[pvmove0]", "move_pv": "/dev/vdb"}
    (group,) = lvm_report.read(report([], [move], []))
    assert busy_with(group) == "the move of what is on /dev/vdb"
    merge = {"lv_uuid": "s", "lv_name": "[s]", "origin": "[o]", "lv_merging": "1"}
    (group,) = lvm_report.read(report([], [merge], []))
    assert busy_with(group) == "the merge of s"
    assert [(one.name, one.origin) for one in group.visible] == [("s", "o")]
    assert busy_with(lvm_report.read(report([], [], []))[0]) == ""


def test_a_report_without_its_fields_is_refused():
    with pytest.raises(KeyError):
        lvm_report.read([{"vg": [{"vg_uuid": "G"}]}])
