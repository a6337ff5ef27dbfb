"""When events were, and times and durations as text. Pure; all times are UTC."""

from __future__ import annotations

from datetime import UTC, datetime

from hostler.core.trace.events import Column, Events

SECOND_NS = 1_000_000_000
_UNITS_NS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": SECOND_NS}


def finished(events: Events) -> Column:
    """When each call returned, in ns since 1970; of those that did not, when they were made."""
    column: Column = events["time_ns"] + events["latency_ns"]
    return column


def clock(time_ns: int, digits: int = 9) -> str:
    """A time of day, as 13:37:00.123456789, with so many digits of its fraction."""
    seconds, rest = divmod(time_ns, SECOND_NS)
    of_day = seconds % 86_400
    text = f"{of_day // 3600:02}:{of_day // 60 % 60:02}:{of_day % 60:02}"
    return f"{text}.{rest:09}"[: len(text) + 1 + digits] if digits else text


def date(time_ns: int) -> str:
    """A day, as 2026-11-27; times that no calendar has are told in seconds."""
    seconds = time_ns // SECOND_NS
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
    except (OverflowError, ValueError, OSError):
        return f"{seconds}s"


def duration(length_ns: int) -> str:
    """A duration for people, in sysdig's form: 10.3ms, 999ns, 2.00s."""
    for unit in ("s", "ms", "us"):
        if length_ns >= _UNITS_NS[unit]:
            return f"{length_ns / _UNITS_NS[unit]:.2f}".rstrip("0").rstrip(".") + unit
    return f"{length_ns}ns"
