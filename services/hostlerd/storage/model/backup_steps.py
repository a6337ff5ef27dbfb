"""The steps of changes to backups.

Definitions are kept by the worker. What takes hours is begun by a step and goes on without the
domain's lock, in the programs that run restic.
"""

from __future__ import annotations

from dataclasses import dataclass

from hostlerd.runtime.steps import Step
from hostlerd.storage.model.backup import Definition

BACKUP, RESTORE = "backup", "restore"
_MOST_SHOWN = 8


@dataclass(frozen=True, slots=True)
class ApplyBackup:
    """Define a backup, or define it anew."""

    backup: Definition
    before: Definition | None
    survives_boot = True

    def describe(self) -> str:
        """Say what it does."""
        one = self.backup
        words = "define" if self.before is None else "redefine"
        runs = f"at {one.calendar} {one.zone}" if one.calendar else "when it is asked for"
        return f"{words} backup {one.name} of {', '.join(one.paths)} to {one.repository}, {runs}"

    def inverse(self) -> Step:
        """Define it as it was, or not at all."""
        if self.before is None:
            return DeleteBackup(self.backup)
        return ApplyBackup(self.before, self.backup)


@dataclass(frozen=True, slots=True)
class DeleteBackup:
    """Forget the definition of a backup. Its repository stays as it is."""

    before: Definition
    survives_boot = True

    def describe(self) -> str:
        """Say what it does."""
        return f"delete backup {self.before.name}; {self.before.repository} stays as it is"

    def inverse(self) -> Step:
        """Define it again."""
        return ApplyBackup(self.before, None)


@dataclass(frozen=True, slots=True)
class BeginBackup:
    """Begin a run of a backup."""

    name: str
    door = BACKUP
    repeatable = False
    timeout_s = 60.0

    def describe(self) -> str:
        """Say what it does."""
        return f"run backup {self.name}"

    def inverse(self) -> Step | None:
        """A snapshot more is no loss."""
        return None


@dataclass(frozen=True, slots=True)
class BeginForget:
    """Begin to forget snapshots, and to remove from the repository what only they had."""

    name: str
    snapshots: tuple[str, ...]
    door = BACKUP
    repeatable = False
    timeout_s = 60.0

    def describe(self) -> str:
        """Say what it does."""
        shown = ", ".join(one[:8] for one in self.snapshots[:_MOST_SHOWN])
        shown += ", …" if len(self.snapshots) > _MOST_SHOWN else ""
        return f"forget {len(self.snapshots)} snapshots of backup {self.name}: {shown}"

    def inverse(self) -> Step | None:
        """What is removed from a repository is gone."""
        return None


@dataclass(frozen=True, slots=True)
class BeginRestore:
    """Begin to restore a snapshot, or a part of it, to a place that is empty."""

    name: str
    snapshot: str
    target: str
    include: tuple[str, ...]
    door = RESTORE
    repeatable = False
    timeout_s = 60.0

    def describe(self) -> str:
        """Say what it does."""
        part = f" {', '.join(self.include)} of" if self.include else ""
        return f"restore{part} snapshot {self.snapshot[:8]} of backup {self.name} to {self.target}"

    def inverse(self) -> Step | None:
        """What is restored stays: it lies where nothing was."""
        return None


@dataclass(frozen=True, slots=True)
class BeginDrill:
    """Begin a drill: so many files, or all of the repository if it is none."""

    name: str
    files: int
    door = RESTORE
    repeatable = False
    timeout_s = 60.0

    def describe(self) -> str:
        """Say what it does."""
        what = f"{self.files} files" if self.files else "all"
        return f"drill backup {self.name}: restore {what} aside, compare, and remove it again"

    def inverse(self) -> Step | None:
        """It leaves nothing."""
        return None


STEPS: tuple[type, ...] = (
    ApplyBackup,
    DeleteBackup,
    BeginBackup,
    BeginForget,
    BeginRestore,
    BeginDrill,
)
