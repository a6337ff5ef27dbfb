"""Which columns a stream or a capture has. Pure.

Whoever writes says so at the start, so that a reader of another release can cope: a column that
it does not know is left out, one that is not there is zeros, and one that is wider or narrower
than it expects is converted if every value fits.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from hostler.core.trace.events import COLUMNS, FILE_COLUMNS, PROCESS_COLUMNS

MAX_SCHEMA_BYTES = 64 * 1024
_MAX_COLUMNS = 256
_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}", re.ASCII)
_TYPE = re.compile(r"<[ui][1248]|S(?:[1-9]|[1-5][0-9]|6[0-4])", re.ASCII)


class CaptureInvalid(Exception):
    """A block or a file is not what it should be. `place` says where, `what` says what."""

    def __init__(self, what: str, place: str) -> None:
        super().__init__(f"{place}: {what}")
        self.what = what
        self.place = place


@dataclass(frozen=True, slots=True)
class Schema:
    """Names and types of the columns of each table, in the order in which they are written.

    A type is `<u2`, `<i8` and so on, or `S16` for bytes.
    """

    events: Mapping[str, str]
    processes: Mapping[str, str]
    files: Mapping[str, str]

    def to_json(self) -> str:
        """The schema as text, for the start of a stream."""
        return json.dumps(self.to_object(), separators=(",", ":"))

    def to_object(self) -> dict[str, list[list[str]]]:
        """The schema as what JSON knows. Lists, because the order counts."""
        return {
            table: [list(column) for column in getattr(self, table).items()] for table in _TABLES
        }

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The schema of a stream. Raises CaptureInvalid."""
        if len(text) > MAX_SCHEMA_BYTES:
            raise CaptureInvalid(f"{len(text)} characters are too many", "schema")
        try:
            read = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise CaptureInvalid("not JSON", "schema") from error
        return cls.from_object(read)

    @classmethod
    def from_object(cls, read: object) -> Self:
        """The reverse of `to_object`. Raises CaptureInvalid."""
        if not isinstance(read, dict):
            raise CaptureInvalid("not an object", "schema")
        return cls(*(_columns(read.get(table), f"schema, {table}") for table in _TABLES))


_TABLES = ("events", "processes", "files")

SCHEMA = Schema(COLUMNS, PROCESS_COLUMNS, FILE_COLUMNS)
"""What this release writes."""


def _columns(read: Any, place: str) -> dict[str, str]:
    if not isinstance(read, list) or len(read) > _MAX_COLUMNS:
        raise CaptureInvalid(f"not a list of at most {_MAX_COLUMNS} columns", place)
    columns: dict[str, str] = {}
    for column in read:
        if not (isinstance(column, list) and len(column) == 2):
            raise CaptureInvalid("a column is a name and a type", place)
        name, kind = column
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name in columns:
            raise CaptureInvalid(f"{name!r:.40} cannot name a column here", place)
        if not isinstance(kind, str) or not _TYPE.fullmatch(kind):
            raise CaptureInvalid(f"column {name} has the unknown type {kind!r:.40}", place)
        columns[name] = kind
    return columns
