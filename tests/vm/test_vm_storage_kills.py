"""The storage daemon and its worker are killed while they change arrays of md, which guests have.

The same as in tests/kernel/test_journal_kills_storage.py, on a host as the packages make it. A
guest is slow: of two changes two points each are tried, with HOSTLER_SOAK=1 eight of all six.
"""

from __future__ import annotations

from typing import Any

import pytest
from journal_trial import SOAK, kill_at
from storage_rows_array import ARRAY_ROWS, DISKS
from storage_trial import counted, kill_worker_at
from vm_kills import GuestPlace
from vm_suite import Suite

pytestmark = [pytest.mark.vm, pytest.mark.soak, pytest.mark.timeout(7200)]

DISK_BYTES = 64 << 20
POINTS = 4 if SOAK else 1
SHORT = ("create", "replace")
#: Where more may happen before the daemon is there again than was asked for.
FIRST = {"replace": "after ReplaceMember", "stop": "after StopArray"}


def test_with_a_kill_arrays_are_old_new_or_told(guests: Suite) -> None:
    (guest,) = guests.take("vm1")
    for disk in DISKS:
        guest.add_disk(disk, DISK_BYTES)
    # What it has is what these need of a place.
    place: Any = GuestPlace(guests, guest)
    for index, row in enumerate(ARRAY_ROWS):
        if not (SOAK or row.name in SHORT):
            continue
        seen = counted(place, row, place.worker)
        for turn in range(POINTS):
            number = 1 + (7 * index + 5 * turn + 8) % len(seen.points)
            if not turn and row.name in FIRST:
                number = 1 + seen.points.index(FIRST[row.name])
            said = kill_at(place, row, number, seen.new, seen.points[number - 1])
            print(f"{row.name}: daemon, {seen.points[number - 1]}: {said}")
            number = 1 + (3 * index + 3 * turn + 2) % len(seen.done_at)
            said = kill_worker_at(place, row, number, seen)
            print(f"{row.name}: worker, {seen.done_at[number - 1]}: {said}")
