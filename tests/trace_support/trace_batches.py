"""Batches of events for tests: generated ones with everything in them, and how they compare."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from hostler.core.trace import syscalls
from hostler.core.trace.events import (
    COLUMNS,
    FILE,
    PROCESS,
    PROCESS_TEXTS,
    TEXT_COLUMNS,
    Events,
    FileType,
    Texts,
)

TEXTS = st.lists(st.binary(max_size=12), max_size=6).map(lambda texts: [b"", *texts])
Array = npt.NDArray[Any]


def any_column(kind: str, length: int) -> st.SearchStrategy[Array]:
    """A column of any values: all the same, near each other, or anything."""
    if kind.startswith("S"):
        size = int(kind[1:])
        each = st.lists(st.binary(max_size=size), min_size=length, max_size=length)
        return each.map(lambda values: np.array(values, kind))
    limits = np.iinfo(kind)
    anything = st.integers(int(limits.min), int(limits.max))
    near = st.integers(0, 100)
    values = st.one_of(
        anything.map(lambda value: [value] * length),
        st.lists(near, min_size=length, max_size=length),
        st.lists(anything, min_size=length, max_size=length),
    )
    return values.map(lambda chosen: np.array(chosen, kind))


@st.composite
def any_events(draw: st.DrawFn, max_events: int = 40) -> Events:
    """A batch of which every column, table and text can be anything that is allowed.

    Its values are drawn by numpy: some fifty columns drawn one by one take a second.
    """
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    length = draw(st.integers(0, max_events))
    texts = draw(TEXTS)
    processes = _random_table(random, draw(st.integers(1, 4)), PROCESS, len(texts))
    files = _random_table(random, draw(st.integers(1, 4)), FILE, len(texts))
    rows = dict.fromkeys(TEXT_COLUMNS, len(texts))
    rows |= {"process": len(processes), "file": len(files)}
    columns = {
        name: _random(random, length, kind, rows.get(name)) for name, kind in COLUMNS.items()
    }
    lost, start_ns = draw(st.integers(0, 2**64 - 1)), draw(st.integers(0, 2**62))
    return Events(columns, processes, files, texts, lost, start_ns)


def _random_table(
    random: np.random.Generator, length: int, kind: np.dtype[np.void], texts: int
) -> Array:
    rows = np.zeros(length, kind)
    for name in kind.names or ():
        is_text = name in PROCESS_TEXTS or (kind is FILE and name == "name")
        rows[name] = _random(random, length, kind[name].str, texts if is_text else None)
    if kind is PROCESS:
        rows["parent"] = _random(random, length, "<u4", length)
    return rows


def _random(random: np.random.Generator, length: int, kind: str, rows: int | None) -> Array:
    """Values of a column: all the same, near each other, or anything; or indices into `rows`."""
    dtype = np.dtype(kind)
    if rows is not None:
        return random.integers(0, rows, length).astype(dtype)
    anything = np.frombuffer(random.bytes(length * dtype.itemsize), dtype)
    if dtype.kind == "S":
        return anything
    choice = random.integers(3)
    if choice == 0:
        return np.repeat(anything[:1], length)
    return anything if choice == 1 else (anything % 100).astype(dtype)


def simple(first: int, count: int, *, start_ns: int = 10**18, step_ns: int = 1000) -> Events:
    """Plain events numbered from `first`, one each `step_ns`, of one process and one file."""
    numbers = np.arange(first, first + count, dtype="<u8")
    columns = {name: np.zeros(count, kind) for name, kind in COLUMNS.items()}
    columns["number"] = numbers
    columns["time_ns"] = np.uint64(start_ns) + numbers * np.uint64(step_ns)
    columns["latency_ns"] += np.uint64(step_ns // 2)
    columns["arg2"] = numbers * np.uint64(7919) % np.uint64(4096)
    columns["tid"] += np.uint32(42)
    columns["process"] += np.uint32(1)
    columns["file"] += np.uint32(1)
    columns["path"] += np.uint32(3)
    processes, files = np.zeros(2, PROCESS), np.zeros(2, FILE)
    processes[1]["pid"], processes[1]["name"] = 42, 1
    files[1]["type"], files[1]["name"] = 1, 2
    return Events(columns, processes, files, [b"", b"cat", b"/etc/hosts", b"/etc"])


def same(one: Events, two: Events) -> bool:
    """Whether two batches are equal in everything."""
    return (
        all(
            one[name].dtype == two[name].dtype and np.array_equal(one[name], two[name])
            for name in COLUMNS
        )
        and one.processes.tobytes() == two.processes.tobytes()
        and one.files.tobytes() == two.files.tobytes()
        and one.texts == two.texts
        and (one.lost, one.start_ns) == (two.lost, two.start_ns)
    )


def numbers(batches: list[Events]) -> list[int]:
    """The numbers of all events, in order."""
    return [int(number) for batch in batches for number in batch["number"]]


class Story:
    """Events told one after the other: which call, by whom, on which file."""

    def __init__(self) -> None:
        self._rows: list[dict[str, int]] = []
        self._texts = Texts()
        self._processes = [np.zeros(1, PROCESS)[0]]
        self._files = [np.zeros(1, FILE)[0]]
        self.now = 10**18

    def process(self, pid: int, name: str, **columns: int | str | bytes) -> int:
        """A row for a process; texts are given as text."""
        self._processes.append(self._row(PROCESS, {"pid": pid, "name": name, **columns}))
        return len(self._processes) - 1

    def file(self, kind: FileType, name: str, **columns: int | str | bytes) -> int:
        """A row for an open file."""
        self._files.append(self._row(FILE, {"type": kind, "name": name, **columns}))
        return len(self._files) - 1

    def tell(self, call: str, process: int, *args: int, **columns: int | str | bytes) -> None:
        """An event; each takes 5 µs, and 10 µs pass."""
        row = {name: 0 for name in COLUMNS}
        row |= {f"arg{i}": arg & (2**64 - 1) for i, arg in enumerate(args)}
        row |= {"number": len(self._rows) + 1, "syscall": syscalls.all_syscalls()[call].number or 0}
        row |= {"time_ns": self.now, "latency_ns": 5000, "process": process, "fd": -1}
        row["tid"] = int(self._processes[process]["pid"])
        for name, value in columns.items():
            row[name] = value if isinstance(value, int) else self._text(value)
        self._rows.append(row)
        self.now += 10_000

    def events(self) -> Events:
        """All that was told."""
        columns = {
            name: np.array([row[name] for row in self._rows], kind)
            for name, kind in COLUMNS.items()
        }
        processes, files = np.array(self._processes, PROCESS), np.array(self._files, FILE)
        return Events(columns, processes, files, list(self._texts.rows))

    def _row(self, kind: np.dtype[np.void], columns: dict[str, int | str | bytes]) -> np.void:
        row = np.zeros(1, kind)
        for name, value in columns.items():
            is_number = isinstance(value, int) or kind[name].kind == "S"
            row[name] = value if is_number else self._text(value)
        return row[0]

    def _text(self, text: int | str | bytes) -> int:
        return self._texts.add(text.encode() if isinstance(text, str) else bytes(text))
