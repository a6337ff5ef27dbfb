"""Rows for ids that only grow, of which old ones are let go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt


class Rows:
    """An array with a row for each id; row 0 is none, and stands for ids that were let go too."""

    def __init__(self, kind: np.dtype[np.void] | str) -> None:
        self._rows = np.zeros(1024, kind)
        self._first = 1
        self._used = 1

    def __getitem__(self, number: int) -> Any:
        """The row of an id, to be read and, if it has fields, to be filled."""
        row = self._row(number)
        return self._rows[row]

    def __setitem__(self, number: int, value: Any) -> None:
        row = self._row(number)
        self._rows[row] = value

    def put(self, values: Mapping[int, Any]) -> None:
        """Set the rows of many ids at once."""
        kept = {number: value for number, value in values.items() if number >= self._first}
        if kept:
            self._row(max(kept))
            numbers = np.fromiter(kept, "<i8", len(kept))
            self._rows[numbers - (self._first - 1)] = list(kept.values())

    def rows(self, ids: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
        """The rows of ids; those that are not there have row 0."""
        if not ids.any():
            return ids
        rows = np.where(ids >= self._first, ids - np.uint32(self._first - 1), np.uint32(0))
        return np.where(rows < self._used, rows, np.uint32(0)).astype("<u4")

    def table(self) -> npt.NDArray[np.void]:
        """All rows."""
        return self._rows[: self._used]

    def forget(self, below: int) -> None:
        """Let go of the rows of lower ids."""
        gone = max(0, min(below - self._first, self._used - 1))
        self._rows = np.concatenate([self._rows[:1], self._rows[1 + gone :]])
        self._first = max(self._first, below)
        self._used -= gone

    def _row(self, number: int) -> int:
        if number < self._first:
            return 0
        row = number - self._first + 1
        while row >= len(self._rows):
            self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])
        self._used = max(self._used, row + 1)
        return row
