"""The times of the day in which a server may reload."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo


def opens(window: Mapping[str, Any] | None, now: datetime) -> datetime | None:
    """Answer when a window opens next; None if it is open, or there is none.

    By the clock on the wall of its time zone: a window of a day that loses an hour is shorter, one
    that would begin within that hour begins when it is over.
    """
    if window is None:
        return None
    zone = ZoneInfo(window["time_zone"])
    hour, _, minute = window["start"].partition(":")
    today = now.astimezone(zone).date()
    for day in (-1, 0, 1):
        date = today + timedelta(days=day)
        wall = datetime(date.year, date.month, date.day, int(hour), int(minute), tzinfo=zone)
        start = wall.astimezone(UTC)
        if now < start:
            return start
        if now < start + timedelta(seconds=window["duration_s"]):
            return None
    # Today's is over, and tomorrow's has been looked at: there is none left to look at.
    raise AssertionError("a window opens every day")
