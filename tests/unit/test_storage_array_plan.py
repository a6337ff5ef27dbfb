"""Plans of arrays: the second is empty, the first does what is wanted, none loses the last copy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from storage_arrays import MIB, World, uuid_of

from hostlerd.runtime.errors import DomainError, InvalidRequest
from hostlerd.runtime.steps import Plan
from hostlerd.storage import errors
from hostlerd.storage.model.array import LEVELS, Copies, Member, spare_losses, survives
from hostlerd.storage.model.array_steps import (
    AddMember,
    RemoveDetached,
    RemoveMember,
    ResumeArray,
    StopArray,
)
from hostlerd.storage.plan import array_create, array_grow, array_members
from hostlerd.storage.plan.array_check import Wanted

NAMES = tuple(f"sd{letter}" for letter in "abcdefgh")


def world(**sizes: int) -> World:
    return World({name: sizes.get(name, 64) * MIB for name in NAMES})


def words(*letters: str) -> tuple[str, ...]:
    return tuple(f"serial-Ssd{letter}" for letter in letters)


def wanted(level: str, *letters: str, **more: object) -> Wanted:
    return replace(Wanted("data", level, words(*letters)), **more)  # type: ignore[arg-type]


def apply(have: World, plan: Plan) -> World:
    for step in plan.steps:
        have.apply(step)
    return have


def made(level: str, *letters: str, **more: object) -> World:
    have = world()
    return apply(have, array_create.create(wanted(level, *letters, **more), (), have.graph))


def array(have: World):
    return have.arrays[uuid_of("data")]


def fail(have: World, letter: str) -> Plan:
    return array_members.fail("data", *words(letter), have.seen, have.graph)


def replace_by(have: World, old: str, new: str) -> Plan:
    old_words = words(old)[0] if old else ""
    return array_members.replace("data", old_words, *words(new), have.seen, have.graph)


# -- how many copies there are


@pytest.mark.parametrize(
    ("layout", "raid_disks", "lost", "kept"),
    [
        # o3 over three legs: each leg has everything.
        ("o3", 3, [], [{0}, {1}, {2}, {0, 1}]),
        ("n2", 4, [{0, 1}, {2, 3}], [{0, 2}, {1, 3}, {0, 3}]),
        ("n2", 3, [{0, 1}, {1, 2}, {0, 2}], [{0}, {1}, {2}]),
        ("f2", 4, [{0, 1}, {1, 2}, {2, 3}, {3, 0}], [{0, 2}, {1, 3}]),
        ("o2", 4, [{0, 1}, {3, 0}], [{0, 2}, {1, 3}]),
        ("n3", 3, [], [{0, 1}, {1, 2}, {0, 2}]),
    ],
)
def test_which_losses_raid10_survives(layout, raid_disks, lost, kept):
    """As md(4) tells where the copies of a chunk are."""
    copies = Copies.parse(layout)
    number = copies.near | copies.far << 8 | copies.is_offset << 16
    everything = set(range(raid_disks))
    assert Copies.of_layout(number) == copies and copies.words == layout
    assert not [one for one in lost if survives("raid10", raid_disks, everything - one, number)]
    if layout == "o3":
        assert [one for one in kept if survives("raid10", raid_disks, one, number)] == kept
    else:
        without = [everything - one for one in kept]
        assert [one for one in without if survives("raid10", raid_disks, one, number)] == without


@given(st.sampled_from(LEVELS), st.integers(2, 6), st.data())
def test_that_many_may_go_whichever_they_are_and_not_one_more(level, raid_disks, data):
    copies = data.draw(st.integers(2, raid_disks))
    layout = data.draw(
        st.sampled_from((copies | 1 << 8, 1 | copies << 8, 1 | copies << 8 | 1 << 16))
    )
    slots = frozenset(data.draw(st.sets(st.integers(0, raid_disks - 1))))
    count = spare_losses(level, raid_disks, slots, layout)
    assert (count >= 0) == survives(level, raid_disks, slots, layout)
    for gone in range(len(slots) + 1):
        all_do = all(
            survives(level, raid_disks, slots - set(each), layout)
            for each in combinations(slots, gone)
        )
        assert all_do == (gone <= count)


# -- made


@pytest.mark.parametrize(
    ("level", "letters", "more"),
    [
        ("raid0", "ab", {}),
        ("raid1", "ab", {"bitmap": True}),
        ("raid1", "ab", {"spares": words("c")}),
        ("raid5", "abc", {"chunk_bytes": 64 << 10}),
        ("raid6", "abcd", {"layout": "right-symmetric"}),
        ("raid10", "abc", {"layout": "o3"}),
        ("raid10", "abcd", {"layout": "n2"}),
        ("raid10", "abc", {"layout": "f2"}),
    ],
)
def test_what_is_made_is_what_is_wanted_and_is_not_made_again(level, letters, more):
    have = made(level, *letters, **more)
    assert array(have).level == level and array(have).raid_disks == len(letters)
    assert {one.name for one in array(have).members if one.is_whole} == {f"sd{c}" for c in letters}
    again = array_create.create(wanted(level, *letters, **more), have.seen, have.graph)
    assert again.steps == ()


def test_arrays_may_be_members():
    have = made("raid1", "a", "b")
    other = replace(wanted("raid1", "c", "d"), name="other")
    apply(have, array_create.create(other, have.seen, have.graph))
    members = tuple(f"md-{uuid_of(name)}" for name in ("data", "other"))
    plan = array_create.create(Wanted("striped", "raid0", members), have.seen, have.graph)
    assert [one.name for one in plan.steps[0].devices] == ["md127", "md126"]


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (wanted("raid1", "a"), "devices"),
        (wanted("raid6", "a", "b", "c"), "devices"),
        (wanted("raid1", "a", "a"), "devices"),
        (wanted("raid1", "a", "b", spares=words("a")), "devices"),
        (wanted("raid7", "a", "b"), "level"),
        (wanted("raid10", "a", "b", "c", layout="o4"), "layout"),
        (wanted("raid10", "a", "b", layout="n1"), "layout"),
        (wanted("raid1", "a", "b", layout="n2"), "layout"),
        (wanted("raid5", "a", "b", "c", layout="n2"), "layout"),
        (wanted("raid0", "a", "b", spares=words("c")), "spares"),
        (wanted("raid0", "a", "b", chunk_bytes=5000), "chunk_bytes"),
        (wanted("raid0", "a", "b", assume_clean=True), "assume_clean"),
        (wanted("raid0", "a", "b", write_mostly=1), "write_mostly_count"),
        (wanted("raid1", "a", "b", write_mostly=2), "write_mostly_count"),
        (wanted("raid1", "a", "b", write_mostly=-1), "write_mostly_count"),
        *[
            (wanted("raid1", "a", "b", name=name), "name")
            for name in ("", "a b", "../x", "-x", "d\u00e4ta", "x" * 25, "a\n", "a/b", "$(reboot)")
        ],
    ],
)
def test_what_cannot_be_made_is_refused(asked, field):
    have = world()
    with pytest.raises(InvalidRequest) as refused:
        array_create.create(asked, have.seen, have.graph)
    assert refused.value.violations[0].field == field


def test_devices_that_are_used_or_too_small_are_refused_by_their_id():
    have = made("raid1", "a", "b")
    other = replace(wanted("raid1", "b", "c"), name="other")
    with pytest.raises(errors.DeviceBusy) as busy:
        array_create.create(other, have.seen, have.graph)
    assert busy.value.metadata == {"device": words("b")[0], "used_by": "md127 is built on it"}
    small = world(sda=8)
    with pytest.raises(errors.DeviceTooSmall) as refused:
        array_create.create(wanted("raid1", "a", "b"), (), small.graph)
    assert refused.value.metadata["device"] == words("a")[0]
    with pytest.raises(errors.ArrayExists):
        array_create.create(wanted("raid1", "c", "d"), have.seen, have.graph)


def test_what_is_odd_though_not_wrong_is_told():
    small = world(sda=32)
    plan = array_create.create(wanted("raid1", "a", "b", assume_clean=True), (), small.graph)
    assert [one.code for one in plan.notices] == ["SIZE_WASTED", "ASSUMED_CLEAN"]
    assert plan.steps[0].assume_clean
    plan = array_create.create(wanted("raid1", "a", "b", write_mostly=1), (), small.graph)
    assert plan.steps[0].write_mostly == 1 and "the last 1 at need" in plan.steps[0].describe()
    assert not array_create.create(wanted("raid1", "b", "c"), (), small.graph).steps[0].assume_clean


# -- members


def test_the_last_copy_is_neither_failed_nor_removed():
    have = made("raid1", "a", "b")
    apply(have, fail(have, "a"))
    assert fail(have, "a").steps == ()
    with pytest.raises(errors.LastCopy) as refused:
        fail(have, "b")
    assert refused.value.metadata["device"] == words("b")[0]
    with pytest.raises(errors.MemberInUse):
        array_members.remove("data", *words("b"), have.seen, have.graph)


def test_what_failed_in_an_array_that_lacks_data_stays_where_it_is():
    have = made("raid0", "a", "b")
    one = array(have)
    gone = tuple(replace(m, states=frozenset(("faulty",)), slot=None) for m in one.members[:1])
    have.arrays[one.uuid] = replace(one, members=(*gone, *one.members[1:]))
    with pytest.raises(errors.LastCopy):
        array_members.remove("data", *words("a"), have.seen, have.graph)


def test_a_member_that_is_being_rebuilt_counts_for_nothing():
    have = made("raid1", "a", "b", spares=words("c"))
    apply(have, fail(have, "a"))
    assert array(have).member("sdc").role == "rebuilding"
    with pytest.raises(errors.LastCopy):
        fail(have, "b")
    have.finish()
    assert apply(have, fail(have, "b")) and array(have).has_all_data()


def test_a_member_is_replaced_while_it_serves_and_taken_out_when_asked_again():
    have = made("raid1", "a", "b")
    apply(have, replace_by(have, "b", "c"))
    assert array(have).member("sdc").role == "replacing" and array(have).degraded == 0
    assert replace_by(have, "b", "c").steps == ()
    have.finish()
    assert [type(one) for one in replace_by(have, "b", "c").steps] == [RemoveMember]
    apply(have, replace_by(have, "b", "c"))
    assert {one.name for one in array(have).members} == {"sda", "sdc"}
    assert replace_by(have, "b", "c").steps == ()


def test_one_that_failed_is_taken_out_and_another_added():
    have = made("raid1", "a", "b")
    apply(have, fail(have, "b"))
    plan = replace_by(have, "b", "c")
    assert [type(one) for one in plan.steps] == [RemoveMember, AddMember]
    assert replace_by(apply(have, plan), "b", "c").steps == ()


def test_one_that_was_pulled_is_replaced_without_its_name():
    have = made("raid1", "a", "b")
    one = array(have)
    pulled = Member("sdb", None, frozenset(("faulty",)), is_there=False)
    have.arrays[one.uuid] = replace(one, members=(one.members[0], pulled), degraded=1)
    del have.disks["sdb"]
    plan = replace_by(have, "", "c")
    assert [type(one) for one in plan.steps] == [RemoveDetached, AddMember]
    apply(have, plan)
    have.finish()
    assert {one.name for one in array(have).members if one.is_whole} == {"sda", "sdc"}
    assert replace_by(have, "", "c").steps == ()
    with pytest.raises(InvalidRequest):
        replace_by(have, "", "d")


def test_what_is_too_small_or_of_another_array_is_not_added():
    have = made("raid1", "a", "b")
    have.disks["sdc"] = 32 * MIB
    with pytest.raises(errors.DeviceTooSmall):
        array_members.add("data", *words("c"), False, have.seen, have.graph)
    apply(have, array_create.create(replace(wanted("raid1", "d", "e"), name="x"), (), have.graph))
    with pytest.raises(errors.DeviceBusy):
        array_members.add("data", *words("d"), False, have.seen, have.graph)
    with pytest.raises(errors.MemberNotFound):
        fail(have, "d")


# -- the whole life


def test_an_array_grows_by_devices_and_by_their_size():
    have = made("raid1", "a", "b")
    grow = array_grow.grow
    plan = grow("data", 3, words("c"), False, have.seen, have.graph)
    apply(have, plan)
    assert array(have).raid_disks == 3
    assert grow("data", 3, words("c"), False, have.seen, have.graph).steps == ()
    with pytest.raises(errors.ArrayBusy):
        grow("data", 4, words("d"), False, have.seen, have.graph)
    have.finish()
    with pytest.raises(InvalidRequest):
        grow("data", 2, (), False, have.seen, have.graph)
    with pytest.raises(InvalidRequest):
        grow("data", 5, words("d"), False, have.seen, have.graph)
    have.disks.update({name: 128 * MIB for name in ("sda", "sdb", "sdc")})
    assert len(grow("data", 0, (), True, have.seen, have.graph).steps) == 1
    apply(have, grow("data", 0, (), True, have.seen, have.graph))
    assert grow("data", 0, (), True, have.seen, have.graph).steps == ()
    far = made("raid10", "a", "b", "c", layout="o3")
    with pytest.raises(errors.ArrayLevel):
        grow("data", 4, words("d"), False, far.seen, far.graph)


def test_what_stands_still_after_a_boot_goes_on_when_the_same_is_asked_for():
    have = made("raid1", "a", "b")
    asks: dict[str, Ask] = {
        "replace": lambda w: replace_by(w, "a", "c"),
        "add": lambda w: array_members.add("data", *words("c"), True, w.seen, w.graph),
        "grow": lambda w: array_grow.grow("data", 2, (), False, w.seen, w.graph),
        "fill": lambda w: replace_by(w, "", "c"),
    }
    apply(have, replace_by(have, "a", "c"))
    for ask in asks.values():
        assert ask(have).steps == ()
        have.cut_off()
        have.finish()
        assert not array(have).member("sdc").is_whole
        plan = ask(have)
        assert plan.steps == (ResumeArray(plan.steps[0].array, uuid_of("data")),)
        assert "go on" in plan.steps[0].describe() and plan.steps[0].inverse() is None
        apply(have, plan)
        assert ask(have).steps == ()
    have.cut_off()
    apply(have, replace_by(have, "a", "c"))
    have.finish()
    assert array(have).member("sdc").is_whole
    apply(have, replace_by(have, "a", "c"))
    assert replace_by(have, "a", "c").steps == ()
    # With nothing left to be done, nothing stands still.
    have.cut_off()
    assert replace_by(have, "a", "c").steps == ()


def test_in_the_middle_of_a_reshape_nothing_more_is_begun():
    have = made("raid5", "a", "b", "c")
    reshaping = replace(array(have), state="read-auto", is_reshaping=True)
    have.arrays[uuid_of("data")] = reshaping
    again = array_grow.grow("data", 3, (), False, have.seen, have.graph)
    assert [type(one) for one in again.steps] == [ResumeArray]
    with pytest.raises(errors.ArrayBusy):
        array_grow.grow("data", 4, words("d"), False, have.seen, have.graph)


def test_copies_are_compared_one_way_at_a_time():
    have = made("raid1", "a", "b")
    apply(have, array_grow.compare("data", "check", have.seen, have.graph))
    assert array_grow.compare("data", "check", have.seen, have.graph).steps == ()
    with pytest.raises(errors.ArrayBusy):
        array_grow.compare("data", "repair", have.seen, have.graph)
    stripe = made("raid0", "a", "b")
    with pytest.raises(errors.ArrayLevel):
        array_grow.compare("data", "check", stripe.seen, stripe.graph)


@given(st.integers(0, 4000), st.integers(0, 4000))
def test_speeds_are_set_and_taken_back(least, most):
    have = made("raid1", "a", "b")
    if least and most and least > most:
        with pytest.raises(InvalidRequest):
            array_grow.speed("data", least, most, have.seen, have.graph)
        return
    plan = array_grow.speed("data", least, most, have.seen, have.graph)
    before = array(have).speed
    apply(have, plan)
    assert array_grow.speed("data", least, most, have.seen, have.graph).steps == ()
    for step in plan.steps:
        have.apply(step.inverse())
    assert array(have).speed == before


def test_stopped_started_and_ended():
    have = made("raid10", "a", "b", "c", layout="o3")
    before = array(have)
    plan = array_create.stop("data", have.seen, have.graph)
    assert isinstance(plan.steps[0], StopArray)
    apply(have, plan)
    assert array_create.stop("data", have.seen, have.graph).steps == ()
    apply(have, array_create.assemble("data", False, have.seen, have.graph))
    assert array(have) == before
    assert array_create.assemble("data", False, have.seen, have.graph).steps == ()
    apply(have, array_create.delete(f"md-{before.uuid}", have.seen, have.graph))
    assert have.arrays == {} and have.signed == {}
    with pytest.raises(errors.ArrayNotFound):
        array_create.delete("data", have.seen, have.graph)


def test_an_array_that_carries_another_is_neither_stopped_nor_ended():
    have = made("raid1", "a", "b")
    one = array(have)
    have.arrays["x"] = replace(
        one, name="md126", uuid=uuid_of("x"), label="x", members=(Member("md127", 0, frozenset()),)
    )
    have.disks["md127"] = 64 * MIB
    carried = replace_lower(have)
    for plan in (array_create.stop, array_create.delete):
        with pytest.raises(errors.DeviceBusy):
            plan("data", have.seen, carried)


def replace_lower(have: World):
    del have.disks["md127"]
    graph = have.graph
    edge = type(graph.edges[0])(f"md-{uuid_of('data')}", f"md-{uuid_of('x')}")
    return replace(graph, edges=(*graph.edges, edge))


@pytest.mark.parametrize("name", ["", "md127", "/dev/md127", "nothing", uuid_of("nothing")])
def test_an_array_is_not_called_by_the_kernels_name(name):
    have = made("raid1", "a", "b")
    with pytest.raises(DomainError) as refused:
        array_members.fail(name, *words("a"), have.seen, have.graph)
    assert refused.value.reason in ("INVALID_REQUEST", "ARRAY_NOT_FOUND")


@pytest.mark.parametrize("name", ["data", "/dev/md/data", uuid_of("data"), f"md-{uuid_of('data')}"])
def test_an_array_is_called_by_what_lasts(name):
    have = made("raid1", "a", "b")
    assert array_members.fail(name, *words("a"), have.seen, have.graph).steps
    colons = uuid_of("data").replace("-", "")
    colons = ":".join(colons[at : at + 8] for at in range(0, 32, 8))
    assert array_members.fail(colons, *words("a"), have.seen, have.graph).steps


LEVELS_MADE = [
    ("raid1", "abc", {}),
    ("raid5", "abcd", {}),
    ("raid6", "abcde", {}),
    ("raid10", "abcd", {"layout": "n2"}),
    ("raid10", "abc", {"layout": "o3"}),
    ("raid10", "abc", {"layout": "f2"}),
]
Ask = Callable[[World], Plan]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(LEVELS_MADE), st.data())
def test_whatever_is_asked_in_whatever_order_nothing_loses_the_last_copy(kind, data):
    """Requests at random: refused, or done, and then asked once more for nothing."""
    level, letters, more = kind
    have = made(level, *letters, **more)
    for _ in range(data.draw(st.integers(1, 12))):
        one, other = (data.draw(st.sampled_from(NAMES)) for _ in range(2))
        asks: dict[str, Ask] = {
            "fail": lambda w, a=one: fail(w, a[2:]),
            "remove": lambda w, a=one: array_members.remove("data", *words(a[2:]), w.seen, w.graph),
            "add": lambda w, a=one: array_members.add(
                "data", *words(a[2:]), False, w.seen, w.graph
            ),
            "replace": lambda w, a=one, b=other: replace_by(w, a[2:], b[2:]),
        }
        verb = data.draw(st.sampled_from((*asks, "finish")))
        if verb == "finish":
            have.finish()
            continue
        try:
            plan = asks[verb](have)
        except DomainError:
            continue
        for step in plan.steps:
            have.apply(step)
            assert array(have).has_all_data(), step.describe()
        assert asks[verb](have).steps == ()
