"""The fields of what is sent to the system log: syslog.*. Pure.

They are read from the data of writes to /dev/log, such as `<38>Nov 27 13:37:00 sshd[7]: …`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from hostler.core.trace import calls
from hostler.core.trace.events import Column, Events
from hostler.core.trace.field import Field, Kind, Need, single
from hostler.core.trace.values import Numbers, Words, by_file

_SOCKETS = (b"/dev/log", b"/run/systemd/journal/dev-log")
_MESSAGE = re.compile(rb"<(\d{1,3})>", re.ASCII)
_MOST_PRIORITY = 191
_FACILITIES = (
    *("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron"),
    *("authpriv", "ftp", "ntp", "audit", "alert", "clock", "local0", "local1", "local2"),
    *("local3", "local4", "local5", "local6", "local7"),
)
_SEVERITIES = ("emerg", "alert", "crit", "err", "warn", "notice", "info", "debug")


def is_syslog(events: Events) -> Column:
    """Which events write to the system log's socket: a mask."""
    to_log = by_file(events, lambda row: events.texts[events.files["name"][row]])
    named = to_log.where(lambda name: any(socket in name for socket in _SOCKETS))
    mask: Column = named & calls.among(events, calls.WRITES)
    return mask


def _words(events: Events, text: Callable[[bytes], bytes | None]) -> Words:
    codes = np.where(is_syslog(events), events["data"], 0)
    return Words(codes, len(events.texts), lambda row: text(events.texts[row]) if row else None)


def _priority(data: bytes) -> int | None:
    found = _MESSAGE.match(data)
    return int(found[1]) if found and int(found[1]) <= _MOST_PRIORITY else None


def _message(data: bytes) -> bytes | None:
    if _priority(data) is None:
        return None
    return data.partition(b">")[2].rstrip(b"\0\n")


def _numbers(events: Events, part: Callable[[int], int]) -> Numbers:
    codes = np.where(is_syslog(events), events["data"], 0)
    answers = np.full(len(events.texts), -1, np.int16)
    for row in np.unique(codes[codes > 0]).tolist():
        priority = _priority(events.texts[row])
        answers[row] = -1 if priority is None else part(priority)
    return Numbers(answers[codes], answers[codes] >= 0)


def _name(names: tuple[str, ...], part: Callable[[int], int]) -> Callable[[Events], Words]:
    def text(data: bytes) -> bytes | None:
        priority = _priority(data)
        return None if priority is None else names[part(priority)].encode()

    return lambda events: _words(events, text)


def _facility(priority: int) -> int:
    return priority >> 3


def _severity(priority: int) -> int:
    return priority & 7


FIELDS: tuple[Field, ...] = (
    single(
        "syslog.facility",
        Kind.INTEGER,
        "its facility's number, 0 to 23",
        lambda events: _numbers(events, _facility),
        needs=Need.DATA,
    ),
    single(
        "syslog.facility.str",
        Kind.TEXT,
        "its facility: kern, user, mail, daemon, auth …",
        _name(_FACILITIES, _facility),
        needs=Need.DATA,
    ),
    single(
        "syslog.severity",
        Kind.INTEGER,
        "its severity's number, 0 (emerg) to 7 (debug)",
        lambda events: _numbers(events, _severity),
        needs=Need.DATA,
    ),
    single(
        "syslog.severity.str",
        Kind.TEXT,
        "emerg, alert, crit, err, warn, notice, info or debug",
        _name(_SEVERITIES, _severity),
        needs=Need.DATA,
    ),
    single(
        "syslog.message",
        Kind.TEXT,
        "the message, without its priority",
        lambda events: _words(events, _message),
        needs=Need.DATA,
    ),
)
