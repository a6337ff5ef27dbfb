"""The edge of the storage domain where it changes something: each step is a word to the worker."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from hostlerd.runtime.edge import Recoverable
from hostlerd.runtime.steps import Step
from hostlerd.storage.kernel.worker_client import Worker
from hostlerd.storage.model.saved import Saved
from hostlerd.storage.model.steps import STEPS

_ANSWERS_MOST = 256


class Changing(Recoverable):
    """Carries out steps, and keeps what the worker told of the last ones."""

    def __init__(self, worker: Worker, doors: Mapping[str, Worker] | None = None) -> None:
        self.worker = worker
        self.doors = doors or {}
        self._answers: OrderedDict[Step, Mapping[str, Any]] = OrderedDict()

    @property
    def kinds(self) -> Collection[type]:
        """All steps of the domain."""
        return STEPS

    @property
    def one_way(self) -> Collection[type]:
        """What may be done twice and is not to be taken back is gone on with, once it has begun."""
        return tuple(kind for kind in STEPS if getattr(kind, "one_way", False))

    @property
    def unrepeatable(self) -> Collection[type]:
        """What was cut off in a step that overwrites is told of, and left as it is."""
        return tuple(kind for kind in STEPS if not getattr(kind, "repeatable", True))

    def settle(self, steps: Sequence[Step]) -> None:
        """Wait for what the worker goes on with: it does not end with the daemon."""
        for door in {id(one): one for one in map(self._door, steps)}.values():
            door.settle()

    @contextmanager
    def applying(self) -> Iterator[Callable[[Step], None]]:
        """Open the session of one change."""
        yield self.apply

    @contextmanager
    def recovering(self) -> Iterator[Callable[[Step], None]]:
        """Open a session of steps that may have been done already, or in part."""
        yield lambda step: self.apply(_again(step))

    def apply(self, step: Step) -> None:
        """Carry out one step. Raises DomainError; then nothing of it remains."""
        self._answers[step] = self._door(step).apply(step)
        while len(self._answers) > _ANSWERS_MOST:
            self._answers.popitem(last=False)

    def _door(self, step: Step) -> Worker:
        return self.doors.get(getattr(step, "door", ""), self.worker)

    def kept(self) -> tuple[Saved, ...]:
        """What the worker keeps of devices that were overwritten, the newest first."""
        return tuple(map(Saved.read, self.worker.ask("ListSaved", {})["items"]))

    def take_answer(self, step: Step) -> Mapping[str, Any]:
        """What the worker told of a step that was carried out here, once; empty if it was not."""
        return self._answers.pop(step, {})


def _again(step: Any) -> Any:
    """A step as it is repeated: what it has done itself has counted on; see `lvm_steps`."""
    return replace(step, seqno=0) if hasattr(step, "seqno") else step
