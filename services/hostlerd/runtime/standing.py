"""What is pending on this host, as the files of all domains and of the watcher tell it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from hostlerd.pending import place as files
from hostlerd.pending.documents import (
    DOMAINS,
    KEPT,
    Armed,
    Ended,
    Group,
    History,
    Malformed,
    Marks,
    Part,
)
from hostlerd.pending.place import Place


class Stage(Enum):
    """How far the group is; OPENING means that the watcher has not answered yet."""

    NONE = 0
    OPENING = 1
    WAITING = 2
    REVERTING = 3


@dataclass(frozen=True, slots=True)
class Standing:
    """The group of this host and its parts. `kept` names one that stays and is being tidied up."""

    stage: Stage = Stage.NONE
    group: Group | None = None
    kept: str = ""
    parts: Mapping[str, Part] = field(default_factory=dict)
    armed: Armed | None = None

    @property
    def name(self) -> str:
        """The name of the group; empty if nothing is pending."""
        return self.group.group if self.group else ""

    @property
    def doors(self) -> tuple[str, ...]:
        """The domains at whose doors the group is to be confirmed."""
        needed = {*(self.group.doors if self.group else ()), *self.parts}
        return tuple(domain for domain in DOMAINS if domain in needed)

    @property
    def confirmed(self) -> tuple[str, ...]:
        """The domains at whose doors it has been confirmed."""
        if self.armed is None or self.armed.group != self.name:
            return ()
        return self.armed.confirmed

    @property
    def remaining_ns(self) -> int:
        """How long the group has still to wait."""
        if self.group is None or self.stage is Stage.REVERTING:
            return 0
        return max(0, self.group.deadline_ns - files.boottime_ns())


def look(place: Place) -> Standing:
    """Answer what is pending. Raises Malformed if a file of the watcher cannot be read."""
    standing = _look(place)
    while standing.stage is Stage.WAITING and not place.group.exists():
        # It was decided in the midst of reading: half of this was so before, half after.
        standing = _look(place)
    return standing


def _look(place: Place) -> Standing:
    # In this order: a decision renames the first file to one of the other two.
    group = files.read(Group, place.group)
    stage = Stage.WAITING
    kept = files.read(Group, place.kept)
    if group is None:
        group, stage = files.read(Group, place.reverting), Stage.REVERTING
    parts = _parts(place)
    if group is None:
        kept_name = kept.group if kept else ""
        opened = _opening({d: p for d, p in parts.items() if p.group != kept_name})
        if opened is None:
            return Standing(kept=kept_name)
        group, stage = opened, Stage.OPENING
    return Standing(
        stage,
        group,
        kept.group if kept else "",
        {d: p for d, p in parts.items() if p.group == group.group},
        files.read_or_none(Armed, place.armed),
    )


def own_part(place: Place, domain: str) -> Part | None:
    """Answer a domain's part without what was taken back. Raises Malformed."""
    part = files.read(Part, place.part(domain))
    if part is None:
        return None
    return files.without(part, files.read_or_none(Marks, place.undone(domain)))


def history(place: Place) -> tuple[Ended, ...]:
    """Answer how the last groups ended, newest first."""
    kept = _kept(place)
    found: dict[tuple[str, int], Ended] = {}
    for path in reversed(place.ended):
        for ended in (files.read_or_none(History, path) or History()).groups:
            found.setdefault((ended.group, ended.end_s), ended)
    if kept is None or any(e.group == kept.group for e in found.values()):
        return tuple(found.values())
    return (kept, *found.values())


def _kept(place: Place) -> Ended | None:
    """A group that was decided to stay a moment ago, and is not in the history yet."""
    group = files.read_or_none(Group, place.kept)
    if group is None:
        return None
    try:
        decided_s = int(place.kept.stat().st_ctime)
    except FileNotFoundError:
        # By now it is.
        return None
    return Ended(group.group, group.identity, decided_s, KEPT, "confirmed")


def ended(place: Place, group: str) -> Ended | None:
    """Answer how a group ended; None if it has not, or nobody remembers it."""
    return next((e for e in history(place) if e.group == group), None)


def last_change_ns(place: Place, standing: Standing) -> int | None:
    """Answer when the last change was complete, in CLOCK_MONOTONIC; None if one still goes on."""
    latest = 0
    for domain, part in standing.parts.items():
        marks = files.read_or_none(Marks, place.applied(domain))
        for entry in part.entries:
            when = marks.changes.get(entry.change) if marks and marks.group == part.group else None
            if when is None:
                return None
            latest = max(latest, when)
    return latest


def _parts(place: Place) -> dict[str, Part]:
    found = {}
    for domain in DOMAINS:
        try:
            part = own_part(place, domain)
        except Malformed:
            # The watcher has it taken back; it says nothing to anybody else.
            continue
        if part is not None and part.entries:
            found[domain] = part
    return found


def _opening(parts: Mapping[str, Part]) -> Group | None:
    """The group that the oldest part asks for. One that is over is the watcher's to tidy up."""
    boot, now = files.boot_id(), files.boottime_ns()
    live = [p for p in parts.values() if p.boot_id == boot and p.deadline_ns > now]
    if not live:
        return None
    part = min(live, key=lambda p: p.entries[0].order_ns)
    return Group(
        part.group,
        part.identity,
        part.boot_id,
        part.opened_s,
        part.deadline_ns,
        part.deadline_s,
    )
