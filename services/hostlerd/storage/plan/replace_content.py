"""What else was on a disk that is replaced: swap areas, which are made anew, and what only says so.

A swap area gets the UUID that it had: whatever declares it finds it again.
"""

from __future__ import annotations

from collections.abc import Iterator

from hostlerd.runtime.steps import Step
from hostlerd.storage.model.declared import Declared
from hostlerd.storage.model.filesystem_steps import MakeFilesystem, WipeSignatures
from hostlerd.storage.model.graph import Node
from hostlerd.storage.model.mount import State
from hostlerd.storage.model.mount_steps import SetSwap
from hostlerd.storage.model.observed import FstabLine, Signature
from hostlerd.storage.model.replacement import Content, Fate
from hostlerd.storage.model.target import Target
from hostlerd.storage.plan.arrays import RAID_TYPES
from hostlerd.storage.plan.choose import target_of
from hostlerd.storage.plan.replace_case import Case
from hostlerd.storage.plan.resolve import named
from hostlerd.storage.plan.swap import active
from hostlerd.storage.plan.table_arrange import WORDS

FILESYSTEM = "filesystem"
_BY_UUID = ("UUID=", "/dev/disk/by-uuid/")
_SWAP_TYPES = frozenset((WORDS["gpt"]["swap"], WORDS["dos"]["swap"]))
_OTHERS = RAID_TYPES | {"LVM2_member", "zfs_member", "bcache", "crypto_LUKS"}


def of_swap(case: Case) -> Iterator[Content]:
    """The swap areas of the old disk."""
    if case.old is None:
        yield from _swap_of_gone(case)
        return
    for name, number in case.on(case.old).items():
        node = case.nodes[name]
        for one in node.signatures:
            if one.type == "swap":
                yield _swap(case, node, number, one)


def _swap(case: Case, old: Node, number: int, found: Signature) -> Content:
    declared = _declared(case, found.uuid, old)
    used = active(old, case.units)
    ours = declared.ours if declared is not None else None
    if used is not None and ours is None:
        words = "is swapped to, not by a unit of Hostler's: swap it off, and ask again"
        return _content(number, old.id, Fate.BY_HAND, words)
    words = "is made anew, under the UUID that it had"
    place = case.target(number)
    if place is None:
        return _content(number, old.id, Fate.TO_DO, words)
    steps: list[Step] = []
    if used is not None and ours is not None:
        steps.append(SetSwap(ours.what, target_of(old), State(ours, True), State(ours)))
    # Two areas of one UUID: which of them is used would be chance.
    steps.append(WipeSignatures(target_of(old)))
    steps.append(MakeFilesystem(place, "swap", found.label, found.uuid))
    if used is not None and ours is not None:
        steps.append(SetSwap(ours.what, place, State(ours), State(ours, True)))
    return _content(number, old.id, Fate.TO_DO, words, tuple(steps), place)


def _swap_of_gone(case: Case) -> Iterator[Content]:
    """The areas that something declares, and that no device has; if there is a place for each."""
    lost = [
        one
        for one in case.units.declared
        if one.type == "swap" and _uuid(one.what) and not named(case.seen, one.what)
    ]
    free = (
        []
        if case.want is None
        else [
            one.number
            for one in case.want.entries
            if one.type in _SWAP_TYPES and not _holds(case, one.number)
        ]
    )
    for at, one in enumerate(sorted(lost, key=lambda each: each.what)):
        if at >= len(free):
            words = f"the swap area of {one.by} is gone, and the table has no place for it"
            yield _content(0, one.what, Fate.BY_HAND, words)
            continue
        place = case.target(free[at])
        words = f"is made anew for {one.by}, under the UUID that it had"
        steps: tuple[Step, ...] = ()
        if place is not None:
            steps = (MakeFilesystem(place, "swap", "", _uuid(one.what)),)
        if place is not None and one.ours is not None:
            steps += (SetSwap(one.ours.what, place, State(one.ours), State(one.ours, True)),)
        yield _content(free[at], one.what, Fate.TO_DO, words, steps, place)


def _holds(case: Case, number: int) -> bool:
    there = case.partition(number)
    return there is not None and bool(there.signatures)


def _declared(case: Case, uuid: str, old: Node) -> Declared | None:
    for one in case.units.declared:
        names = {each.name for each in named(case.seen, one.what)}
        if one.type == "swap" and (_uuid(one.what) == uuid != "" or old.name in names):
            return one
    return None


def _uuid(what: str) -> str:
    """The UUID that a word of fstab(5) or a unit names; empty if it names another thing."""
    return next((what.removeprefix(one) for one in _BY_UUID if what.startswith(one)), "")


def of_others(case: Case) -> Iterator[Content]:
    """Filesystems, volumes and what else nothing here brings back: by hand, and from backups."""
    if case.old is None:
        for line in case.seen.fstab:
            if _is_lost(case, line):
                words = f"{line.path} of {line.words} ({line.source}) is gone: {_FROM_BACKUP}"
                yield Content(0, FILESYSTEM, line.source, Fate.BY_HAND, words)
        return
    pooled = {one.name for pool in case.seen.btrfs for one in pool.devices}
    in_arrays = {one.name for array in case.arrays for one in array.members}
    in_groups = {one.uuid for group in case.groups for one in group.physical}
    for name, number in case.on(case.old).items():
        node = case.nodes[name]
        for one in node.signatures if name not in pooled | in_arrays else ():
            if one.usage == "filesystem" and one.type not in _OTHERS:
                words = f"{one.type} {one.label or one.uuid} has no other copy: {_FROM_OLD}"
                yield Content(number, FILESYSTEM, node.id, Fate.BY_HAND, words)
            elif one.type in _OTHERS and one.uuid not in in_groups:
                words = f"{one.type} {one.uuid} is not moved by this: move it by its own tool"
                yield Content(number, one.type, node.id, Fate.BY_HAND, words)


_FROM_BACKUP = "make it anew, and restore what it held from a backup"
_FROM_OLD = "make it on the new disk, and copy it (hostler storage copy) or restore a backup"


def _is_lost(case: Case, line: FstabLine) -> bool:
    return (
        line.type != "swap"
        and bool(_uuid(line.source))
        and not named(case.seen, line.source)
        and line.path not in {mount.path for mount in case.seen.mounts}
    )


def _content(
    number: int,
    of: str,
    fate: Fate,
    words: str,
    steps: tuple[Step, ...] = (),
    overwrites: Target | None = None,
) -> Content:
    return Content(number, "swap", of, fate, f"swap: {words}", steps, overwrites)
