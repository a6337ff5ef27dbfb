"""What the worker tells of btrfs: the subvolumes, and what goes on for long, to its end."""

from __future__ import annotations

import time
from collections.abc import Callable

from hostlerd.storage.errors import BtrfsRefused, BtrfsWorkLost, WorkerLost
from hostlerd.storage.kernel.worker_client import Worker
from hostlerd.storage.model.btrfs import Subvolume, Work

_LOOK_EVERY_S = 0.25
_ANSWER_S = 120.0


def subvolumes(worker: Worker, uuid: str, *, sync: bool = False) -> tuple[Subvolume, ...]:
    """The subvolumes of a filesystem, the top among them; with what was written last, if `sync`."""
    told = worker.ask("ListSubvolumes", {"uuid": uuid, "sync": sync}, _ANSWER_S)
    return tuple(Subvolume(**one) for one in told["items"])


def look(worker: Worker, uuid: str, kind: str) -> Work:
    """How far something is that the worker has begun."""
    told = worker.ask("LookBtrfsWork", {"uuid": uuid, "kind": kind}, _ANSWER_S)
    return Work.read(told["work"])


def follow(worker: Worker, uuid: str, kind: str, tell: Callable[[Work], None]) -> Work:
    """Tell of something until it is over; answer what it came to.

    Blocks. Raises BtrfsRefused if it fails, BtrfsWorkLost, and what `tell` raises.
    """
    while True:
        try:
            found = look(worker, uuid, kind)
        except WorkerLost:
            # It went with the work; the next one knows of none.
            found = Work(kind, "none")
        if found.state == "none":
            raise BtrfsWorkLost(f"the worker that did the {kind} has ended", filesystem=uuid)
        if found.state == "failed":
            raise BtrfsRefused(f"the {kind} has failed: {found.error}", filesystem=uuid)
        if found.state == "done":
            if not found.is_cancelled:
                tell(found)
            return found
        tell(found)
        time.sleep(_LOOK_EVERY_S)
