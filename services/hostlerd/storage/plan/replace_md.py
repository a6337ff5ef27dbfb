"""What of arrays of md was on a disk that is replaced.

The old disk is read from as a last resort alone: it is marked as failed as soon as the new one is
there to be filled, unless the array would then lose data with one more disk; then it stays in use
until the new one has all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from hostlerd.runtime.steps import Step
from hostlerd.storage.model.array import (
    MEMBER_SIGNATURE,
    REDUNDANT,
    Array,
    Member,
    spare_losses,
)
from hostlerd.storage.model.array_steps import (
    AddMember,
    FailMember,
    RemoveDetached,
    RemoveMember,
    ReplaceMember,
    ResumeArray,
)
from hostlerd.storage.model.graph import Kind
from hostlerd.storage.model.replacement import Content, Fate, Follow
from hostlerd.storage.model.target import Target
from hostlerd.storage.plan.array_choose import plain_uuid
from hostlerd.storage.plan.choose import target_of
from hostlerd.storage.plan.replace_case import Case

KIND = "array"


def of_arrays(case: Case) -> Iterator[Content]:
    """What each array had on the old disk."""
    on_new, on_old = case.on(case.new), case.on(case.old)
    for array in sorted(case.arrays, key=lambda one: one.uuid):
        if array.name not in case.nodes:
            continue
        new = [one for one in array.members if one.name in on_new and not one.is_faulty]
        old = [one for one in array.members if one.name in on_old]
        for one in old:
            yield _of_member(case, array, one, on_old[one.name], new)
        if not old and new:
            yield _taken(case, array, new[0], on_new[new[0].name])
        elif not old and _lacks(array) and case.old is None:
            yield _of_gone(case, array)
        elif not old and _lacks(array):
            for name, number in on_old.items():
                if _was_member(case, name, array):
                    words = "has been taken out, and is rebuilt from the other devices"
                    yield _filled(case, array, number, (), (), words)


def _lacks(array: Array) -> int:
    """How many slots have no device, and none that would come to be in them."""
    usable = [one for one in array.members if not one.is_faulty]
    slots = {one.slot for one in usable if one.slot is not None}
    return array.raid_disks - len(slots) - sum(one.slot is None for one in usable)


def _was_member(case: Case, name: str, array: Array) -> bool:
    return any(
        one.type == MEMBER_SIGNATURE and plain_uuid(one.uuid) == plain_uuid(array.uuid) != ""
        for one in case.nodes[name].signatures
    )


def _taken(case: Case, array: Array, new: Member, number: int) -> Content:
    fate = Fate.DONE if new.is_whole else Fate.RUNNING
    words = "the new disk has all of it" if new.is_whole else "is being copied to the new disk"
    if new.slot is None:
        words = "the new disk waits as a spare"
    return _content(case, array, number, fate, words, _resumed(case, array))


def _resumed(case: Case, array: Array) -> tuple[Step, ...]:
    """The step that has md go on with what a boot came between."""
    return (ResumeArray(_target(case, array), array.uuid),) if array.stands_still else ()


def _of_gone(case: Case, array: Array) -> Content:
    """The steps that fill the slot of a device that is gone."""
    others = [one.name for one in array.members if not one.is_faulty and case.is_there(one.name)]
    numbers = case.numbers_of(others)
    if len(numbers) != 1 or any(case.nodes[name].kind is Kind.MD for name in others):
        words = "its other devices are no partitions of one number: add a device by hand"
        return _content(case, array, 0, Fate.BY_HAND, words, ())
    (number,) = numbers
    names = tuple(sorted(one.name for one in array.members if not one.is_there))
    before: tuple[Step, ...] = ()
    if names:
        before = (RemoveDetached(_target(case, array), array.uuid, names),)
    return _filled(case, array, number, before, (), "is rebuilt from the other devices")


def _of_member(case: Case, array: Array, old: Member, number: int, new: list[Member]) -> Content:
    """The steps that have the new disk take the place of a member that is there."""
    target, gone = _target(case, array), target_of(case.nodes[old.name])
    copy = next((one for one in new if one.slot == old.slot or one.slot is None), None)
    removed = RemoveMember(target, array.uuid, gone)
    if old.is_faulty or old.slot is None:
        if new:
            words = "the old member is taken out"
            return _content(case, array, number, Fate.TO_DO, words, (removed,), follows=True)
        words = "has failed there, and is rebuilt from the other devices"
        return _filled(case, array, number, (removed,), (), words)
    if copy is not None and copy.slot is not None:
        words = "is being copied to the new disk, and then taken out"
        return _content(case, array, number, Fate.RUNNING, words, _resumed(case, array))
    slots = array.whole_slots - {old.slot}
    if spare_losses(array.level, array.raid_disks, slots, array.layout) >= 1:
        # The new one waits as a spare by then: md begins at once.
        after: tuple[Step, ...] = (FailMember(target, array.uuid, gone), removed)
        words = "is rebuilt from the other devices; the old one is not read"
    else:
        words = "is copied while the old one stays in use: without it, no other could be lost"
        place = case.target(number) if copy is None else target_of(case.nodes[copy.name])
        after = (ReplaceMember(target, array.uuid, gone, place),) if place is not None else ()
    if copy is not None:
        return _content(case, array, number, Fate.TO_DO, words, after, follows=True)
    return _filled(case, array, number, (), after, words)


def _filled(
    case: Case,
    array: Array,
    number: int,
    before: tuple[Step, ...],
    after: tuple[Step, ...],
    words: str,
) -> Content:
    """What is brought back by adding a place on the new disk."""
    if array.level not in REDUNDANT:
        words = f"{array.level} has no other copy: save what it holds, and make it anew"
        return _content(case, array, number, Fate.BY_HAND, words, ())
    place = case.target(number)
    if place is None:
        return _content(case, array, number, Fate.TO_DO, words, ())
    added = AddMember(_target(case, array), array.uuid, place)
    steps = (*before, added, *after)
    made = _content(case, array, number, Fate.TO_DO, words, steps, follows=True)
    return replace(made, overwrites=place)


def least_bytes(array: Array) -> int:
    """How large a device of an array has to be."""
    return array.component_bytes + array.data_offset_bytes


def _target(case: Case, array: Array) -> Target:
    return target_of(case.nodes[array.name])


def _content(
    case: Case,
    array: Array,
    number: int,
    fate: Fate,
    words: str,
    steps: tuple[Step, ...],
    *,
    follows: bool = False,
) -> Content:
    of = case.nodes[array.name].id
    follow = None
    if follows or fate is Fate.RUNNING:
        follow = Follow("md", array.uuid, max(1, array.component_bytes))
    told = f"{array.label or array.name} ({array.level}): {words}"
    return Content(number, KIND, of, fate, told, steps, follow=follow)
