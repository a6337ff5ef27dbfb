"""What volumes survive, against every set of losses tried out one by one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostlerd.storage.model.array import Copies
from hostlerd.storage.model.graph import Edge, Graph, Kind, Need, Node
from hostlerd.storage.model.observed import (
    Btrfs,
    BtrfsAllocation,
    BtrfsDevice,
    Device,
    IscsiFacts,
    LogicalVolume,
    MdFacts,
    MdMember,
    Observed,
    Signature,
    VolumeGroup,
)
from hostlerd.storage.plan.graph import build
from hostlerd.storage.plan.redundancy import of_lvm
from hostlerd.storage.plan.survival import Loss, Survival, Unit, survival

RAID = Signature("linux_raid_member", "raid", "0f-1e")
EXT4 = Signature("ext4", "filesystem", "11-22")


def disk(name: str, **more: object) -> Device:
    return Device(name, f"8:{name}", 1 << 30, 512, 4096, serial=name, **more)  # type: ignore[arg-type]


def md(level: str, disks: int, members: Iterable[str], layout: int = 0) -> MdFacts:
    legs = tuple(MdMember(name, "in_sync", slot, 0) for slot, name in enumerate(members))
    return MdFacts(level, "clean", disks, disks - len(legs), "idle", 0, 0, 0, "0f:1e", legs, layout)


def array(level: str, names: str, disks: int = 0, layout: int = 0) -> Observed:
    """An array of disks of one letter each, with ext4 on it."""
    facts = md(level, disks or len(names), names, layout)
    top = Device("md0", "9:0", 1 << 30, 512, 4096, md=facts, lower=tuple(names), signatures=(EXT4,))
    return Observed((*map(disk, names), top))


def of_filesystem(seen: Observed) -> Survival:
    (one,) = [each for each in survival(build(seen)) if each.id.startswith("filesystem-")]
    return one


@pytest.mark.parametrize(
    ("seen", "any_disks"),
    [
        (array("raid0", "ab"), 0),
        (array("linear", "ab"), 0),
        (array("raid1", "ab"), 1),
        (array("raid1", "abc"), 2),
        (array("raid1", "a", disks=2), 0),
        (array("raid5", "abc"), 1),
        (array("raid5", "ab", disks=3), 0),
        (array("raid6", "abcd"), 2),
        (array("raid6", "abc", disks=4), 1),
        (array("raid10", "abcd", layout=0x102), 1),
        (array("raid10", "abc", layout=0x10301), 2),
    ],
)
def test_levels_of_md(seen: Observed, any_disks: int) -> None:
    assert (of_filesystem(seen).is_there, of_filesystem(seen).any_disks) == (True, any_disks)


@pytest.mark.parametrize(
    ("disks", "layout", "sets"),
    [
        # As md(4) draws them: near 2, near 2 over three, far 2, offset 3, far 2 in sets.
        (4, 0x102, "01 23"),
        (3, 0x102, "01 02 12"),
        (4, 0x201, "01 12 23 03"),
        (3, 0x10301, "012"),
        (4, 0x40201, "01 23"),
        (5, 0x40201, "01 23 34 24"),
        (0, 0x102, ""),
        (4, 0, ""),
    ],
)
def test_copies_of_raid10(disks: int, layout: int, sets: str) -> None:
    wanted = frozenset(frozenset(map(int, each)) for each in sets.split())
    assert Copies.of_layout(layout).holders(disks) == wanted


def test_an_array_that_has_lost_too_much_is_not_there() -> None:
    found = of_filesystem(array("raid5", "a", disks=3))
    assert (found.is_there, found.any_disks) == (False, 0)
    assert not any(one.is_survived for one in found.losses)


def test_stripes_over_mirrors_survive_one_disk_of_each() -> None:
    mirrors = tuple(
        Device(name, f"9:{name}", 1, 512, 512, md=md("raid1", 2, legs), lower=tuple(legs))
        for name, legs in (("md1", "ab"), ("md2", "cd"))
    )
    facts = md("raid0", 2, ("md1", "md2"))
    top = Device("md3", "9:3", 1, 512, 512, md=facts, lower=("md1", "md2"), signatures=(EXT4,))
    # The arrays have UUIDs of their own on a real host; here names keep them apart.
    found = of_filesystem(Observed((*map(disk, "abcd"), *mirrors, top)))
    assert (found.any_disks, len(found.of(Unit.DISK))) == (1, 4)


def test_two_legs_on_one_disk_and_controllers_and_hosts() -> None:
    def leg(name: str, controller: str, portal: str) -> Device:
        return disk(name, controller=controller, iscsi=IscsiFacts("iqn.x", portal, "LOGGED_IN"))

    top = Device(
        "md0", "9:0", 1, 512, 512, md=md("raid1", 2, "ab"), lower=("a", "b"), signatures=(EXT4,)
    )
    apart = Observed((leg("a", "0:1", "h2"), leg("b", "0:2", "h3"), top))
    assert all(one.is_survived for one in of_filesystem(apart).losses)
    together = Observed((leg("a", "0:1", "h2"), leg("b", "0:1", "h2"), top))
    found = of_filesystem(together)
    assert [one.is_survived for one in found.of(Unit.DISK)] == [True, True]
    assert found.of(Unit.CONTROLLER) == (Loss(Unit.CONTROLLER, "pci-0:1", False),)
    assert found.of(Unit.HOST) == (Loss(Unit.HOST, "h2", False),)


def test_two_paths_are_one_disk_behind_two_controllers() -> None:
    paths = tuple(disk(name, wwn="0x5", controller=f"0:{name}") for name in "ab")
    top = Device(
        *("dm-0", "254:0", 1, 512, 512),
        dm_uuid="mpath-35",
        lower=("a", "b"),
        signatures=(EXT4,),
    )
    found = of_filesystem(Observed((*paths, top)))
    assert found.any_disks == 0
    assert found.of(Unit.DISK) == (Loss(Unit.DISK, "wwn-0x5", False),)
    assert [one.is_survived for one in found.of(Unit.CONTROLLER)] == [True, True]


@pytest.mark.parametrize(
    ("profiles", "any_disks"),
    [
        (("raid1", "raid1"), 1),
        (("single", "raid1"), 0),
        (("raid1c3", "raid1c4"), 2),
        (("raid6", "raid1c3"), 2),
        (("dup", "dup"), 0),
        ((), 0),
    ],
)
def test_profiles_of_btrfs(profiles: tuple[str, ...], any_disks: int) -> None:
    devices = tuple(BtrfsDevice(name, at, False, {}) for at, name in enumerate("abcd", 1))
    chunks = tuple(BtrfsAllocation("data", each, 1, 1, 2, 2) for each in profiles)
    pool = Btrfs("55-66", "", devices, chunks)
    assert of_filesystem(Observed(tuple(map(disk, "abcd")), btrfs=(pool,))).any_disks == any_disks


@pytest.mark.parametrize(
    ("kind", "images", "needs"),
    [
        ("raid1", 2, [(2, 1)]),
        ("mirror", 3, [(3, 1)]),
        ("raid10", 4, [(2, 1), (2, 1)]),
        ("raid5_ls", 3, [(3, 2)]),
        ("raid6_zr", 5, [(5, 3)]),
        ("linear", 0, []),
        ("raid0", 2, []),
    ],
)
def test_segments_of_lvm(kind: str, images: int, needs: list[tuple[int, int]]) -> None:
    lower = {
        f"vg-lv_{part}_{at}": f"{part}{at}" for at in range(images) for part in ("rimage", "rmeta")
    }
    found = of_lvm(kind, lower)
    assert [(len(each.legs), each.least) for each in found] == needs
    assert all(len(leg) == 2 for each in found for leg in each.legs)


def test_a_group_its_volumes_and_one_that_is_not_active() -> None:
    active = LogicalVolume("l-1", "v-1", "lv", 1 << 20, "linear")
    idle = LogicalVolume("l-2", "v-1", "idle", 1 << 20, "linear")
    top = Device(
        *("dm-0", "254:0", 1 << 20, 512, 512),
        dm_name="vg-lv",
        dm_uuid="LVM-v1l1",
        lower=("a",),
        signatures=(EXT4,),
    )
    group = VolumeGroup("v-1", "vg", 1 << 30, 1 << 29, ("a", "b"), 0)
    seen = Observed((*map(disk, "ab"), top), groups=(group,), volumes=(active, idle))
    found = {one.id: one for one in survival(build(seen))}
    assert found["lvm-v-1"].any_disks == 1
    assert [one.is_survived for one in found["dm-LVM-v1l1"].of(Unit.DISK)] == [False, True]
    assert [one.is_survived for one in found["dm-LVM-v1l2"].of(Unit.DISK)] == [False, False]


def is_there(graph: Graph, node: Node, lost: frozenset[str], by_id: Mapping[str, Node]) -> bool:
    """The definition: a node is there if enough legs are, or all that it lies on."""
    lower = graph.lower(node.id)
    if node.needs:
        return all(
            sum(all(is_there(graph, by_id[each], lost, by_id) for each in leg) for leg in need.legs)
            >= need.least
            for need in node.needs
        )
    if lower:
        return all(is_there(graph, by_id[each], lost, by_id) for each in lower)
    return not {node.id, node.controller} & lost


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Disks behind controllers, and up to four layers of what needs some legs of those below."""
    count = draw(st.integers(1, 5))
    nodes = [
        Node(f"disk{at}", Kind.DISK, "", controller=draw(st.sampled_from(["", "c1", "c2"])))
        for at in range(count)
    ]
    edges: list[Edge] = []
    for at in range(draw(st.integers(1, 4))):
        names = [node.id for node in nodes]
        lower = draw(st.lists(st.sampled_from(names), min_size=1, max_size=4, unique=True))
        needs = draw(st.lists(_needs(lower), max_size=2))
        nodes.append(Node(f"volume{at}", Kind.MD, "", needs=tuple(needs)))
        edges += [Edge(each, f"volume{at}") for each in lower]
    return Graph(tuple(nodes), tuple(edges))


def _needs(lower: list[str]) -> st.SearchStrategy[Need]:
    legs = st.lists(st.lists(st.sampled_from(lower), min_size=1, max_size=2), max_size=4)
    return st.builds(
        lambda chosen, least: Need(tuple(map(tuple, chosen)), least), legs, st.integers(0, 4)
    )


@given(graphs())
def test_as_every_loss_tried_out(graph: Graph) -> None:
    by_id = {node.id: node for node in graph.nodes}
    disks = [node.id for node in graph.nodes if node.kind is Kind.DISK]
    for found in survival(graph):
        node = by_id[found.id]

        def without(*lost: str, node: Node = node) -> bool:
            return is_there(graph, node, frozenset(lost), by_id)

        assert found.is_there == without()
        for one in found.losses:
            assert one.is_survived == without(one.name), one
        # Units that are not named do not matter to it.
        named = {one.name for one in found.losses}
        for each in {*disks, *(node.controller for node in graph.nodes if node.controller)}:
            assert each in named or without(each) == found.is_there
        survived = [
            all(without(*lost) for lost in combinations(disks, min(few, len(disks))))
            for few in range(3)
        ]
        assert found.any_disks == max(0, next((n for n in range(3) if not survived[n]), 3) - 1)
