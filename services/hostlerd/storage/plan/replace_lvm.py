"""What of volume groups of LVM was on a disk that is replaced.

Of a disk that is there all is moved, while it is in use. Of one that is gone, what mirrors had on
it is made anew from their other copies, and the group then does without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from hostlerd.runtime.steps import Step
from hostlerd.storage.model.filesystem_steps import WipeSignatures
from hostlerd.storage.model.lvm import Group, PhysicalVolume, Volume, busy_with
from hostlerd.storage.model.lvm_steps import ExtendGroup, ReduceGroup, RemoveMissing, StartMove
from hostlerd.storage.model.lvm_volume_steps import RepairVolume
from hostlerd.storage.model.replacement import Content, Fate, Follow
from hostlerd.storage.model.target import Target
from hostlerd.storage.plan.choose import target_of
from hostlerd.storage.plan.lvm_choose import find
from hostlerd.storage.plan.lvm_groups import AREA_BYTES
from hostlerd.storage.plan.replace_case import Case

KIND = "lvm"


def of_lvm(case: Case) -> Iterator[Content]:
    """What each group had on the old disk. Raises PhysicalVolumeCloned."""
    numbers = {node.number: name for name, node in case.nodes.items()}
    on_new, on_old = case.on(case.new), case.on(case.old)
    for group in sorted(case.groups, key=lambda one: one.uuid):
        names = [(one, numbers.get(one.number, "")) for one in group.physical]
        new = next((one for one, name in names if name in on_new), None)
        old = [(one, name) for one, name in names if name in on_old]
        gone = [one for one in group.physical if one.is_missing] if case.old is None else []
        if not old and not gone:
            if new is not None:
                yield _taken(group, new, on_new[numbers[new.number]])
        elif group.is_foreign:
            yield _content(group, 0, Fate.BY_HAND, "is exported, or a cluster's: by its own tool")
        elif gone:
            others = case.numbers_of(name for _, name in names if name)
            yield _of_gone(case, group, gone, others, new)
        else:
            for one, name in old:
                yield _of_old(case, group, one, name, new)


def _taken(group: Group, new: PhysicalVolume, number: int) -> Content:
    copied = [v for v in group.visible if new.uuid in v.carriers and _is_copied(v)]
    if copied or _moved(group):
        size = sum(v.size_bytes for v in copied) or new.used_extents * group.extent_bytes
        return _running(group, number, "is being copied to the new disk", size)
    return _content(group, number, Fate.DONE, "the new disk is in it")


def _is_copied(volume: Volume) -> bool:
    return (
        volume.kind == "raid1" and volume.sync_percent is not None and volume.sync_percent < 100.0
    )


def _moved(group: Group) -> bool:
    return any(one.moves for one in group.volumes)


def _of_gone(
    case: Case,
    group: Group,
    gone: list[PhysicalVolume],
    numbers: frozenset[int],
    new: PhysicalVolume | None,
) -> Content:
    """The steps that make anew what mirrors had on devices that are missing."""
    lost = {one.uuid for one in gone}
    hit = [one for one in group.visible if lost.intersection(one.carriers)]
    single = [v.name for v in hit if v.kind != "raid1" or len(lost & {*v.carriers}) >= v.legs]
    if single:
        words = f"{', '.join(single[:8])} had no other copy: restore them from a backup"
        return _content(group, 0, Fate.BY_HAND, words)
    if len(numbers) != 1:
        words = "its other devices are no partitions of one number: replace it by hand"
        return _content(group, 0, Fate.BY_HAND, words)
    (number,) = numbers
    if doing := busy_with(group):
        return _content(group, number, Fate.BY_HAND, f"is busy with {doing}: ask again after that")
    begun = _Begun(case, group, new, number)
    # Each copy has an extent that says how much of it is whole.
    extents = sum(group.extents_of(one.size_bytes) + 1 for one in hit)
    steps = [
        RepairVolume(*begun.of_step(at), one.name, one.uuid, number=begun.place)
        for at, one in enumerate(hit)
    ]
    ended = RemoveMissing(*begun.of_step(len(hit)))
    told = ", ".join(one.name for one in hit)
    words = f"the copy of {told} is made anew from the other ones" if hit else "had nothing there"
    return begun.content(words, extents, (*steps, ended))


def _of_old(
    case: Case, group: Group, old: PhysicalVolume, name: str, new: PhysicalVolume | None
) -> Content:
    """The steps that move all of a device that is there, and then take it out."""
    number, node = case.on(case.old)[name], case.nodes[name]
    going = [one.moves for one in group.volumes if one.moves]
    if going == [f"/dev/{name}"]:
        size = old.used_extents * group.extent_bytes
        return _running(group, number, "is being moved to the new disk", size)
    if doing := busy_with(group):
        return _content(group, number, Fate.BY_HAND, f"is busy with {doing}: ask again after that")
    if group.missing:
        words = f"lacks {group.missing} other devices: replace those first"
        return _content(group, number, Fate.BY_HAND, words)
    begun = _Begun(case, group, new, number)
    if old.used_extents:
        moved = StartMove(*begun.of_step(0), number=node.number, numbers=(begun.place,))
        words = "is moved while it is in use"
        return begun.content(words, old.used_extents, (moved,))
    out = (
        ReduceGroup(*begun.of_step(0), number=node.number),
        WipeSignatures(target_of(node)),
    )
    return begun.content("the old one, which has nothing of it, is taken out", 0, out)


class _Begun:
    """A group with a place on the new disk, which comes into it if it is not in it."""

    def __init__(self, case: Case, group: Group, new: PhysicalVolume | None, number: int) -> None:
        self.group, self.number = group, number
        self._found = find(case.groups, case.graph, group.uuid)
        self._target = None if new is not None else case.target(number)
        self._new = new

    @property
    def place(self) -> str:
        """What the device is called in steps; empty if there is none."""
        if self._new is not None:
            return self._new.number
        return self._target.place if self._target is not None else ""

    def of_step(self, at: int) -> tuple[str, str, int, int, tuple[Target, ...]]:
        """What a step begins with; the first, unless the new device comes before, counts 0."""
        group = self.group
        more = () if self._target is None else (self._target,)
        seqno = group.seqno if at == 0 and not more else 0
        return (group.name, group.uuid, seqno, group.missing, (*self._found.targets, *more))

    def content(self, words: str, extents: int, steps: tuple[Step, ...]) -> Content:
        """What is done for it, as far as there is a place for it."""
        size = extents * self.group.extent_bytes
        follow = Follow("lvm", self.group.uuid, size) if extents else None
        if self._new is not None:
            return _content(self.group, self.number, Fate.TO_DO, words, steps, follow)
        least = size + AREA_BYTES + self.group.extent_bytes
        if self._target is None:
            made = _content(self.group, self.number, Fate.TO_DO, words, (), follow)
            return replace(made, least_bytes=least)
        added = ExtendGroup(*self._found.of_group, device=self._target)
        made = _content(self.group, self.number, Fate.TO_DO, words, (added, *steps), follow)
        return replace(made, least_bytes=least, overwrites=self._target)


def _running(group: Group, number: int, words: str, size_bytes: int) -> Content:
    follow = Follow("lvm", group.uuid, max(1, size_bytes))
    return _content(group, number, Fate.RUNNING, words, follow=follow)


def _content(
    group: Group,
    number: int,
    fate: Fate,
    words: str,
    steps: tuple[Step, ...] = (),
    follow: Follow | None = None,
) -> Content:
    told = f"{group.name} (lvm): {words}"
    return Content(number, KIND, f"lvm-{group.uuid}", fate, told, steps, follow=follow)
