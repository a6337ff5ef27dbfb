"""Logs with a category, a level, a verbosity and fields; never payloads or secrets.

Records go to journald where systemd gave us a stream to it, else to standard error. In the journal
each has HOSTLER_CATEGORY, PRIORITY, its own fields as HOSTLER_<NAME>, those of the call that is
being handled, and for what operators wait for a MESSAGE_ID of `hostlerd.runtime.events`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

_PRIORITIES = {"error": 3, "warning": 4, "info": 6, "debug": 7}
_MOST_CHARACTERS = 1000
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
_KEYS = frozenset({"level", "verbosity"})

# What the call that is being handled adds to every record.
_BOUND: ContextVar[Mapping[str, object] | None] = ContextVar("log", default=None)


@dataclass(frozen=True, slots=True)
class Threshold:
    """What is let through: all up to `level`, and of debug records those up to `verbosity`."""

    level: str = "info"
    verbosity: int = 1

    def lets(self, level: str, verbosity: int) -> bool:
        """Tell whether it lets a record through."""
        if _PRIORITIES[level] > _PRIORITIES[self.level]:
            return False
        return level != "debug" or verbosity <= self.verbosity


@dataclass(frozen=True)
class Thresholds:
    """The threshold of all categories, and those of some: "netns" is that of "netns.kernel", too.

    The longest name that fits decides.
    """

    default: Threshold = Threshold()
    categories: Mapping[str, Threshold] = field(default_factory=dict)

    def of(self, category: str) -> Threshold:
        """Answer the threshold of a category."""
        while category:
            if category in self.categories:
                return self.categories[category]
            category = category.rpartition(".")[0]
        return self.default


_EVERYTHING = Thresholds(Threshold("debug", 9))
_in_force = Thresholds()


def parse(table: Mapping[str, Any]) -> Thresholds:
    """Read table [log] of hostler.toml. Raises ValueError, naming the key."""
    table = dict(table)
    categories = table.pop("categories", {})
    if not isinstance(categories, dict):
        raise ValueError("log.categories must be a table")
    default = _parse(table, "log", Threshold())
    return Thresholds(
        default,
        {
            name: _parse(own, f"log.categories.{name!r}", default)
            for name, own in categories.items()
        },
    )


def _parse(table: Any, where: str, default: Threshold) -> Threshold:
    if not isinstance(table, dict):
        raise ValueError(f"{where} must be a table")
    if odd := sorted(table.keys() - _KEYS):
        raise ValueError(f"{where}.{odd[0]} is not known")
    level = table.get("level", default.level)
    verbosity = table.get("verbosity", default.verbosity)
    if level not in _PRIORITIES:
        raise ValueError(f"{where}.level must be one of {', '.join(_PRIORITIES)}")
    if type(verbosity) is not int or not 0 <= verbosity <= 9:
        raise ValueError(f"{where}.verbosity must be a whole number from 0 to 9")
    return Threshold(level, verbosity)


def use(thresholds: Thresholds) -> None:
    """Let through what these say, unless everything is let through already."""
    global _in_force
    if _in_force is not _EVERYTHING:
        _in_force = thresholds
        _threshold.cache_clear()


def debug_all() -> None:
    """Let everything through: the one big switch."""
    use(_EVERYTHING)


@lru_cache(maxsize=256)
def _threshold(category: str) -> Threshold:
    return _in_force.of(category)


def bind(**fields: object) -> None:
    """Add these to every record of this context from now on, and of those made from it."""
    _BOUND.set({key: value for key, value in fields.items() if value})


@dataclass(frozen=True, slots=True)
class Log:
    """A logger of one category, such as "netns.kernel". `event` is an id of `events`."""

    category: str

    def debug(self, message: str, /, *, verbosity: int = 1, **fields: object) -> None:
        """Log for developers; from 1, a line per call, to 9, whatever there is."""
        self._write("debug", message, "", fields, verbosity)

    def info(self, message: str, /, *, event: str = "", **fields: object) -> None:
        """Log what an operator wants to see of a healthy daemon."""
        self._write("info", message, event, fields)

    def warning(self, message: str, /, *, event: str = "", **fields: object) -> None:
        """Log what an operator should look at some day."""
        self._write("warning", message, event, fields)

    def error(self, message: str, /, *, event: str = "", **fields: object) -> None:
        """Log what an operator should look at now."""
        self._write("error", message, event, fields)

    def _write(
        self,
        level: str,
        message: str,
        event: str,
        fields: Mapping[str, object],
        verbosity: int = 0,
    ) -> None:
        if not _threshold(self.category).lets(level, verbosity):
            return
        values = {key: str(value)[:_MOST_CHARACTERS] for key, value in fields.items()}
        # A line stays a line, whatever a caller has put into a name.
        shown = " ".join(f"{key}={value.translate(_CONTROLS)}" for key, value in values.items())
        text = f"{self.category}: {message}" + (f" [{shown}]" if shown else "")
        if "JOURNAL_STREAM" not in os.environ:
            sys.stderr.write(f"<{_PRIORITIES[level]}>{text}\n")
            return
        bound = {key: str(value)[:_MOST_CHARACTERS] for key, value in (_BOUND.get() or {}).items()}
        own = {f"HOSTLER_{key.upper()}": value for key, value in {**bound, **values}.items()}
        if event:
            own["MESSAGE_ID"] = event
        if level == "debug":
            own["HOSTLER_VERBOSITY"] = str(verbosity)
        _to_journal(text, level, {"HOSTLER_CATEGORY": self.category, **own})


def _to_journal(text: str, level: str, fields: Mapping[str, str]) -> None:
    from systemd import journal

    # The place in the code is that of whoever called debug(), info() and so on.
    caller = sys._getframe(3)
    journal.send(
        text,
        PRIORITY=_PRIORITIES[level],
        SYSLOG_IDENTIFIER="hostler",
        CODE_FILE=caller.f_code.co_filename,
        CODE_LINE=caller.f_lineno,
        CODE_FUNC=caller.f_code.co_name,
        **fields,
    )


def get_log(category: str) -> Log:
    """Answer the logger of a category."""
    return Log(category)
