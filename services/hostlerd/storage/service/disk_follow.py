"""As a job, watching all that is copied to a new disk until it is over, and what comes after.

md, btrfs and LVM work by themselves: nothing of this is needed for it, and no lock is held
meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from hostlerd.runtime.call import PROGRESS, Progress
from hostlerd.runtime.errors import DomainError
from hostlerd.runtime.steps import Notice, Step
from hostlerd.storage.errors import (
    ArrayNotFound,
    BtrfsRefused,
    BurnInFailed,
    BurnInLost,
    ReplacementIncomplete,
)
from hostlerd.storage.errors.volumes import GroupNotFound
from hostlerd.storage.kernel import btrfs_work, lvm_look, md
from hostlerd.storage.kernel.changing import Changing
from hostlerd.storage.model.array import Sync
from hostlerd.storage.model.array_steps import RemoveMember
from hostlerd.storage.model.btrfs import Work
from hostlerd.storage.model.disk_steps import CancelBurnIn, SetLocator, StartBurnIn
from hostlerd.storage.model.filesystem_steps import WipeSignatures
from hostlerd.storage.model.lvm import Group
from hostlerd.storage.model.lvm_steps import ReduceGroup
from hostlerd.storage.model.replacement import Content, Fate, Follow, Pull, Replacement
from hostlerd.storage.model.target import Target
from hostlerd.storage.service.lvm_follow import going_on

_LOOK_EVERY_S = 0.25
_ANSWER_S = 120.0
_GOES_ON = "md, btrfs and LVM go on by themselves"
_RESUMED = (
    f"{_GOES_ON}, but md may stand still after a boot; ask for the same replacement again to have "
    "what is left done, and watched"
)
# md puts a new member into its slot a moment after it was added.
_ROUNDS_MOST = 20


@dataclass(frozen=True, slots=True)
class Following:
    """Follows what is copied, and takes out what has been copied from."""

    changing: Changing
    carriers: Callable[[], Sequence[Target]]
    """The physical volumes of the host, as they are by now."""

    def is_wanted(self) -> bool:
        """Whether this is a job: nobody else waits for hours."""
        return PROGRESS.get() is not None

    def follow(self, planned: Replacement, examine: Callable[[], Replacement]) -> Iterator[Notice]:
        """Watch until nothing is copied any more; answer what came of it.

        `planned` is what the steps began, `examine` looks at the host anew. Raises
        ReplacementIncomplete if something did not come back, BtrfsRefused, and what stops the job.
        """
        progress = PROGRESS.get()
        if progress is None:
            return
        found = examine()
        # What is small may be done by now.
        begun = _followed(planned, Fate.TO_DO, Fate.RUNNING)
        total = sum(one.size_bytes for one in begun)
        if begun:
            progress.follow("bytes", _RESUMED, _GOES_ON)
        done = 0
        for _ in range(_ROUNDS_MOST):
            for one in _followed(found, Fate.RUNNING):
                self._one(one, _Part(progress, min(done, total), one.size_bytes, total))
                done += one.size_bytes
            yield from self._taken_out(found := examine())
            if not _followed(found, Fate.RUNNING):
                break
        _refuse_rest(found)
        if begun:
            progress.step(total, total, "all is on the new disk")
        yield from self._blinking(found.pull)
        yield Notice("PULL", found.pull.words, found.pull.id)

    def _blinking(self, pull: Pull) -> Iterator[Notice]:
        """Have the enclosure blink at the disk to pull; that it cannot is no failure."""
        if pull.target is None or not pull.bay:
            return
        try:
            self.changing.apply(SetLocator(pull.target, True))
        except DomainError as e:
            yield Notice("LOCATOR_FAILED", e.message, pull.id)
        else:
            yield Notice("LOCATOR_ON", f"bay {pull.bay} of {pull.enclosure} blinks", pull.id)

    def burn_in(self, steps: Sequence[Step]) -> None:
        """As a job, watch a burn-in to its end. Raises BurnInFailed, BurnInLost, what stops it."""
        progress = PROGRESS.get()
        for step in steps:
            if progress is None or not isinstance(step, StartBurnIn):
                continue
            progress.follow("bytes", "the worker goes on with it until it ends itself", "")
            try:
                self._burnt_in(step.disk.id, progress)
            except (BurnInFailed, BurnInLost):
                raise
            except DomainError:
                self.changing.apply(CancelBurnIn(step.disk.id))
                raise

    def _burnt_in(self, disk: str, progress: Progress) -> None:
        while True:
            told = self.changing.worker.ask("LookBurnIn", {"id": disk}, _ANSWER_S)
            found = Work.read(told["work"])
            if found.state == "none":
                raise BurnInLost(f"the worker that wrote {disk} has ended", device=disk)
            if found.state == "failed":
                raise BurnInFailed(f"{disk}: {found.error}", device=disk)
            is_written = 2 * found.done > found.total
            words = "reading back" if is_written else "writing"
            progress.step(found.done, found.total, f"{words}: {disk}")
            if found.state == "done":
                return
            time.sleep(_LOOK_EVERY_S)

    def _one(self, one: Follow, part: _Part) -> None:
        # Of each kind that goes on by itself, how it is watched.
        {"md": self._md, "btrfs": self._btrfs, "lvm": self._lvm}[one.kind](one, part)

    def _md(self, one: Follow, part: _Part) -> None:
        try:
            md.follow(one.uuid, part.synced)
        except ArrayNotFound:
            # Stopped meanwhile: what is there then is looked at anew.
            return

    def _btrfs(self, one: Follow, part: _Part) -> None:
        while True:
            found = btrfs_work.look(self.changing.worker, one.uuid, "replace")
            if found.state == "failed":
                words = f"the replacement in btrfs {one.uuid} has failed: {found.error}"
                raise BtrfsRefused(words, filesystem=one.uuid)
            if found.state != "running":
                return
            part.tell(found.done, found.total, f"copying to the new disk: filesystem-{one.uuid}")
            time.sleep(_LOOK_EVERY_S)

    def _lvm(self, one: Follow, part: _Part) -> None:
        def look(group: Group) -> bool:
            seen = going_on(group)
            if seen is not None:
                percent, total = seen
                part.tell(int(total * percent / 100), total, f"lvm: copying in {group.name}")
            return seen is None

        try:
            lvm_look.follow(self.changing.worker, self.carriers, one.uuid, look)
        except GroupNotFound:
            return

    def _taken_out(self, found: Replacement) -> Iterator[Notice]:
        """Take out what has been copied from to the end, and has nothing that is needed."""
        for one in found.contents:
            if one.fate is not Fate.TO_DO or not _only_removes(one.steps):
                continue
            for step in one.steps:
                self.changing.apply(step)
                yield Notice("MEMBER_REPLACED", f"when it was copied: {step.describe()}", one.id)


@dataclass(frozen=True, slots=True)
class _Part:
    """Tells of one thing that is copied as a part of all that is."""

    progress: Progress
    before: int
    size: int
    total: int

    def tell(self, done: int, total: int, words: str) -> None:
        """So much of it is done."""
        share = self.size * min(done, total) // total if total > 0 else 0
        self.progress.step(min(self.before + share, self.total), self.total, words)

    def synced(self, sync: Sync) -> None:
        """As md tells of it."""
        words = "waiting for another array" if sync.is_delayed else f"md: {sync.action}"
        self.tell(sync.done_bytes, sync.total_bytes, words)


def _followed(found: Replacement, *fates: Fate) -> list[Follow]:
    """What is to be watched of such fates, each once."""
    running = (one.follow for one in found.contents if one.fate in fates)
    return list(dict.fromkeys(one for one in running if one is not None))


def _refuse_rest(found: Replacement) -> None:
    """Raise ReplacementIncomplete if anything is left that was to be brought back."""

    def is_left(one: Content) -> bool:
        return one.fate is Fate.RUNNING or (one.fate is Fate.TO_DO and not _only_removes(one.steps))

    if left := [one for one in found.contents if is_left(one)]:
        words = "; ".join(one.words for one in left)
        raise ReplacementIncomplete(f"not all came back: {words}", old=found.old, new=found.new)


def _only_removes(steps: Sequence[Step]) -> bool:
    return isinstance(next(iter(steps), None), (RemoveMember, ReduceGroup)) and all(
        isinstance(one, (RemoveMember, ReduceGroup, WipeSignatures)) for one in steps
    )
