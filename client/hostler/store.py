"""A database of ours that is open: its transactions, and its end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Self

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from hostler.config import HostlerError


class Store:
    """A database of ours. Blocking; safe to use from several threads and processes.

    `words` say what it holds, `error` is raised in place of the database's errors.
    """

    words: ClassVar[str]
    error: ClassVar[type[HostlerError]]

    def __init__(self, engine: Engine, place: str) -> None:
        self.engine = engine
        self.place = place

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    @contextmanager
    def begin(self, *, reading: bool = False) -> Iterator[Connection]:
        """A transaction. Raises `error` instead of the database's errors."""
        from hostler.store_engine import transaction

        place = f"{self.words} at {self.place}"
        with transaction(self.engine, place, self.error, reading=reading) as connection:
            yield connection
