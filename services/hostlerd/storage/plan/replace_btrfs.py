"""What of btrfs was on a disk that is replaced."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from hostlerd.runtime.steps import Step
from hostlerd.storage.model.btrfs import PROFILES
from hostlerd.storage.model.btrfs_steps import StartReplace
from hostlerd.storage.model.observed import Btrfs, BtrfsDevice
from hostlerd.storage.model.replacement import Content, Fate, Follow
from hostlerd.storage.plan.btrfs import node_id
from hostlerd.storage.plan.choose import target_of
from hostlerd.storage.plan.replace_case import Case

KIND = "btrfs"
_BUSY = ("", "none")


def of_btrfs(case: Case) -> Iterator[Content]:
    """What each mounted btrfs had on the old disk."""
    on_new, on_old = case.on(case.new), case.on(case.old)
    for pool in case.seen.btrfs:
        new = [one for one in pool.devices if one.name in on_new]
        if pool.exclusive_operation.startswith("device replace"):
            if new:
                words = "is being copied to the new disk"
                size = max(one.size_bytes for one in pool.devices)
                yield _content(pool, on_new[new[0].name], Fate.RUNNING, words, (), size)
            continue
        old = [one for one in pool.devices if one.name in on_old]
        if case.old is None:
            old = [one for one in pool.devices if _is_gone(case, one)]
        for one in old:
            yield _of_device(case, pool, one, on_old.get(one.name))
        if not old and new:
            yield _content(pool, on_new[new[0].name], Fate.DONE, "the new disk has all of it", ())


def _is_gone(case: Case, device: BtrfsDevice) -> bool:
    # One without a name is of a filesystem that is mounted out of sight.
    return device.is_missing or bool(device.name and not case.is_there(device.name))


def _of_device(case: Case, pool: Btrfs, old: BtrfsDevice, at: int | None) -> Content:
    gone = _is_gone(case, old)
    others = [one.name for one in pool.devices if not _is_gone(case, one)]
    numbers = case.numbers_of(others)
    if at is None and len(numbers) != 1:
        words = "its other devices are no partitions of one number: replace it by hand"
        return _content(pool, 0, Fate.BY_HAND, words, ())
    number = next(iter(numbers)) if at is None else at
    weakest = min((PROFILES[one.profile].losses for one in pool.allocations), default=0)
    lost = sum(_is_gone(case, one) for one in pool.devices)
    if lost > weakest:
        words = f"lacks {lost} devices, and survives the loss of {weakest}: save what can be read"
        return _content(pool, number, Fate.BY_HAND, words, ())
    if pool.exclusive_operation not in _BUSY:
        words = f"is busy with {pool.exclusive_operation}: ask again when that is over"
        return _content(pool, number, Fate.BY_HAND, words, ())
    words = f"device {old.device_id} is copied from the other devices"
    words += "" if gone else ", and from the old one where no other has it"
    place = case.target(number)
    if place is None:
        return _content(pool, number, Fate.TO_DO, words, (), old.size_bytes)
    source = () if gone else (target_of(case.nodes[old.name]),)
    step = StartReplace(pool.uuid, old.device_id, source, place, old.size_bytes, avoids_old=True)
    made = _content(pool, number, Fate.TO_DO, words, (step,), old.size_bytes)
    return replace(made, overwrites=place)


def _content(
    pool: Btrfs,
    number: int,
    fate: Fate,
    words: str,
    steps: tuple[Step, ...],
    size_bytes: int = 0,
) -> Content:
    follow = None
    if steps or fate is Fate.RUNNING:
        follow = Follow("btrfs", pool.uuid, max(1, size_bytes))
    told = f"{pool.label or pool.uuid} (btrfs): {words}"
    return Content(number, KIND, node_id(pool), fate, told, steps, follow=follow)
