"""What a field answers for a batch of events: numbers, or texts that many events share. Pure.

A value may be absent: a call without an fd has no fd.name. What is absent equals nothing, differs
from nothing and is less than nothing, as in sysdig: every test of it fails, `!=` too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hostler.core.trace.events import Column, Events

Compare = Callable[[Any, Any], Any]


@dataclass(frozen=True, slots=True)
class Numbers:
    """A number for each event; those that `known`, a mask, does not have are absent.

    `known` is None where all are there.
    """

    column: Column
    known: Column | None = None

    def __len__(self) -> int:
        return len(self.column)

    def present(self) -> Column:
        """Which events have a value: a mask."""
        return np.ones(len(self.column), bool) if self.known is None else self.known

    def where(self, holds: Compare, operand: int) -> Column:
        """Which events have a value that, compared with `operand`, holds: a mask."""
        mask: Column = holds(self.column, operand)
        return mask if self.known is None else mask & self.known

    def at(self, event: int) -> int | None:
        """The value of one event, None if it is absent."""
        if self.known is not None and not self.known[event]:
            return None
        return int(self.column[event])


@dataclass(frozen=True, slots=True)
class Words:
    """A text for each event: `codes` says which one, and `text` answers it, None if it is absent.

    Codes are less than `size`. A text is asked for once and not for each event that has it; two
    codes may stand for the same text. Of addresses the text is the packed address.
    """

    codes: Column
    size: int
    text: Callable[[int], bytes | None] = field(repr=False)

    def __len__(self) -> int:
        return len(self.codes)

    def used(self) -> Column:
        """The codes that any event has."""
        is_used = np.zeros(self.size, bool)
        is_used[self.codes] = True
        return np.flatnonzero(is_used)

    def present(self) -> Column:
        """Which events have a text: a mask."""
        return self.where(lambda text: True)

    def where(self, holds: Callable[[bytes], bool]) -> Column:
        """Which events have a text of which `holds` says so: a mask."""
        answers = np.zeros(self.size, bool)
        for code in self.used().tolist():
            text = self.text(code)
            answers[code] = text is not None and holds(text)
        mask: Column = answers[self.codes]
        return mask

    def at(self, event: int) -> bytes | None:
        """The text of one event, None if it is absent."""
        return self.text(int(self.codes[event]))

    def distinct(self) -> tuple[Column, list[bytes | None]]:
        """Answer the texts without repetition, and for each event which one it has."""
        rows: dict[bytes | None, int] = {}
        renumbered = np.zeros(self.size, np.int64)
        for code in self.used().tolist():
            renumbered[code] = rows.setdefault(self.text(code), len(rows))
        return renumbered[self.codes], list(rows)


Values = Numbers | Words


def flags(mask: Column) -> Numbers:
    """True and false as 1 and 0, never absent."""
    return Numbers(mask.astype(np.uint8))


def texts(events: Events, codes: Column) -> Words:
    """Texts by their rows in the batch's table; row 0 is absent."""
    return Words(codes, len(events.texts), lambda row: events.texts[row] if row else None)


def process_texts(events: Events, column: str) -> Words:
    """A column of texts of the events' processes."""
    return texts(events, events.of_process(column))


def by_process(events: Events, text: Callable[[int], bytes | None]) -> Words:
    """What `text` makes of a row of processes; row 0, the process that is not known, is absent."""
    return Words(events["process"], len(events.processes), lambda row: text(row) if row else None)


def by_file(events: Events, text: Callable[[int], bytes | None]) -> Words:
    """What `text` makes of a row of files; row 0, the file that is not known, is absent."""
    return Words(events["file"], len(events.files), lambda row: text(row) if row else None)


def by_event(events: Events, text: Callable[[int], bytes | None]) -> Words:
    """What `text` makes of each event, by its row in the batch."""
    return Words(np.arange(len(events)), len(events), text)


def of_known_process(events: Events, column: str) -> Numbers:
    """A column of numbers of the events' processes, absent where the process is not known."""
    return Numbers(events.of_process(column), events["process"] > 0)
