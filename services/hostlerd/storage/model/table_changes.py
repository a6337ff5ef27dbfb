"""What becomes of each partition when one table takes the place of another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from hostlerd.storage.model.table import FIRST_LOGICAL, Entry


@dataclass(frozen=True, slots=True)
class Moved:
    """A partition before and after: the same one, for it begins where it did."""

    before: Entry
    after: Entry

    @property
    def is_released(self) -> bool:
        """Whether nobody may use it meanwhile: it shrinks, or has another number."""
        shrinks = self.after.size_sectors < self.before.size_sectors
        return not self.before.is_extended and (shrinks or self._is_renumbered)

    @property
    def _is_renumbered(self) -> bool:
        return self.after.number != self.before.number

    def words(self, sector_bytes: int) -> str:
        """Say what changes; nothing if nothing does."""
        before, after = self.before, self.after
        told = []
        if self._is_renumbered:
            told.append(f"becomes number {after.number}")
        if after.size_sectors != before.size_sectors:
            verb = "shrinks" if after.size_sectors < before.size_sectors else "grows"
            was, will = (one.size_sectors * sector_bytes for one in (before, after))
            told.append(f"{verb} from {was} to {will} bytes")
        for word in ("type", "name", "uuid", "bootable", "attributes"):
            old, new = getattr(before, word), getattr(after, word)
            if old != new:
                told.append(f"{word} {_said(old)} becomes {_said(new)}")
        return ", ".join(told)


def _said(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) or "(none)"


@dataclass(frozen=True, slots=True)
class Changes:
    """Partitions that go, that come, and that stay."""

    deleted: tuple[Entry, ...]
    added: tuple[Entry, ...]
    stay: tuple[Moved, ...]

    @property
    def released(self) -> tuple[Entry, ...]:
        """Those that nobody may use: what is in them is lost, or they are called otherwise."""
        shrunk = (one.before for one in self.stay if one.is_released)
        return (*(one for one in self.deleted if not one.is_extended), *shrunk)

    def words(self, sector_bytes: int) -> Iterator[str]:
        """Say what becomes of each partition."""
        for one in self.deleted:
            yield f"delete {_named(one, sector_bytes)}"
        for each in self.stay:
            if told := each.words(sector_bytes):
                yield f"partition {each.before.number} stays where it begins: {told}"
        for one in self.added:
            yield f"add {_named(one, sector_bytes)}"
        kept = [str(each.before.number) for each in self.stay if not each.words(sector_bytes)]
        if kept:
            yield f"keep as they are: {', '.join(kept)}"


def _named(one: Entry, sector_bytes: int) -> str:
    name = f", named {one.name}" if one.name else ""
    boot = ", bootable" if one.bootable else ""
    place = f"sectors {one.start_sector} to {one.end_sector}"
    size = one.size_sectors * sector_bytes
    return f"partition {one.number} ({place}, {size} bytes, type {one.type}{name}{boot})"


def is_same(before: Entry, after: Entry) -> bool:
    """Whether one partition has become the other: it begins where that did, by the same number.

    A logical partition may move up by one when another has gone.
    """
    both_logical = min(before.number, after.number) >= FIRST_LOGICAL and not before.uuid
    return (
        before.start_sector == after.start_sector
        and before.is_extended == after.is_extended
        and (before.number == after.number or both_logical)
    )


def compare(have: Iterable[Entry], want: Iterable[Entry]) -> Changes:
    """Tell partitions that stay from those that go and come."""
    before = {one.start_sector: one for one in have}
    after = {one.start_sector: one for one in want}
    stay = tuple(
        Moved(one, after[start])
        for start, one in before.items()
        if start in after and is_same(one, after[start])
    )
    kept = {each.before.start_sector for each in stay}
    return Changes(
        deleted=tuple(one for start, one in before.items() if start not in kept),
        added=tuple(one for start, one in after.items() if start not in kept),
        stay=stay,
    )
