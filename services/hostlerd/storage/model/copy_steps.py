"""The steps of copies of files: begun by a step, they go on in the program that copies."""

from __future__ import annotations

from dataclasses import dataclass

from hostlerd.runtime.steps import Step

COPIER = "copier"
"""The program that copies, as steps name its door."""


@dataclass(frozen=True, slots=True)
class BeginCopy:
    """Begin to copy a file or a tree within the host."""

    source: str
    target: str
    manifest: bool
    door = COPIER
    repeatable = False
    timeout_s = 60.0

    def describe(self) -> str:
        """Say what it does."""
        more = f", and write {self.target}.manifest" if self.manifest else ""
        return f"copy {self.source} to {self.target}, read it again and compare{more}"

    def inverse(self) -> Step | None:
        """There is no target before all of it is there."""
        return None


@dataclass(frozen=True, slots=True)
class BeginVerify:
    """Begin to read a copy again and to compare it with its manifest."""

    manifest: str
    root: str
    door = COPIER
    repeatable = False
    timeout_s = 60.0

    def describe(self) -> str:
        """Say what it does."""
        what = self.root or "what it is of, beside it,"
        return f"read {what} from the disk and compare it with {self.manifest}"

    def inverse(self) -> Step | None:
        """It leaves nothing."""
        return None


@dataclass(frozen=True, slots=True)
class BeginBurnIn:
    """Begin to write files in a folder, and to compare what the disk has of them."""

    folder: str
    size_bytes: int
    rounds: int
    door = COPIER
    repeatable = False
    timeout_s = 60.0

    def describe(self) -> str:
        """Say what it does."""
        much = f"{self.size_bytes} bytes in {self.folder}, {self.rounds} times"
        return f"write and compare {much}, and remove them"

    def inverse(self) -> Step | None:
        """It leaves nothing."""
        return None


STEPS: tuple[type, ...] = (BeginCopy, BeginVerify, BeginBurnIn)
