"""The storage daemon, or the worker that it asks, is killed at every point of every change.

The daemon dies before and after each step and fsync; the worker before and after each request, each
fsync and tool, and while a tool runs; the daemon while the worker is at such a point, and goes on;
and the caller leaves there. The disks then have what was there before or what was asked for, or it
is on record that nobody knows, and what was overwritten can be put back. The same request id never
does anything twice. A few points of each change are tried, others of each; HOSTLER_SOAK=1 tries
all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
from journal_rows import Row
from journal_stage import chain_is_whole, eventually
from journal_trial import SOAK, chosen, kill_at, leave_at
from storage_changes import BY_ROLE, STORAGE_ROWS
from storage_rows_btrfs import unmount
from storage_rows_mount import cleared
from storage_stage import Storage, storage
from storage_trial import Counted, counted, kill_worker_at, orphan_at

pytestmark = [pytest.mark.kernel, pytest.mark.soak, pytest.mark.timeout(3600)]

SIZES_MIB = {"one": 32, "two": 32, "leg": 192, "mate": 192, "spare": 192}
ALL = pytest.mark.parametrize("row", STORAGE_ROWS, ids=[row.name for row in STORAGE_ROWS])
Count = Callable[[Row], Counted]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    with storage(tmp_path_factory.mktemp("stage"), SIZES_MIB) as made:
        yield made
        unmount(made)
        cleared(made)


@pytest.fixture(scope="module")
def count(place: Storage) -> Count:
    """What a change brings about, and where, found out once."""
    seats = {"worker": place.worker, **{role: place.sit(role) for role in ("backup", "restore")}}
    of = {row: seats[role] for role, rows in BY_ROLE.items() for row in rows}
    return cache(lambda row: counted(place, row, of[row]))


def some(points: list[str], row: Row, most: int = 1) -> list[int]:
    """All points, or so many of them, of each row others; restic takes its time."""
    first = 5 * STORAGE_ROWS.index(row) + 3
    return chosen(len(points), most if row in BY_ROLE["worker"] else 1, first)


@ALL
def test_with_the_daemon_killed_it_is_old_new_or_told(
    place: Storage, count: Count, row: Row
) -> None:
    seen = count(row)
    told = {
        kill_at(place, row, number, seen.new, seen.points[number - 1])
        for number in some(seen.points, row)
    }
    chain_is_whole(place)
    # Of all points some are before anything was begun, and some after all was done.
    assert len(told) > 1 or not SOAK, told


@ALL
def test_with_the_worker_killed_it_is_old_new_or_told(
    place: Storage, count: Count, row: Row
) -> None:
    seen = count(row)
    for number in some(seen.done_at, row, 2):
        kill_worker_at(place, row, number, seen)
    chain_is_whole(place)
    # Of what it was about to keep nothing is left half written.
    kept = place.stage.folder / "worker-state/saved"
    eventually(lambda: not list(kept.glob(".*")))


@ALL
def test_what_a_killed_daemon_had_asked_for_comes_before_the_next_one(
    place: Storage, count: Count, row: Row
) -> None:
    seen = count(row)
    for number in some(seen.done_at, row):
        orphan_at(place, row, number, seen)


@ALL
def test_with_the_caller_gone_it_is_done_as_a_whole(place: Storage, count: Count, row: Row) -> None:
    seen = count(row)
    both: Any = ((seen.points, place), (seen.done_at, seen.seat))
    for points, of in both if SOAK else (both[STORAGE_ROWS.index(row) % 2],):
        for number in some(points, row):
            leave_at(place, row, number, seen.new, points[number - 1], of)
