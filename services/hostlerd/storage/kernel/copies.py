"""Copies as the program that makes them tells of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hostlerd.storage.errors import RunLost, WorkerUnavailable
from hostlerd.storage.errors.copies import CopyInterrupted
from hostlerd.storage.kernel.doors import Tell, follow
from hostlerd.storage.kernel.worker_client import Worker
from hostlerd.storage.model.copies import Outcome, Seen

_SEE_S = 60.0


@dataclass(frozen=True, slots=True)
class Copies:
    """The program that copies. Every method blocks, within bounds."""

    door: Worker

    def see(self, source: str, target: str, manifest: bool) -> Seen:
        """What is there before a copy. Raises DomainError where it could not be made."""
        asked: dict[str, Any] = {"source": source, "target": target, "manifest": manifest}
        told = self.door.ask("See", asked, _SEE_S)
        return Seen(str(told["kind"]), str(told["left"]))

    def follow(self, run: str, tell: Tell, again: str) -> Outcome:
        """Watch a run to its end; answer how it ended. Raises what it failed with.

        `again` is what the same request would do where the program has ended in the middle.
        """
        try:
            told = follow(self.door, run, tell)
        except (RunLost, WorkerUnavailable) as e:
            words = f"the program that copies has ended in the middle; {again}"
            raise CopyInterrupted(words) from e
        return Outcome(**told)
