"""Plans of partition tables: what is asked for comes out, and the second plan is empty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hostlerd.runtime.errors import DomainError, InvalidRequest
from hostlerd.storage import errors
from hostlerd.storage.model.table import (
    FIRST_LOGICAL,
    GPT,
    MBR,
    Digest,
    Entry,
    Piece,
    Table,
    empty,
)
from hostlerd.storage.model.table_changes import compare
from hostlerd.storage.model.table_steps import ChangeTable
from hostlerd.storage.model.table_wanted import Add, Delete, Edit, Update, Wanted, WantedTable
from hostlerd.storage.model.target import Target
from hostlerd.storage.plan import table as plan
from hostlerd.storage.plan.table_arrange import arrange, edit
from hostlerd.storage.plan.table_check import faults, records

MIB = 1 << 20
SIZE = 256 * MIB
STANDING = (Digest(0, 512, "0" * 64),)
DISK = Target("wwn-0x5000", "sdb", "8:16", SIZE, 3, "WD-1", "0x5000")
LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
PARTS = {
    number: Target(f"wwn-0x5000-part{number}", f"sdb{number}", f"8:{16 + number}", MIB, 3)
    for number in range(1, 16)
}


def guid(number: int) -> str:
    return f"{number:08X}-0000-4000-8000-000000000000"


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """A sound table of either kind, or none, with sectors of either size."""
    sector = draw(st.sampled_from((512, 4096)))
    kind = draw(st.sampled_from(("", GPT, MBR)))
    base = replace(empty(kind, SIZE, sector), standing=STANDING)
    if not kind:
        return base
    step = MIB // sector
    at, entries = 1, []
    most = 8 if kind == GPT else 3
    numbers = draw(st.lists(st.integers(1, most), max_size=6 if kind == GPT else 3, unique=True))
    for number in numbers:
        at += draw(st.integers(0, 4))
        size = draw(st.integers(1, 16))
        own = guid(draw(st.integers(1, 2**27)) * 16 + number) if kind == GPT else ""
        type_ = draw(st.sampled_from((LINUX, guid(7)) if kind == GPT else ("0x83", "0x8e")))
        name = draw(st.text("ab ", max_size=4)) if kind == GPT else ""
        boot = draw(st.booleans())
        entries.append(Entry(number, at * step, size * step, type_, name, own, boot))
        at += size
    if kind == MBR and draw(st.booleans()):
        entries += _logical(draw, at, step)
    own = guid(draw(st.integers(1, 2**31))) if kind == GPT else "0x1a2b3c4d"
    ordered = tuple(sorted(entries, key=lambda one: one.number))
    return replace(base, id=own, entries=ordered)


def _logical(draw: st.DrawFn, at: int, step: int) -> list[Entry]:
    count = draw(st.integers(0, 5))
    entries = [Entry(4, at * step, 100 * step, "0x0f")]
    for number in range(FIRST_LOGICAL, FIRST_LOGICAL + count):
        at += 1 + draw(st.integers(0, 2))
        size = draw(st.integers(1, 8))
        entries.append(Entry(number, at * step, size * step, "0x83"))
        at += size
    return entries


def wanted(of: Table) -> WantedTable:
    """The same table, as somebody would write it down."""
    return WantedTable(
        of.kind,
        of.id,
        tuple(
            Wanted(
                one.number,
                one.start_sector * of.sector_bytes,
                one.size_sectors * of.sector_bytes,
                one.type,
                one.name,
                one.bootable,
                one.uuid or None,
            )
            for one in of.entries
        ),
    )


def carried_out(have: Table, steps: Sequence[object]) -> Table:
    """What is on a disk after the steps: what sfdisk was told, with ids where it was to draw them.

    See tests/kernel/test_partition_changes.py for what sfdisk makes of it.
    """
    for step in steps:
        assert isinstance(step, ChangeTable)
        fresh = tuple(
            replace(one, uuid=one.uuid or (guid(999_000 + one.number) if step.kind == GPT else ""))
            for one in step.entries
        )
        own = step.id or (guid(999) if step.kind == GPT else "0x00000999")
        base = empty(step.kind, have.size_bytes, have.sector_bytes, step.slots)
        have = replace(base, id=own, entries=fresh, standing=STANDING)
    return have


@settings(max_examples=120, deadline=None)
@given(tables(), tables())
def test_the_whole_table_that_is_wanted_comes_out(have: Table, other: Table) -> None:
    assume(other.kind)
    base = empty(other.kind, have.size_bytes, have.sector_bytes)
    scale = MIB // other.sector_bytes
    step = MIB // have.sector_bytes
    want = replace(
        base,
        id=other.id,
        entries=tuple(
            replace(
                one,
                start_sector=one.start_sector // scale * step,
                size_sectors=one.size_sectors // scale * step,
            )
            for one in other.entries
        ),
    )
    assert faults(want) == []
    asked = arrange(have, wanted(want))
    assert asked.entries == want.entries
    made = plan.change(DISK, PARTS, have, asked)
    after = carried_out(have, made.steps)
    assert (after.kind, after.id) == (want.kind, want.id)
    assert [replace(one, uuid="") for one in after.entries] == [
        replace(one, uuid="") for one in want.entries
    ]
    assert plan.change(DISK, PARTS, after, arrange(after, wanted(want))).steps == ()
    (step_,) = made.steps or (None,)
    if step_ is not None:
        assert isinstance(step_, ChangeTable)
        kept = {one.start_sector: one for one in want.entries}
        for one in have.entries:
            stays = one.start_sector in kept and kept[one.start_sector] == replace(
                one, type=kept[one.start_sector].type
            )
            if not one.is_extended and not stays and one.start_sector not in kept:
                assert PARTS[one.number] in step_.released


@st.composite
def edits(draw: st.DrawFn, have: Table) -> list[Edit]:
    numbers = [one.number for one in have.entries]
    made: list[Edit] = []
    sizes = st.one_of(st.none(), st.integers(0, 20).map(lambda n: n * MIB))
    for number in (
        draw(st.lists(st.sampled_from(numbers), max_size=2, unique=True)) if numbers else ()
    ):
        if draw(st.booleans()):
            made.append(Delete(number))
        else:
            size = draw(sizes)
            name = draw(st.sampled_from((None, "x"))) if have.kind == GPT else None
            made.append(Update(Wanted(number, size_bytes=size, name=name, bootable=True)))
    for _ in range(draw(st.integers(0, 2))):
        made.append(
            Add(Wanted(size_bytes=draw(sizes), type=draw(st.sampled_from(("swap", "lvm")))))
        )
    return made


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_edits_touch_what_they_name_and_nothing_else(data: st.DataObject) -> None:
    have = data.draw(tables())
    assume(have.kind)
    asked = data.draw(edits(have))
    try:
        want = edit(have, asked)
        made = plan.change(DISK, PARTS, have, want)
    except InvalidRequest:
        return
    after = carried_out(have, made.steps)
    assert faults(after) == []
    named = {
        one.number if isinstance(one, Delete) else one.wanted.number
        for one in asked
        if not isinstance(one, Add)
    }
    left = {one.start_sector: one for one in after.entries}
    gone = {one.number for one in asked if isinstance(one, Delete)}
    added = sum(isinstance(one, Add) for one in asked)
    for one in have.entries:
        if one.number in gone:
            # One that is added may begin where another began: then it is that one.
            assert added or one.start_sector not in left
        elif one.number not in named:
            # Logical partitions move up when one of them has gone.
            assert replace(left[one.start_sector], number=one.number) == one
    assert len(after.entries) == len(have.entries) - len(gone) + added
    assert plan.change(DISK, PARTS, after, edit(after, [])).steps == ()


@settings(max_examples=100, deadline=None)
@given(tables(), st.sampled_from((512, 4096)), st.integers(-200, 200), st.booleans())
def test_a_copy_is_equal_but_for_its_ids(
    source: Table, sector: int, more: int, keep_ids: bool
) -> None:
    assume(source.kind)
    disk = replace(empty("", SIZE + more * MIB, sector), standing=STANDING)
    ends = max((one.end_sector for one in source.entries), default=0) * source.sector_bytes
    try:
        want, foreign = plan.copied(source, disk, keep_ids=keep_ids)
    except errors.TableDoesNotFit:
        assert ends + 2 * MIB > disk.size_bytes
        return
    after = carried_out(disk, plan.change(DISK, {}, disk, want, foreign).steps)
    places = [(one.start_sector * source.sector_bytes, one.type) for one in source.entries]
    assert [(one.start_sector * sector, one.type) for one in after.entries] == places
    ids = {one.uuid for one in source.entries if one.uuid}
    assert (
        ({one.uuid for one in after.entries if one.uuid} == ids)
        if keep_ids
        else not ({one.uuid for one in after.entries} & ids)
    )
    again, foreign = plan.copied(source, after, keep_ids=keep_ids)
    assert plan.change(DISK, {}, after, again, foreign).steps == ()


def test_a_clone_gets_ids_of_its_own() -> None:
    source = gpt(ONE, TWO)
    want, foreign = plan.copied(source, source, keep_ids=False)
    (step,) = plan.change(DISK, PARTS, source, want, foreign).steps
    assert isinstance(step, ChangeTable)
    assert (step.id, [one.uuid for one in step.entries]) == ("", ["", ""])
    assert step.released == ()


def gpt(*entries: Entry) -> Table:
    return replace(empty(GPT, SIZE, 512), id=guid(1), entries=entries, standing=STANDING)


ONE = Entry(1, 2048, 4096, LINUX, "one", guid(11))
TWO = Entry(2, 8192, 4096, LINUX, "two", guid(12))


def test_the_plan_says_what_becomes_of_each_partition() -> None:
    have = gpt(ONE, TWO)
    want = edit(
        have,
        (
            Delete(1),
            Update(Wanted(2, size_bytes=4 * MIB, name="larger")),
            Add(Wanted(3, size_bytes=MIB, type="swap")),
        ),
    )
    made = plan.change(DISK, PARTS, have, want)
    (step,) = made.steps
    assert step.describe() == (
        f"write a GPT, {guid(1)}, on {DISK.describe()}: delete partition 1 (sectors 2048 to 6143, "
        f"2097152 bytes, type {LINUX}, named one); partition 2 stays where it begins: grows from "
        "2097152 to 4194304 bytes, name two becomes larger; add partition 3 (sectors 2048 to 4095, "
        "1048576 bytes, type 0657FD6D-A4AB-43C4-84E5-0933C84B4F4F)"
    )


def test_what_begins_where_another_did_is_that_one_still() -> None:
    found = compare((ONE, TWO), (replace(ONE, size_sectors=1024), TWO))
    assert found.deleted == found.added == ()
    assert found.released == (ONE,)
    other = replace(ONE, number=3)
    assert compare((ONE,), (other,)).deleted == (ONE,)
    assert compare((ONE,), (other,)).added == (other,)
    assert compare((ONE,), (replace(ONE, size_sectors=8000, name="x"),)).released == ()


def refusal(have: Table, *asked: Edit) -> str:
    with pytest.raises(DomainError) as told:
        plan.change(DISK, PARTS, have, edit(have, asked))
    return str(told.value)


def test_what_cannot_be_is_refused() -> None:
    have = gpt(ONE, TWO)
    assert "there is no partition 9" in refusal(have, Delete(9))
    assert "overlap" in refusal(have, Update(Wanted(1, size_bytes=8 * MIB)))
    assert "multiple of the sector" in refusal(have, Update(Wanted(1, size_bytes=1000)))
    assert "no gap" in refusal(have, Add(Wanted(size_bytes=SIZE)))
    assert "control characters" in refusal(have, Update(Wanted(1, name="a\nb")))
    assert "more than 36" in refusal(have, Update(Wanted(1, name="\U0001f600" * 19)))
    assert "is no GUID" in refusal(have, Update(Wanted(1, type="0x83")))
    assert "one GUID" in refusal(have, Update(Wanted(1, uuid=guid(12))))
    assert "number is not from 1" in refusal(have, Add(Wanted(number=129, size_bytes=MIB)))
    assert "there are sectors 34" in refusal(have, Add(Wanted(start_bytes=0, size_bytes=MIB)))
    assert "no partition table" in refusal(replace(empty("", SIZE, 512), standing=STANDING))
    hybrid = replace(have, is_hybrid=True)
    assert "plain GPT first" in refusal(hybrid, Delete(1))
    held = replace(DISK, signatures=("LVM2_member x",))
    with pytest.raises(errors.DiskHoldsContents, match="LVM2_member"):
        plan.change(held, PARTS, have, edit(have, [Delete(1)]))


def test_logical_partitions_have_room_for_their_records() -> None:
    extended = Entry(2, 20_480, 40_960, "0x05")
    five, six = (Entry(5, 22_528, 2048, "0x83"), Entry(6, 24_576, 2048, "0x83"))
    base = replace(empty(MBR, SIZE, 512), id="0x00000001", standing=STANDING)
    close = replace(base, entries=(extended, five, six))
    assert any("no room for the boot record" in words for _, words in faults(close))
    six = replace(six, start_sector=24_577, size_sectors=2047)
    fine = replace(base, entries=(extended, five, six))
    assert faults(fine) == []
    assert records(fine) == {5: 20_480, 6: 24_576}
    # Without 5, number 6 becomes 5: nobody may use it meanwhile.
    made = plan.change(DISK, PARTS, fine, edit(fine, [Delete(5)]))
    (step,) = made.steps
    assert isinstance(step, ChangeTable)
    assert step.released == (PARTS[5], PARTS[6])


def test_a_damaged_table_is_written_again() -> None:
    have = replace(gpt(ONE), errors=("the backup header is missing",))
    made = plan.change(DISK, PARTS, have, edit(have, []))
    assert len(made.steps) == 1
    assert [one.code for one in made.notices] == ["TABLE_DAMAGED"]


def test_a_backup_goes_back_on_its_own_disk_alone() -> None:
    want = gpt(ONE)
    pieces = (Piece(0, bytes(512)),)
    for other in (replace(want, size_bytes=SIZE + 512), replace(want, sector_bytes=4096)):
        with pytest.raises(errors.TableDoesNotFit, match="put back on the same disk"):
            plan.restore(DISK, PARTS, other, want, pieces)
    (step,) = plan.restore(DISK, PARTS, gpt(TWO), want, pieces).steps
    assert "delete partition 2" in step.describe()
