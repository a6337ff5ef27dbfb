"""Backups: what one is defined by, and what is known of its runs and drills."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import PurePosixPath
from typing import Any

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
SNAPSHOT = re.compile(r"[0-9a-f]{64}")
HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,62}[A-Za-z0-9])?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# Source: restic(1), "Preparing a new repository", of restic 0.14. No user and password in a URL:
# they would show in its arguments.
_REMOTE = re.compile(
    r"rest:https?://[A-Za-z0-9.\[\]:-]+(/[A-Za-z0-9._/-]*)?"
    r"|s3:(https?://)?[A-Za-z0-9.\[\]:-]+(/[A-Za-z0-9._/-]+)+"
)
# systemd.time(7); what it means, systemd-analyze says on the host.
_CALENDAR = re.compile(r"[A-Za-z0-9*,.:/~ -]{1,128}")
ZONE = re.compile(r"UTC|[A-Z][A-Za-z0-9_+-]{1,31}(/[A-Za-z0-9_+-]{1,31}){0,2}")
MOST_PATHS = 64
MOST_EXCLUDES = 256
MOST_KEPT = 10_000
_PATH_BYTES_MOST = 4095
_DAY_S = 86_400
WARN_AFTER_S_MOST = 366 * _DAY_S


@dataclass(frozen=True, slots=True)
class Retention:
    """How many snapshots are kept: the last ones, and one each of the last days, weeks, months."""

    last: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing is ever forgotten."""
        return not (self.last or self.daily or self.weekly or self.monthly)


@dataclass(frozen=True, slots=True)
class Definition:
    """A backup. `calendar` and `zone` are empty if it runs only when somebody asks for it."""

    name: str
    paths: tuple[str, ...]
    repository: str
    password_file: str
    excludes: tuple[str, ...] = ()
    credentials_file: str = ""
    one_file_system: bool = False
    retention: Retention = Retention()
    calendar: str = ""
    zone: str = ""
    warn_after_s: int = 0
    host: str = ""

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Definition:
        """Read what JSON tells of one. Raises KeyError, TypeError, ValueError."""
        made = {**told, "retention": Retention(**told["retention"])}
        made |= {key: tuple(told[key]) for key in ("paths", "excludes")}
        return cls(**{one.name: made[one.name] for one in fields(cls)})

    @property
    def is_local(self) -> bool:
        """Whether the repository is a folder of this host."""
        return self.repository.startswith("/")


def faults(one: Definition) -> tuple[tuple[str, str], ...]:
    """All that is wrong with a definition, each with its field."""
    return tuple((field, why) for field, why in _faults(one) if why)


def _faults(one: Definition) -> Iterator[tuple[str, str]]:
    shape = "has 1 to 40 of a-z, 0-9 and -, and no - at its ends"
    yield "name", "" if NAME.fullmatch(one.name) else shape
    yield from _paths(one)
    for at, pattern in enumerate(one.excludes):
        yield f"excludes[{at}]", _pattern_fault(pattern)
    if len(one.excludes) > MOST_EXCLUDES:
        yield "excludes", f"has at most {MOST_EXCLUDES}"
    yield "repository", _repository_fault(one)
    yield "password_file", path_fault(one.password_file)
    if one.credentials_file:
        yield "credentials_file", path_fault(one.credentials_file)
    if one.host and not HOST.fullmatch(one.host):
        yield "host", "is no name of a host"
    for field in fields(Retention):
        if not 0 <= getattr(one.retention, field.name) <= MOST_KEPT:
            yield f"retention.keep_{field.name}", f"must be from 0 to {MOST_KEPT}"
    yield from _schedule(one)


def _paths(one: Definition) -> Iterator[tuple[str, str]]:
    if not 1 <= len(one.paths) <= MOST_PATHS:
        yield "paths", f"has 1 to {MOST_PATHS}"
    if len(set(one.paths)) < len(one.paths):
        yield "paths", "has one path twice"
    for at, path in enumerate(one.paths):
        yield f"paths[{at}]", path_fault(path)


def _schedule(one: Definition) -> Iterator[tuple[str, str]]:
    if one.calendar and not _CALENDAR.fullmatch(one.calendar):
        yield "schedule.calendar", "is no calendar expression, such as *-*-* 02:30:00"
    if one.calendar and not ZONE.fullmatch(one.zone):
        yield "schedule.time_zone", "names the zone of the calendar, such as UTC or Europe/Berlin"
    if one.zone and not one.calendar:
        yield "schedule.calendar", "is missing: a time zone alone schedules nothing"
    if not 0 <= one.warn_after_s <= WARN_AFTER_S_MOST:
        yield "warn_after", "must be from 0 s to 366 days"
    if one.calendar and not one.warn_after_s:
        yield "warn_after", "is missing: what runs by itself must be missed when it does not"


def calendar_argv(one: Definition) -> tuple[str, ...]:
    """How systemd is asked when a backup would run. systemd-analyze(1)."""
    when = f"{one.calendar} {one.zone}"
    return ("/usr/bin/systemd-analyze", "calendar", "--iterations=1", "--", when)


def _repository_fault(one: Definition) -> str:
    where = one.repository
    if not where.startswith("/"):
        if _REMOTE.fullmatch(where) and ".." not in where:
            return ""
        return "must be an absolute path or a URL such as rest:https://HOST/PATH, without a user"
    for path in one.paths:
        if is_within(where, path) or is_within(path, where):
            return f"must be apart from what is backed up, and {path} is not"
    return path_fault(where)


def path_fault(path: str) -> str:
    """Say why a path is none of those that are used here; empty if it is one."""
    if not path.startswith("/") or path.startswith("//"):
        return "must be an absolute path"
    if _CONTROL.search(path) or len(path.encode(errors="replace")) > _PATH_BYTES_MOST:
        return "has characters that it cannot have, or too many"
    if path != str(PurePosixPath(path)) or ".." in PurePosixPath(path).parts:
        return "must be written without ., .. and needless slashes"
    return ""


def is_within(path: str, folder: str) -> bool:
    """Whether a path is a folder or lies in it. Both are absolute."""
    return PurePosixPath(path).is_relative_to(folder)


def _pattern_fault(pattern: str) -> str:
    if not pattern or _CONTROL.search(pattern) or len(pattern) > _PATH_BYTES_MOST:
        return "is empty, too long or has control characters"
    # restic takes it for the opposite, or for a comment in some versions.
    return "must not begin with !" if pattern.startswith("!") else ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run or a drill ended. `reason` is empty if it went well."""

    unix_s: int = 0
    seconds: float = 0.0
    snapshot: str = ""
    files: int = 0
    bytes: int = 0
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a backup's runs, or of its drills: the last one, and the last good ones."""

    last: Outcome = Outcome()
    good: Outcome = Outcome()
    full: Outcome = Outcome()
    repository: str = ""
    repository_id: str = ""

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Record:
        """Read what JSON tells of one. Raises KeyError, TypeError, ValueError."""
        last, good, full = (Outcome(**told[key]) for key in ("last", "good", "full"))
        return cls(last, good, full, str(told["repository"]), str(told["repository_id"]))

    def of(self, repository: str) -> Record:
        """What of it is known of this repository: nothing, if it is of another one."""
        return self if self.repository == repository else Record(repository=repository)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot of a backup."""

    id: str
    unix_s: float
    host: str
    paths: tuple[str, ...]

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Snapshot:
        """Read what JSON tells of one. Raises KeyError, TypeError, ValueError."""
        return cls(
            str(told["id"]),
            float(told["unix_s"]),
            str(told["host"]),
            tuple(map(str, told["paths"])),
        )


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup as it is now. `since_unix_s` is when it was defined as it is."""

    definition: Definition
    since_unix_s: int
    runs: Record
    drills: Record
    is_busy: bool
