"""The storage daemon and its worker are killed while they change what only guests have.

That is arrays of md, LVM, LUKS and exports. The same as in tests/kernel/test_journal_kills_storage,
on a host as the packages make it. A guest is slow: of some changes a point or two are tried, with
HOSTLER_SOAK=1 eight of each change that there is.
"""

from __future__ import annotations

from typing import Any

import pytest
from journal_trial import SOAK, kill_at
from storage_changes import GUEST_ROWS
from storage_guest import DISKS
from storage_trial import counted, kill_worker_at
from vm_kills import GuestPlace
from vm_suite import Suite

pytestmark = [pytest.mark.vm, pytest.mark.soak, pytest.mark.timeout(14400)]

DISK_BYTES = 64 << 20
POINTS = 4 if SOAK else 1
BOTH = ("daemon", "worker")
#: What is tried in each run, and who is killed.
SHORT = {
    **dict.fromkeys(("create", "replace"), BOTH),
    **{"grow-volume": BOTH[:1], "open-luks": BOTH[1:], "export-anew": BOTH[:1]},
}
#: Where more may happen before the daemon is there again than was asked for, and where what was
#: done may be done once more, or has to be taken back.
FIRST = {
    **{"replace": "after ReplaceMember", "stop": "after StopArray"},
    **{"grow-volume": "after GrowVolume", "merge-snapshot": "after MergeVolumeSnapshot"},
    **{"open-luks": "after OpenLuks", "attach": "after ApplyAttachment"},
    **{"export": "after ApplyExport", "export-anew": "after ApplyExport"},
}
#: In one guest all, or where there are many, in one for each noun.
NOUNS = [(noun,) for noun in GUEST_ROWS] if SOAK else [tuple(GUEST_ROWS)]


@pytest.mark.parametrize("nouns", NOUNS, ids="-".join)
def test_with_a_kill_it_is_old_new_or_told(guests: Suite, nouns: tuple[str, ...]) -> None:
    (guest,) = guests.take("vm1")
    for disk in DISKS:
        guest.add_disk(disk, DISK_BYTES)
    # What it has is what these need of a place.
    place: Any = GuestPlace(guests, guest)
    rows = [row for noun in nouns for row in GUEST_ROWS[noun]]
    for index, row in enumerate(rows):
        roles = BOTH if SOAK else SHORT.get(row.name, ())
        if not roles:
            continue
        seen = counted(place, row, place.worker)
        for turn in range(POINTS):
            if "daemon" in roles:
                number = 1 + (7 * index + 5 * turn + 8) % len(seen.points)
                if not turn and row.name in FIRST:
                    number = 1 + seen.points.index(FIRST[row.name])
                said = kill_at(place, row, number, seen.new, seen.points[number - 1])
                print(f"{row.name}: daemon, {seen.points[number - 1]}: {said}")
            if "worker" in roles:
                number = 1 + (3 * index + 3 * turn + 2) % len(seen.done_at)
                said = kill_worker_at(place, row, number, seen)
                print(f"{row.name}: worker, {seen.done_at[number - 1]}: {said}")
