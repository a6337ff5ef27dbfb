"""What is on disk: definitions, which the worker writes, and what is known of runs and drills."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

from hostlerd.storage.model.backup import NAME, Definition, Outcome, Record
from hostlerd.storage.worker.refused import Refused


def definition(folder: Path, name: str) -> Definition:
    """The definition of a backup. Raises Refused, OSError."""
    if not NAME.fullmatch(name):
        raise Refused("BACKUP_NOT_FOUND", "no backup is called that")
    try:
        return Definition.read(json.loads((folder / f"{name}.json").read_bytes()))
    except FileNotFoundError:
        raise Refused("BACKUP_NOT_FOUND", f"no backup is called {name}", backup=name) from None
    except (KeyError, TypeError, ValueError):
        raise Refused("BACKUP_DAMAGED", f"what defines {name} cannot be read") from None


class Records:
    """What is known of each backup, in a folder. A record that cannot be read knows nothing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, name: str) -> Record:
        """What is known of a backup."""
        try:
            return Record.read(json.loads((self._folder / f"{name}.json").read_bytes()))
        except (OSError, KeyError, TypeError, ValueError):
            return Record()

    def all(self) -> dict[str, Record]:
        """What is known of all of them."""
        try:
            names = [one.stem for one in self._folder.glob("*.json")]
        except OSError:
            return {}
        return {name: self.get(name) for name in names if NAME.fullmatch(name)}

    def note(self, backup: Definition, outcome: Outcome, full: bool = False) -> None:
        """Note how a run or a drill ended. Raises OSError."""
        known = replace(self.get(backup.name).of(backup.repository), last=outcome)
        if not outcome.reason:
            known = replace(known, good=outcome, full=outcome if full else known.full)
        self._write(backup.name, known)

    def note_repository(self, backup: Definition, repository_id: str) -> None:
        """Note which repository it is, for as long as it is in the same place. Raises OSError."""
        known = self.get(backup.name).of(backup.repository)
        self._write(backup.name, replace(known, repository_id=repository_id))

    def _write(self, name: str, record: Record) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write(self._folder / f"{name}.json", json.dumps(asdict(record)).encode())


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, down to the disk. Raises OSError."""
    draft = path.with_name(f".{path.name}")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
