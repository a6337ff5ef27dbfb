"""Logs with a category, a level, a verbosity and fields; never payloads or secrets.

Records go to journald where systemd gave us a stream to it, else to standard error.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3}


@dataclass(slots=True)
class Threshold:
    """What is let through: all up to `level`, and debug records up to `verbosity`."""

    level: str = "info"
    verbosity: int = 0


THRESHOLD = Threshold()


def debug_all() -> None:
    """Let everything through: the one big switch."""
    THRESHOLD.level, THRESHOLD.verbosity = "debug", 9


@dataclass(frozen=True, slots=True)
class Log:
    """A logger of one category, such as "netns.kernel"."""

    category: str

    def debug(self, message: str, /, *, verbosity: int = 1, **fields: object) -> None:
        """Log for developers; shown if `verbosity` is within the threshold's."""
        if verbosity <= THRESHOLD.verbosity:
            self._write("debug", message, fields)

    def info(self, message: str, /, **fields: object) -> None:
        """Log what an operator wants to see of a healthy daemon."""
        self._write("info", message, fields)

    def warning(self, message: str, /, **fields: object) -> None:
        """Log what an operator should look at some day."""
        self._write("warning", message, fields)

    def error(self, message: str, /, **fields: object) -> None:
        """Log what an operator should look at now."""
        self._write("error", message, fields)

    def _write(self, level: str, message: str, fields: dict[str, object]) -> None:
        if _PRIORITIES[level] > _PRIORITIES[THRESHOLD.level]:
            return
        shown = " ".join(f"{key}={value}" for key, value in fields.items())
        text = f"{self.category}: {message}" + (f" [{shown}]" if shown else "")
        if "JOURNAL_STREAM" in os.environ:
            _to_journal(text, level, self.category, fields)
        else:
            sys.stderr.write(f"<{_PRIORITIES[level]}>{text}\n")


def _to_journal(text: str, level: str, category: str, fields: dict[str, object]) -> None:
    from systemd import journal

    extra = {f"HOSTLER_{key.upper()}": str(value) for key, value in fields.items()}
    journal.send(
        text,
        PRIORITY=_PRIORITIES[level],
        SYSLOG_IDENTIFIER="hostler",
        HOSTLER_CATEGORY=category,
        **extra,
    )


def get_log(category: str) -> Log:
    """Answer the logger of a category."""
    return Log(category)
