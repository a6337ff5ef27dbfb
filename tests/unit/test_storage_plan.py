"""What is made of devices that were seen: one graph, how much room, and whether all is well."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostlerd.storage.kernel import mounts
from hostlerd.storage.model.blkid import parse as parse_blkid
from hostlerd.storage.model.graph import Graph, Kind
from hostlerd.storage.model.observed import (
    Btrfs,
    BtrfsAllocation,
    BtrfsDevice,
    Device,
    FstabLine,
    MdFacts,
    MdMember,
    Mount,
    Observed,
    PartitionFacts,
    Room,
    Signature,
)
from hostlerd.storage.model.reason import Level
from hostlerd.storage.plan.graph import build
from hostlerd.storage.plan.health import health
from hostlerd.storage.plan.space import spaces

GIB = 1 << 30


def disk(name: str, number: str, **more: object) -> Device:
    return replace(Device(name, number, 10 * GIB, 512, 4096), **more)  # type: ignore[arg-type]


MD = MdFacts(
    level="raid1",
    array_state="clean",
    raid_disks=2,
    degraded=0,
    sync_action="idle",
    sync_done_sectors=0,
    sync_total_sectors=0,
    mismatch_count=0,
    uuid="0f:1e",
    members=(MdMember("sda1", "in_sync", 0, 0), MdMember("sdb1", "in_sync", 1, 0)),
)
RAID = Signature("linux_raid_member", "raid", "0f-1e")
EXT4 = Signature("ext4", "filesystem", "11-22", "root")
MIRROR = Observed(
    devices=(
        disk("sda", "8:0", wwn="0x5000c5001", model="ST4000", serial="Z1"),
        disk("sda1", "8:1", partition=PartitionFacts("sda", 1, 2048), signatures=(RAID,)),
        disk("sdb", "8:16", model="ST4000", serial="Z2"),
        disk("sdb1", "8:17", partition=PartitionFacts("sdb", 1, 2048), signatures=(RAID,)),
        disk("md0", "9:0", md=MD, lower=("sda1", "sdb1"), signatures=(EXT4,)),
    ),
    mounts=(Mount("/", "9:0", "/", "ext4", "/dev/md0", False),),
    rooms={"/": Room(9 * GIB, 5 * GIB, 4 * GIB, 1000, 900)},
    fstab=(FstabLine(1, "UUID=11-22", "/", "ext4", ("defaults",)),),
)


def codes(seen: Observed) -> dict[str, Level]:
    return {one.code: one.level for one in health(seen)[1]}


def with_device(seen: Observed, name: str, **more: object) -> Observed:
    changed = tuple(
        replace(each, **more) if each.name == name else each  # type: ignore[arg-type]
        for each in seen.devices
    )
    return replace(seen, devices=changed)


def test_a_member_that_was_pulled_is_told_before_md_has_noticed():
    pulled = replace(MIRROR, devices=tuple(d for d in MIRROR.devices if d.name[:3] != "sdb"))
    assert codes(MIRROR).get("MD_UNPLUGGED") is None
    assert codes(pulled)["MD_UNPLUGGED"] is Level.CRITICAL


def path_to(graph: Graph, name: str) -> list[str]:
    """Names from a disk to what carries no more, by the first edge each."""
    names = {node.id: node.name for node in graph.nodes}
    (start,) = [node.id for node in graph.nodes if node.name == name and node.number]
    found = [names[start]]
    while above := [edge.upper for edge in graph.edges if edge.lower == start]:
        start = above[0]
        found.append(names[start])
    return found


def test_a_mirror_from_its_disks_to_its_mount() -> None:
    graph = build(MIRROR)
    assert path_to(graph, "sda") == ["sda", "sda1", "md0", "ext4", "/"]
    assert path_to(graph, "sdb") == ["sdb", "sdb1", "md0", "ext4", "/"]
    by_name = {node.name: node for node in graph.nodes}
    assert by_name["sda"].id == "wwn-0x5000c5001"
    assert by_name["sda1"].id == "wwn-0x5000c5001-part1"
    assert by_name["sdb"].id == "serial-ST4000_Z2"
    assert by_name["md0"].id == "md-0f:1e"
    assert by_name["ext4"].id == "filesystem-11-22"
    assert {edge.role for edge in graph.edges if edge.upper == "md-0f:1e"} == {"active leg"}
    assert health(MIRROR) == (Level.GOOD, ())


@pytest.mark.parametrize(
    ("facts", "code", "level"),
    [
        ({"degraded": 1}, "MD_DEGRADED", Level.CRITICAL),
        ({"array_state": "inactive"}, "MD_INACTIVE", Level.CRITICAL),
        ({"mismatch_count": 128}, "MD_MISMATCH", Level.WARNING),
        ({"members": (MdMember("sda1", "faulty", 0, 0),)}, "MD_FAULTY", Level.CRITICAL),
        ({"members": (MdMember("sda1", "in_sync", 0, 7),)}, "MD_READ_ERRORS", Level.WARNING),
    ],
)
def test_arrays_that_are_not_well(facts: dict[str, object], code: str, level: Level) -> None:
    seen = with_device(MIRROR, "md0", md=replace(MD, **facts))  # type: ignore[arg-type]
    assert codes(seen) == {code: level}


def test_a_server_that_runs_on_one_half_of_its_raid() -> None:
    """The array did not come up; one half is mounted, the other lies there with the same UUID."""
    via = Signature("via_raid_member", "raid")
    devices = tuple(
        replace(each, signatures=(via, EXT4) if each.partition else ())
        for each in MIRROR.devices
        if each.name != "md0"
    )
    mount = Mount("/", "8:17", "/", "ext4", "/dev/sdb1", False)
    found = health(replace(MIRROR, devices=devices, mounts=(mount,)))[1]
    assert {(one.code, one.level) for one in found} >= {
        ("RAID_NOT_ACTIVE", Level.CRITICAL),
        ("SAME_UUID", Level.CRITICAL),
    }


def test_a_filesystem_that_has_turned_read_only() -> None:
    mount = replace(MIRROR.mounts[0], is_read_only=True)
    assert codes(replace(MIRROR, mounts=(mount,))) == {"FILESYSTEM_READ_ONLY": Level.CRITICAL}
    on_purpose = replace(MIRROR.fstab[0], options=("ro",))
    assert codes(replace(MIRROR, mounts=(mount,), fstab=(on_purpose,))) == {}


@pytest.mark.parametrize(
    ("available", "level"), [(GIB // 2, Level.WARNING), (GIB // 8, Level.CRITICAL)]
)
def test_little_room(available: int, level: Level) -> None:
    room = replace(MIRROR.rooms["/"], available_bytes=available)
    assert codes(replace(MIRROR, rooms={"/": room})) == {"SPACE_LOW": level}


def test_no_more_files() -> None:
    room = replace(MIRROR.rooms["/"], free_files=0)
    assert codes(replace(MIRROR, rooms={"/": room})) == {"FILES_EXHAUSTED": Level.CRITICAL}


def test_fstab_and_mounts_that_differ() -> None:
    more = FstabLine(2, "UUID=33-44", "/srv", "xfs", ("defaults",))
    assert codes(replace(MIRROR, fstab=(*MIRROR.fstab, more))) == {"NOT_MOUNTED": Level.WARNING}
    later = replace(more, options=("noauto",))
    assert codes(replace(MIRROR, fstab=(*MIRROR.fstab, later))) == {}
    other = Mount("/mnt", "8:16", "/", "ext4", "/dev/sdb", False)
    seen = replace(MIRROR, mounts=(*MIRROR.mounts, other))
    assert codes(seen) == {"NOT_IN_FSTAB": Level.WARNING}


POOL = Btrfs(
    uuid="55-66",
    label="data",
    devices=(BtrfsDevice("sdc", 1, False, {}), BtrfsDevice("sdd", 2, False, {})),
    allocations=(
        BtrfsAllocation("data", "raid1", 4 * GIB, 3 * GIB, 8 * GIB, 6 * GIB),
        BtrfsAllocation("metadata", "raid1", GIB, GIB // 2, 2 * GIB, GIB),
    ),
)
BTRFS = Observed(
    devices=(disk("sdc", "8:32"), disk("sdd", "8:48")),
    mounts=(Mount("/data", "0:42", "/", "btrfs", "/dev/sdc", False),),
    rooms={"/data": Room(10 * GIB, 6 * GIB, 6 * GIB, 0, 0)},
    btrfs=(POOL,),
)


def test_room_of_a_btrfs_is_a_range() -> None:
    (one,) = spaces(BTRFS)
    assert (one.physical, one.physical_used, one.used) == (20 * GIB, 10 * GIB, 3 * GIB)
    assert one.ratio == 2.0
    # 1 GiB is left in what is given out, and 10 GiB are not given out, for two copies.
    assert (one.free_least, one.free_most) == (int(3.5 * GIB), 6 * GIB)
    assert one.free_files == -1
    graph = build(BTRFS)
    assert path_to(graph, "sdc") == ["sdc", "btrfs", "/data"]
    assert path_to(graph, "sdd") == ["sdd", "btrfs", "/data"]
    assert codes(BTRFS) == {}


def test_a_btrfs_that_is_not_well() -> None:
    missing = replace(POOL, devices=(POOL.devices[0], BtrfsDevice("", 2, True, {})))
    assert codes(replace(BTRFS, btrfs=(missing,))) == {"BTRFS_DEGRADED": Level.CRITICAL}
    errors = {"corruption_errs": 3, "read_errs": 0, "total": 3}
    hurt = replace(POOL, devices=(replace(POOL.devices[0], errors=errors), POOL.devices[1]))
    found = health(replace(BTRFS, btrfs=(hurt,)))[1]
    assert [one.code for one in found] == ["BTRFS_ERRORS"]
    assert "corruption_errs 3" in found[0].message


def test_kinds_of_devices() -> None:
    devices = (
        disk("loop0", "7:0", backing_file="/srv/a.img"),
        disk("zram0", "252:0"),
        disk("dm-0", "254:0", dm_name="vg-root", dm_uuid="LVM-abc", lower=("loop0",)),
        disk("dm-1", "254:1", dm_name="secret", dm_uuid="CRYPT-LUKS2-x"),
        disk("dm-2", "254:2", dm_name="mpatha", dm_uuid="mpath-3600"),
        disk("dm-3", "254:3", dm_name="other"),
        disk("nbd0", "43:0"),
        disk("sr0", "11:0"),
        disk("nvme0n1", "259:0", wwn="eui.0025", transport="nvme"),
    )
    graph = build(Observed(devices=devices))
    assert {node.name: node.kind for node in graph.nodes} == {
        "loop0": Kind.LOOP,
        "zram0": Kind.MEMORY,
        "dm-0": Kind.LVM,
        "dm-1": Kind.CRYPT,
        "dm-2": Kind.MULTIPATH,
        "dm-3": Kind.DM,
        "nbd0": Kind.NETWORK,
        "sr0": Kind.OPTICAL,
        "nvme0n1": Kind.DISK,
    }
    assert graph.lower("dm-LVM-abc") == ("name-loop0",)


_names = st.sampled_from([f"{kind}{n}" for kind in ("sd", "loop", "dm-", "md") for n in range(4)])
_words = st.sampled_from(["", "A", "B"])


@given(
    st.lists(
        st.builds(
            lambda name, lower, wwn, serial, on, uuid: disk(
                name,
                f"8:{name}",
                lower=tuple(lower),
                wwn=wwn,
                serial=serial,
                signatures=(Signature(on, "filesystem", uuid),) if on else (),
            ),
            _names,
            st.lists(_names, max_size=3),
            _words,
            _words,
            st.sampled_from(["", "ext4", "swap", "xfs"]),
            _words,
        ),
        unique_by=lambda device: device.name,
        max_size=12,
    ),
    st.lists(st.tuples(st.sampled_from(["/", "/a"]), _names), max_size=4),
)
def test_whatever_was_seen_the_graph_is_whole(
    devices: list[Device], mounted: list[tuple[str, str]]
) -> None:
    found = tuple(
        Mount(path, f"8:{name}", "/", "ext4", f"/dev/{name}", False) for path, name in mounted
    )
    graph = build(Observed(devices=tuple(devices), mounts=found))
    ids = [node.id for node in graph.nodes]
    assert len(set(ids)) == len(ids)
    assert {edge.lower for edge in graph.edges} | {edge.upper for edge in graph.edges} <= set(ids)
    assert {node.name for node in graph.nodes if node.number} == {each.name for each in devices}
    health(Observed(devices=tuple(devices), mounts=found))


def test_mountinfo_and_fstab() -> None:
    said = (
        "22 27 8:1 / /a\\040b rw,relatime shared:1 - ext4 /dev/sda1 ro,errors=remount-ro\n"
        "23 27 8:1 /sub /c ro - ext4 /dev/sda1 rw\nnonsense\n24 27 8:1 / /d rw -\n"
    )
    first, second = mounts.parse_mountinfo(said)
    assert (first.path, first.is_read_only, first.root) == ("/a b", True, "/")
    assert (second.path, second.is_read_only, second.root) == ("/c", False, "/sub")
    lines = mounts.parse_fstab("# no\n\nUUID=1 /x\\040y ext4\n/dev/b /y xfs ro,noauto 0 0\nz\n")
    assert [(line.line, line.path, line.options) for line in lines] == [
        (3, "/x y", ("defaults",)),
        (4, "/y", ("ro", "noauto")),
    ]


def test_what_blkid_says() -> None:
    said = (
        "ID_FS_TYPE=ext4\nID_FS_USAGE=filesystem\nID_FS_UUID=1\nID_FS_LABEL_ENC=a\\x20\\xc3\\xa9\n"
    )
    assert parse_blkid(said) == (Signature("ext4", "filesystem", "1", "a \u00e9"),)
    assert parse_blkid("ID_PART_TABLE_TYPE=gpt\nID_PART_TABLE_UUID=2\n") == (
        Signature("gpt", "partition-table", "2"),
    )
    assert parse_blkid("") == ()
