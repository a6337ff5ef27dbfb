"""What dynamic sets hold: in the kernel, and saved for when their table is made again."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterable
from pathlib import Path

from hostlerd.firewall.errors import NftRejected
from hostlerd.firewall.kernel import nft
from hostlerd.firewall.kernel.file import remove_durably, sweep, write_durably
from hostlerd.firewall.kernel.shadow import TABLE as SHADOW_TABLE
from hostlerd.firewall.model.address_set import ChangeElements, Element, dump, load
from hostlerd.firewall.model.elements import read_span
from hostlerd.runtime.log import get_log

_VERSIONS = (4, 6)
_FILE_MOST_BYTES = 128 << 20
_TRIES = 3
# nft(8) 1.0.6 looks through a whole interval set for each element that it deletes: a thousand of
# 10,000 take it most of a minute. To fill the set anew, in one transaction, takes a second.
_DELETED_MOST = 4
_EXPIRES = re.compile(r" expires (?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+)s)?(?:(\d+)ms)?")
_UNITS_MS = (86_400_000, 3_600_000, 60_000, 1_000, 1)

log = get_log("firewall.kernel")


def read(name: str) -> list[Element] | None:
    """Answer what the kernel has in a set, in order; None if it has none. Raises ToolFailed."""
    found: list[Element] = []
    there = False
    for version in _VERSIONS:
        text = nft.set_text(f"{name}_{version}")
        there = there or bool(text)
        found += parse(text, time.time())
    return sorted(found) if there else None


def parse(text: str, now_unix_s: float) -> list[Element]:
    """Read the elements of a set as nft lists it."""
    found = []
    for word in nft.elements_of(text).split(","):
        address, _, rest = word.strip().partition(" ")
        if not address:
            continue
        ends = _EXPIRES.search(f" {rest}")
        left_ms = (
            sum(int(n or 0) * u for n, u in zip(ends.groups(), _UNITS_MS, strict=True))
            if (ends)
            else 0
        )
        end = round(now_unix_s + left_ms / 1000) if ends else 0
        try:
            found.append(Element(read_span(address), end))
        except ValueError:
            log.warning("an element cannot be read", element=address[:100])
    return found


class Elements:
    """Changes what dynamic sets hold, and saves it: a boot loses what lies in the run folder."""

    def __init__(self, state_dir: Path, run_dir: Path) -> None:
        self._folders = {True: state_dir / "address_sets", False: run_dir / "address_sets"}

    def change(self, step: ChangeElements, copied: Collection[str] = ()) -> None:
        """Carry out a step, in one transaction. Raises NftRejected, ToolFailed, OSError.

        `copied` are the sets of the shadow, which come to hold the same.
        """
        self._load(step, copied)
        try:
            self._save(step)
        except OSError:
            self._load(step.inverse(), copied)
            raise

    def saved(self, sets: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
        """Answer what is saved of sets, given by family and name, in nft's words."""
        wanted: dict[str, list[tuple[str, str, int]]] = {}
        for family, full in sets:
            name, _, number = full.rpartition("_")
            wanted.setdefault(name, []).append((family, full, int(number)))
        found = {}
        for name, places in wanted.items():
            elements = self._read(name)
            for family, full, version in places:
                words = _words(e for e in elements if e.span.version == version)
                if words:
                    found[family, full] = words
        return found

    def keep(self, names: Iterable[str], *, persistent: bool) -> None:
        """Move what is saved of sets to where their ruleset is saved. Raises OSError."""
        for name in names:
            source = self._path(name, not persistent)
            if source.exists():
                write_durably(self._path(name, persistent), source.read_text())
                remove_durably(source)

    def sweep(self, declared: Collection[str]) -> None:
        """Remove what killed writers left, and what is saved of sets no ruleset declares."""
        for folder in self._folders.values():
            sweep(folder)
            for path in folder.glob("*.txt"):
                if path.stem not in declared:
                    remove_durably(path)

    def _load(self, step: ChangeElements, copied: Collection[str]) -> None:
        """Elements end by themselves: where one is gone meanwhile, look what is there."""
        added, removed = load(step.added), load(step.removed)
        copies = "".join(
            _refilled(v, step.name, added, removed, SHADOW_TABLE)
            for v in _VERSIONS
            if f"{step.name}_{v}" in copied
        )
        if len(removed) > _DELETED_MOST:
            text = "".join(_refilled(v, step.name, added, removed) for v in _VERSIONS)
            return nft.load(text + copies)
        there: dict[int, list[Element]] = {}
        for tries_left in reversed(range(_TRIES)):
            text = "".join(
                _commands(version, step.name, added, removed, there.get(version))
                for version in _VERSIONS
            )
            try:
                return nft.load(text + copies)
            except NftRejected:
                if not tries_left:
                    raise
                there = {v: parse(nft.set_text(f"{step.name}_{v}"), time.time()) for v in _VERSIONS}
        return None

    def _save(self, step: ChangeElements) -> None:
        now = time.time()
        kept = {e.span: e for e in self._read(step.name) if not 0 < e.expire_time <= now}
        for each in load(step.removed):
            kept.pop(each.span, None)
        kept |= {e.span: e for e in load(step.added)}
        text = dump(sorted(kept.values()))
        if text:
            write_durably(self._path(step.name, step.persistent), text)
        else:
            remove_durably(self._path(step.name, step.persistent))
        remove_durably(self._path(step.name, not step.persistent))

    def _read(self, name: str) -> list[Element]:
        """Answer what is saved. What cannot be read is told in the log, and is nothing."""
        for persistent in self._folders:
            path = self._path(name, persistent)
            try:
                if path.stat().st_size > _FILE_MOST_BYTES:
                    raise ValueError("is larger than any set")
                return load(path.read_text())
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as e:
                log.error("elements left out", path=str(path), problem=str(e))
        return []

    def _path(self, name: str, persistent: bool) -> Path:
        return self._folders[persistent] / f"{name}.txt"


def _commands(
    version: int,
    name: str,
    added: Iterable[Element],
    removed: Iterable[Element],
    listed: Collection[Element] | None,
) -> str:
    place = f"element inet hostler {name}_{version}"
    goes = {e.span for e in removed if e.span.version == version}
    comes = [e for e in added if e.span.version == version]
    if listed is not None:
        # One that is there already keeps its timeout unless it is deleted first.
        goes = {e.span for e in listed} & (goes | {e.span for e in comes})
    parts = []
    if goes:
        parts.append(f"delete {place} {{ {', '.join(s.nft for s in sorted(goes))} }}\n")
    if words := _words(comes):
        parts.append(f"add {place} {{ {words} }}\n")
    return "".join(parts)


def _refilled(
    version: int,
    name: str,
    added: Iterable[Element],
    removed: Iterable[Element],
    table: str = "hostler",
) -> str:
    """Answer commands that fill a set anew: with what it keeps, each to its end, and what comes."""
    full = f"{name}_{version}"
    kept = {e.span: e for e in parse(nft.set_text(full), time.time())}
    for each in removed:
        kept.pop(each.span, None)
    kept |= {e.span: e for e in added if e.span.version == version}
    words = _words(kept[span] for span in sorted(kept))
    filled = f"add element inet {table} {full} {{ {words} }}\n" if words else ""
    return f"flush set inet {table} {full}\n{filled}"


def _words(elements: Iterable[Element]) -> str:
    """Answer elements in nft's words, those that have ended left out."""
    now = time.time()
    return ", ".join(
        f"{e.span.nft} timeout {max(1, round(e.expire_time - now))}s"
        if e.expire_time
        else e.span.nft
        for e in elements
        if not 0 < e.expire_time <= now
    )
