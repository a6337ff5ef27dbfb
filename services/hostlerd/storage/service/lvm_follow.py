"""As a job, watching what LVM does for long until it is over. No lock is held meanwhile.

The kernel and lvmpolld work by themselves: nothing of this is needed for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeGuard

from hostlerd.runtime.call import PROGRESS
from hostlerd.runtime.errors import DomainError
from hostlerd.runtime.steps import Step
from hostlerd.storage.errors.volumes import GroupNotFound
from hostlerd.storage.kernel import Kernel, lvm_look
from hostlerd.storage.kernel.changing import Changing
from hostlerd.storage.model.lvm import Group, Volume
from hostlerd.storage.model.lvm_steps import AbortMove, StartMove
from hostlerd.storage.model.lvm_volume_steps import (
    CreateVolume,
    MergeVolumeSnapshot,
    RepairVolume,
    ReplaceVolumeLeg,
)
from hostlerd.storage.model.target import Target
from hostlerd.storage.plan.choose import target_of
from hostlerd.storage.plan.graph import build
from hostlerd.storage.plan.lvm_choose import members

Lasting = CreateVolume | MergeVolumeSnapshot | RepairVolume | ReplaceVolumeLeg | StartMove
Seen = tuple[float, int]
"""How much is done, in percent, and of how many bytes."""
_ALL = 100.0


def carriers(kernel: Kernel) -> Sequence[Target]:
    """All physical volumes of the host as they are now."""
    return [target_of(node) for node in members(build(kernel.look()))]


def going_on(group: Group) -> Seen | None:
    """How far all is that LVM copies within a group; None if it copies nothing."""
    going = [one for one in group.volumes if one.moves] or [
        one
        for one in group.visible
        if one.kind == "raid1" and one.sync_percent is not None and one.sync_percent < _ALL
    ]
    if not going:
        return None
    total = sum(max(one.size_bytes, 1) for one in going)
    done = sum((one.sync_percent or 0.0) * max(one.size_bytes, 1) for one in going)
    return done / total, total


@dataclass(frozen=True, slots=True)
class Following:
    """Follows what a step of LVM has begun."""

    changing: Changing
    look: Callable[[], Sequence[Target]]
    """The physical volumes of the host, as they are by now."""

    def follow(self, steps: Sequence[Step]) -> None:
        """Watch what was begun until it is over.

        Raises what stops the job, after a move was made to cease.
        """
        progress = PROGRESS.get()
        step = next((one for one in steps if _lasts(one)), None)
        if progress is None or step is None:
            return
        words, seen_by = _watch(step)
        goes_on = f"LVM goes on with {step.describe()}"
        progress.follow("bytes", goes_on, "" if isinstance(step, StartMove) else goes_on)
        total = 1

        def look(group: Group) -> bool:
            nonlocal total
            seen = seen_by(group)
            if seen is None:
                progress.step(total, total, words)
                return True
            percent, total = seen
            progress.step(min(int(total * percent / 100), total), total, words)
            return False

        try:
            lvm_look.follow(self.changing.worker, self.look, step.uuid, look)
        except DomainError as e:
            if isinstance(step, StartMove) and not isinstance(e, GroupNotFound):
                of = (step.group, step.uuid, 0, step.missing, step.devices)
                self.changing.apply(AbortMove(*of, number=step.number))
            raise


def _lasts(step: Step) -> TypeGuard[Lasting]:
    if isinstance(step, CreateVolume):
        return step.kind == "raid1"
    if isinstance(step, MergeVolumeSnapshot):
        return not step.is_later
    return isinstance(step, (RepairVolume, ReplaceVolumeLeg, StartMove))


def _watch(step: Lasting) -> tuple[str, Callable[[Group], Seen | None]]:
    """What goes on in words, and how far it is by what is seen of the group; None: over."""
    if isinstance(step, StartMove):
        return f"moving to other devices: {step.group}", _move
    if isinstance(step, MergeVolumeSnapshot):
        uuid = step.volume_uuid
        return f"merging: {step.group}/{step.volume}", lambda group: _merge(group, uuid)
    name = step.volume
    return f"making the copies alike: {step.group}/{name}", lambda group: _copies(group, name)


def _move(group: Group) -> Seen | None:
    going = [one for one in group.volumes if one.moves]
    return _seen(going[0], going[0].sync_percent) if going else None


def _merge(group: Group, uuid: str) -> Seen | None:
    one = next((one for one in group.volumes if one.uuid == uuid), None)
    if one is None:
        return None
    # What is still in the snapshot has yet to be copied back.
    return _seen(one, 100 - one.data_percent if one.data_percent is not None else 0.0)


def _copies(group: Group, name: str) -> Seen | None:
    one = group.volume(name)
    if one is None or one.sync_percent is None or one.sync_percent >= 100:
        return None
    return _seen(one, one.sync_percent)


def _seen(volume: Volume, percent: float | None) -> Seen:
    return percent or 0.0, max(volume.size_bytes, 1)
