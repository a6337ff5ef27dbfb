"""As a job, watching what btrfs does for long until it is over. No lock is held meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hostlerd.runtime.call import PROGRESS
from hostlerd.runtime.errors import DomainError
from hostlerd.runtime.steps import Notice, Step
from hostlerd.storage.errors import BtrfsRefused, BtrfsWorkLost
from hostlerd.storage.kernel.btrfs_work import follow
from hostlerd.storage.kernel.changing import Changing
from hostlerd.storage.model.btrfs import Work
from hostlerd.storage.model.btrfs_steps import (
    CancelBtrfsWork,
    StartBalance,
    StartRemoval,
    StartReplace,
    StartScrub,
)

_KINDS: Mapping[type, tuple[str, str, str]] = {
    StartScrub: ("scrub", "bytes", "reading and comparing"),
    StartReplace: ("replace", "bytes", "copying to the new device"),
    StartRemoval: ("remove", "bytes", "moving to the other devices"),
    StartBalance: ("balance", "chunks", "writing anew"),
}
_DAMAGE = ("read_errors", "csum_errors", "verify_errors", "super_errors", "uncorrectable_errors")
_TOLD = (*_DAMAGE, "corrected_errors", "unverified_errors")


@dataclass(frozen=True, slots=True)
class Following:
    """Follows what a step of btrfs has begun."""

    changing: Changing

    def follow(self, steps: Sequence[Step], names: Mapping[int, str]) -> Iterator[Notice]:
        """Watch what was begun until it is over; answer what came of it, by the devices' names.

        Raises what stops the job, after that was made to cease.
        """
        progress = PROGRESS.get()
        step = next((one for one in steps if type(one) in _KINDS), None)
        if progress is None or step is None:
            return
        kind, unit, words = _KINDS[type(step)]
        uuid: str = getattr(step, "uuid", "")
        said = f"{words}: filesystem-{uuid}"
        progress.follow(unit, f"the worker goes on with the {kind} of filesystem-{uuid}", "")
        try:
            found = follow(
                self.changing.worker,
                uuid,
                kind,
                lambda work: progress.step(work.done, max(work.total, work.done), said),
            )
        except DomainError as e:
            if not isinstance(e, (BtrfsRefused, BtrfsWorkLost)):
                self.changing.apply(CancelBtrfsWork(uuid, kind))
            raise
        progress.step(max(found.total, found.done, 1), max(found.total, found.done, 1), said)
        if isinstance(step, StartScrub):
            yield from _scrubbed(found, step, names)


def _scrubbed(found: Work, step: StartScrub, names: Mapping[int, str]) -> Iterator[Notice]:
    """What a scrub has found on each device, and what became of it."""
    for device_id, counts in sorted((found.counts or {}).items()):
        if not any(counts.get(key) for key in _DAMAGE):
            continue
        told = ", ".join(f"{key} {counts[key]}" for key in _TOLD if counts.get(key))
        name = names.get(device_id, "")
        where = f"device {device_id} ({name}) of filesystem-{step.uuid}"
        if counts.get("uncorrectable_errors"):
            code, became = "BTRFS_UNCORRECTABLE", "not all of it could be put right"
        elif step.is_read_only:
            # The kernel counts what it could correct as corrected.
            code, became = "BTRFS_DAMAGED", "another copy is right: nothing was written"
        else:
            code, became = "BTRFS_CORRECTED", "all of it was put right from another copy"
        yield Notice(code, f"{where}: {told}: {became}", f"filesystem-{step.uuid}")
