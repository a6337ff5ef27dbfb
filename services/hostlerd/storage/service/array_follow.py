"""As a job, watching what md does to an array until it is done.

md works by itself: nothing of this is needed for it, and no lock is held meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hostlerd.runtime.call import PROGRESS
from hostlerd.runtime.call import Progress as JobProgress
from hostlerd.runtime.errors import DomainError
from hostlerd.runtime.steps import Notice, Step
from hostlerd.storage.errors import ArrayNotFound
from hostlerd.storage.kernel import md
from hostlerd.storage.kernel.changing import Changing
from hostlerd.storage.model.array import Array, Sync
from hostlerd.storage.model.array_steps import RemoveMember, ReplaceMember, SetSyncAction
from hostlerd.storage.plan.array_choose import Found

_WORDS = {
    "resync": "making the copies alike",
    "recover": "rebuilding",
    "check": "comparing",
    "repair": "comparing and repairing",
    "reshape": "reshaping",
}
_SECTOR_BYTES = 512


@dataclass(frozen=True, slots=True)
class Following:
    """Follows arrays, and does what comes after."""

    changing: Changing

    def is_wanted(self) -> bool:
        """Whether this is a job: nobody else waits for hours."""
        return PROGRESS.get() is not None

    def follow(self, found: Found, steps: Sequence[Step]) -> Iterable[Notice]:
        """Watch an array until md is done with what the steps began; answer what came of it.

        Raises what stops the job, after a comparison was made to cease.
        """
        progress = PROGRESS.get()
        if progress is None:
            return
        compares = [one for one in steps if isinstance(one, SetSyncAction)]
        goes_on = (
            f"md goes on with {found.node.id} by itself, "
            "or stands still after a boot until the same is asked for again"
        )
        progress.follow("bytes", goes_on, "" if compares else goes_on)
        try:
            after = md.follow(found.array.uuid, lambda sync: _tell(progress, found, sync))
        except DomainError as e:
            if not isinstance(e, ArrayNotFound):
                for one in compares:
                    self.changing.apply(SetSyncAction(one.array, one.uuid, "idle"))
            raise
        for step in steps:
            if isinstance(step, ReplaceMember):
                yield self._taken_out(step, after)
        if compares and after.sync.mismatch_sectors:
            yield _mismatch(compares[-1], found, after.sync)

    def _taken_out(self, step: ReplaceMember, after: Array) -> Notice:
        """Take a member out that was copied to the end, as md has marked it as failed then."""
        old, new = after.member(step.old.name), after.member(step.new.name)
        if new is not None and new.is_whole and old is not None and old.is_faulty:
            self.changing.apply(RemoveMember(step.array, step.uuid, step.old))
            return Notice("MEMBER_REPLACED", f"{step.old.id} was taken out", step.old.id)
        words = f"md did not copy {step.old.id} to the end: it is in use still"
        return Notice("MEMBER_NOT_REPLACED", words, step.old.id)


def _tell(progress: JobProgress, found: Found, sync: Sync) -> None:
    words = "waiting for another array on the same disks" if sync.is_delayed else ""
    words = words or _WORDS.get(sync.action, sync.action)
    progress.step(sync.done_bytes, sync.total_bytes, f"{words}: {found.node.id}")


def _mismatch(step: SetSyncAction, found: Found, sync: Sync) -> Notice:
    differ = "differ" if step.action == "check" else "differed, and were made alike"
    amount = f"{sync.mismatch_sectors} sectors ({sync.mismatch_sectors * _SECTOR_BYTES} bytes)"
    return Notice("ARRAY_MISMATCH", f"{amount} of {found.node.id} {differ}", found.node.id)
