"""The steps of changes to partition tables; the worker carries each of them out as a whole."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from hostlerd.runtime.steps import Step
from hostlerd.storage.model.table import Digest, Entry, Piece
from hostlerd.storage.model.table_changes import compare
from hostlerd.storage.model.target import Target

_KINDS = {"gpt": "a GPT", "dos": "an MBR"}


@dataclass(frozen=True, slots=True)
class ChangeTable:
    """Write a table by sfdisk(8). An empty id, or uuid of a partition, is drawn then.

    `released` are partitions that nobody may use, `standing` is what the table was made of when it
    was planned, `erase` are sectors of the old table that must not be taken for one afterwards.
    """

    disk: Target
    released: tuple[Target, ...]
    standing: tuple[Digest, ...]
    erase: tuple[int, ...]
    kind: str
    id: str
    sector_bytes: int
    first_sector: int
    slots: int
    have: tuple[Entry, ...]
    entries: tuple[Entry, ...]
    survives_boot = True
    repeatable = False

    def describe(self) -> str:
        """Say what is removed, added, changed and kept."""
        told = "; ".join(compare(self.have, self.entries).words(self.sector_bytes))
        name = self.id or "with a new id"
        return f"write {_KINDS[self.kind]}, {name}, on {self.disk.describe()}: {told or 'empty'}"

    def inverse(self) -> Step | None:
        """None: RestoreSaved puts back what was saved, as a change of its own."""
        return None


@dataclass(frozen=True, slots=True)
class PutTable:
    """Write a table byte for byte, as it was backed up."""

    disk: Target
    released: tuple[Target, ...]
    standing: tuple[Digest, ...]
    erase: tuple[int, ...]
    pieces: tuple[Piece, ...]
    sector_bytes: int
    have: tuple[Entry, ...]
    entries: tuple[Entry, ...]
    survives_boot = True
    repeatable = False

    def describe(self) -> str:
        """Say what is removed, added, changed and kept."""
        told = "; ".join(compare(self.have, self.entries).words(self.sector_bytes))
        size = sum(len(one.data) for one in self.pieces)
        content = hashlib.sha256(b"".join(one.data for one in self.pieces)).hexdigest()
        kept = f"{size} bytes of a backup (SHA-256 {content[:16]}…)"
        return f"write {kept} on {self.disk.describe()}: {told or 'no partitions'}"

    def inverse(self) -> Step | None:
        """None: RestoreSaved puts back what was saved, as a change of its own."""
        return None


STEPS: tuple[type, ...] = (ChangeTable, PutTable)
