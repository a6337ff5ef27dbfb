"""One change of storage, disturbed at one place: the daemon, its worker or the caller goes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from journal_rows import Row, begin
from journal_stage import eventually
from journal_trial import LOST, Trial, disturbed, judge
from storage_stage import Seat, Storage

# Long enough for a daemon that does not wait to have done it.
_PATIENCE_S = 1.2


@dataclass(frozen=True)
class Counted:
    """What a change brings about, and where: the daemon's points, and those of who does it."""

    new: Any
    points: list[str]
    seat: Seat
    done_at: list[str]


def counted(place: Storage, row: Row, seat: Seat) -> Counted:
    """Have a change done undisturbed."""
    new, points = disturbed(place, row, seat)
    done_at = seat.seen()
    seat.arm("")
    assert done_at, "nobody was asked to do anything"
    return Counted(new, points, seat, done_at)


def kill_worker_at(place: Storage, row: Row, number: int, seen: Counted) -> str:
    """Kill who carries it out at a point of his; answers what a retry is told."""
    seat, where = seen.seat, f"{row.name}, {seen.seat.role}: {seen.done_at[number - 1]}"
    trial = Trial(place, row)
    deaths = seat.deaths
    seat.arm(f"kill {number}")
    first = trial.ask()
    seat.arm("")
    if first is None:
        assert trial.reason == LOST, (where, trial.reason)
        assert trial.has_outcome(), where
        eventually(lambda: seat.deaths > deaths)
    return judge(trial, seen.new, first, where)


def orphan_at(place: Storage, row: Row, number: int, seen: Counted) -> str:
    """Kill the daemon while who carries it out is at a point, and goes on when the next looks."""
    seat, where = seen.seat, f"{row.name}, {seen.seat.role}: {seen.done_at[number - 1]}"
    trial = Trial(place, row)
    seat.arm(f"pause {number}")
    with place.channel() as channel:
        call = begin(place, channel, row.method, trial.request)
        eventually(lambda: seat.is_reached() or trial.is_over())
        came = seat.is_reached()
        place.kill()
        call.cancel()
    goes_on = came and bool(place.journals())
    place.start()
    end = time.monotonic() + _PATIENCE_S
    while goes_on and place.journals() and time.monotonic() < end:
        time.sleep(0.02)
    if goes_on and _is_within(seen.done_at[number - 1]):
        assert place.journals(), f"{where}: what became of it was told before it was over"
    seat.go()
    told = judge(trial, seen.new, None, where, is_whole=True)
    seat.arm("")
    return told


def _is_within(point: str) -> bool:
    """Whether a request is being carried out at a point: what an ioctl begins outlives it."""
    _, what = point.split(" ", 1)
    return what[0].islower() and not what.startswith("ioctl")
