"""The rulesets that are saved: for every boot in the state folder, else in the run folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from hostlerd.firewall.kernel.file import remove_durably, sweep, write_durably
from hostlerd.firewall.model.document import load
from hostlerd.firewall.model.ruleset import Ruleset
from hostlerd.firewall.model.state import Applied
from hostlerd.firewall.model.steps import Saved
from hostlerd.runtime.errors import InvalidRequest
from hostlerd.runtime.log import get_log

_FILE_MOST_BYTES = 16 << 20

log = get_log("firewall.kernel")


@dataclass(slots=True)
class Stored:
    """What was found: the rulesets, when each was changed, and what cannot be read, and why."""

    rulesets: dict[str, Ruleset] = field(default_factory=dict)
    update_times: dict[str, datetime] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)


class Store:
    """Files of rulesets, and of what was applied last."""

    def __init__(self, state_dir: Path, run_dir: Path) -> None:
        self._folders = {True: state_dir / "rulesets", False: run_dir / "rulesets"}
        self._applied = run_dir / "applied.json"
        self._text = run_dir / "applied.nft"
        self._listed = run_dir / "applied.list"
        self._read: dict[Path, tuple[tuple[int, ...], Ruleset]] = {}
        self._end: tuple[tuple[int, ...], int | None] | None = None

    def load(self) -> Stored:
        """Read all rulesets. One that cannot be read is told apart, never left out silently."""
        stored = Stored()
        for path in self._files():
            try:
                # A daemon cut off in the middle may have left two of a name: the later counts.
                changed = datetime.fromtimestamp(path.stat().st_mtime, UTC)
                if changed >= stored.update_times.get(path.stem, changed):
                    stored.rulesets[path.stem] = self._known(path)
                    stored.update_times[path.stem] = changed
            except (OSError, ValueError, InvalidRequest) as e:
                stored.unreadable[path.stem] = f"{path}: {e}"
        self._read = {p: kept for p, kept in self._read.items() if p.stem in stored.rulesets}
        for name in stored.unreadable:
            stored.rulesets.pop(name, None)
        return stored

    def _known(self, path: Path) -> Ruleset:
        """Answer what a file says, without reading it again if it is the very file read before."""
        was = path.stat()
        stamp = was.st_ino, was.st_mtime_ns, was.st_ctime_ns, was.st_size
        found = self._read.get(path)
        if found is None or found[0] != stamp:
            found = self._read[path] = stamp, _read(path)
        return found[1]

    def next_end(self) -> int | None:
        """Answer when the next rule ends, in seconds since 1970; reads only what has changed."""
        stamp = tuple(_stamp(folder) for folder in self._folders.values())
        if self._end is None or self._end[0] != stamp:
            ends = (r.next_end for r in self.load().rulesets.values())
            self._end = stamp, min((end for end in ends if end), default=None)
        return self._end[1]

    def save(self, name: str, saved: Saved) -> None:
        """Save a ruleset over the one of that name. Raises OSError."""
        write_durably(self._path(name, saved.persistent), saved.document)
        remove_durably(self._path(name, not saved.persistent))

    def forget(self, name: str) -> None:
        """Remove a ruleset if it is there. Raises OSError."""
        for persistent in self._folders:
            remove_durably(self._path(name, persistent))

    def sweep(self) -> None:
        """Remove what killed writers have left. Raises OSError."""
        for folder in (*self._folders.values(), self._applied.parent):
            sweep(folder)

    def applied(self) -> Applied | None:
        """Answer what was applied last; None if that is not known."""
        try:
            told = json.loads(self._applied.read_text())
            return Applied(told["fingerprint"], told["text_sha256"], told["generation"])
        except (OSError, ValueError, KeyError):
            return None

    def applied_text(self, applied: Applied) -> str | None:
        """Answer the text that was applied last; None if it is not there."""
        try:
            text = self._text.read_text()
        except OSError:
            return None
        return text if hashlib.sha256(text.encode()).hexdigest() == applied.text_sha256 else None

    def applied_listed(self) -> str:
        """Answer what nft listed after that; empty if it is not known."""
        try:
            return self._listed.read_text()
        except OSError:
            return ""

    def note_applied(self, applied: Applied | None, text: str = "", listed: str = "") -> None:
        """Note what was applied, and what nft lists of it.

        If it cannot be noted, the next change takes it for drift.
        """
        try:
            if applied is None:
                remove_durably(self._applied)
                remove_durably(self._text)
                remove_durably(self._listed)
            else:
                write_durably(self._text, text)
                write_durably(self._listed, listed)
                write_durably(self._applied, json.dumps(asdict(applied)))
        except OSError as e:
            log.warning("what was applied cannot be noted", error=e)

    def note_generation(self, applied: Applied, generation: int) -> None:
        """Note a later generation, in which the tables are as they were applied all the same."""
        try:
            write_durably(
                self._applied, json.dumps(asdict(replace(applied, generation=generation)))
            )
        except OSError as e:
            log.warning("what was applied cannot be noted", error=e)

    def _path(self, name: str, persistent: bool) -> Path:
        return self._folders[persistent] / f"{name}.json"

    def _files(self) -> Iterator[Path]:
        for folder in self._folders.values():
            if folder.is_dir():
                yield from sorted(p for p in folder.iterdir() if not p.name.startswith("."))


def _stamp(folder: Path) -> int:
    """Answer what changes whenever a file of the folder is put in place or removed."""
    try:
        return folder.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _read(path: Path) -> Ruleset:
    if path.stat().st_size > _FILE_MOST_BYTES:
        raise ValueError("is larger than any ruleset")
    ruleset = load(path.read_text())
    if path.name != f"{ruleset.name}.json":
        raise ValueError(f"holds ruleset {ruleset.name}")
    return ruleset
