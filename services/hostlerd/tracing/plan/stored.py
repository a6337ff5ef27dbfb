"""Which captures make room for others, and how one is removed. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from hostlerd.runtime.steps import Plan
from hostlerd.tracing.errors import CaptureInUse
from hostlerd.tracing.model.stored import Bounds, RemoveCapture, Stored


def remove(name: str, have: Sequence[Stored]) -> Plan:
    """Remove a capture. Raises CaptureInUse for one that is still written."""
    for stored in have:
        if stored.name == name:
            if stored.end is None:
                raise CaptureInUse("it is still written: stop its trace first", name=name)
            return Plan(steps=(RemoveCapture(name),))
    return Plan()


def making_room(
    have: Sequence[Stored], owner: str, bounds: Bounds, coming: int = 0
) -> tuple[tuple[str, ...], bool]:
    """Which captures go, so that an owner's next ones fit, and whether that is enough.

    `have` is oldest first. An owner who has more than half of the room loses the own ones; only
    then do the oldest of all go. What is still written stays.
    """
    kept, gone = list(have), list[str]()

    def over(mine: Sequence[Stored], share: int) -> bool:
        return (
            sum(s.size_bytes for s in mine) > bounds.bytes // share
            or len(mine) + coming > bounds.captures // share
        )

    for share, is_meant in ((2, lambda s: s.owner == owner), (1, lambda _: True)):
        while over([s for s in kept if is_meant(s)], share):
            oldest = next((s for s in kept if is_meant(s) and s.end is not None), None)
            if oldest is None:
                return tuple(gone), False
            kept.remove(oldest)
            gone.append(oldest.name)
    return tuple(gone), True
