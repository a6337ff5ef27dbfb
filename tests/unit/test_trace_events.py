"""Events as columns: tables that are joined, cut down and pointed into."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.core.trace import syscalls
from hostler.core.trace.events import COLUMNS, FILE, PROCESS, Events, Texts, concatenate

HEADERS = Path("/usr/include/x86_64-linux-gnu/asm")


def batch(names: list[str], paths: list[str]) -> Events:
    texts = Texts()
    columns = {name: np.zeros(len(names), kind) for name, kind in COLUMNS.items()}
    processes = np.zeros(len(names) + 1, PROCESS)
    files = np.zeros(len(names) + 1, FILE)
    for i, (name, path) in enumerate(zip(names, paths, strict=True)):
        processes[i + 1]["name"] = texts.add(name.encode())
        files[i + 1]["name"] = texts.add(path.encode())
        columns["process"][i] = columns["file"][i] = i + 1
        columns["path"][i] = texts.add(path.encode())
    columns["number"] = np.arange(1, len(names) + 1, dtype="<u8")
    return Events(columns, processes, files, texts.rows)


def read(events: Events) -> list[tuple[bytes, bytes, bytes]]:
    return [
        (events.texts[name], events.texts[file], events.texts[path])
        for name, file, path in zip(
            events.of_process("name"), events.of_file("name"), events["path"], strict=True
        )
    ]


BATCHES = st.lists(st.lists(st.tuples(st.text(max_size=3), st.text(max_size=3)), max_size=5))


@given(BATCHES)
def test_joined_batches_read_as_each_does(made: list[list[tuple[str, str]]]) -> None:
    batches = [batch([n for n, _ in b], [p for _, p in b]) for b in made]
    whole = concatenate(batches)
    assert read(whole) == [row for b in batches for row in read(b)]
    assert len(whole) == sum(map(len, batches))


@given(BATCHES, st.data())
def test_what_is_not_used_is_left_out_and_the_rest_reads_the_same(
    made: list[list[tuple[str, str]]], data: st.DataObject
) -> None:
    whole = concatenate([batch([n for n, _ in b], [p for _, p in b]) for b in made])
    rows = np.array([data.draw(st.booleans()) for _ in range(len(whole))], bool)
    chosen = whole.select(rows)
    small = chosen.compact()
    assert read(small) == read(chosen)
    assert len(small.processes) <= len(chosen) + 1
    assert set(small.texts) == {b"", *(text for row in read(chosen) for text in row)}


def test_lost_events_add_up() -> None:
    one, two = batch(["a"], ["/a"]), batch(["b"], ["/b"])
    one.lost, two.lost = 3, 4
    assert concatenate([one, two]).lost == 7


@pytest.mark.parametrize(("header", "is_32_bit"), [("unistd_64.h", False), ("unistd_32.h", True)])
def test_every_call_of_the_kernels_headers_is_known(header: str, is_32_bit: bool) -> None:
    text = (HEADERS / header).read_text()
    numbers = {int(n): name for name, n in re.findall(r"#define __NR_(\w+) (\d+)", text)}
    assert len(numbers) > 350
    assert {n: syscalls.name_of(n, is_32_bit) for n in numbers} == numbers
    assert syscalls.name_of(4711, is_32_bit) == "syscall_4711"


def test_arguments_are_of_known_kinds() -> None:
    calls = syscalls.all_syscalls()
    kinds = {a.kind for call in calls.values() for a in call.arguments or ()}
    assert kinds == syscalls.KINDS
    assert calls["renameat2"].index_of("path") == 1
    assert calls["renameat2"].index_of("path", 1) == 3
    assert calls["getpid"].arguments == ()
    assert calls["getpid"].index_of("fd") is None
    assert calls["tuxcall"].arguments is None


def family(names: list[str], start_ns: int = 0) -> Events:
    """Events of the last of a line of processes, each the parent of the next."""
    events = batch([names[-1]], ["/x"])
    texts = Texts()
    processes = np.zeros(len(names) + 1, PROCESS)
    for i, name in enumerate(names):
        processes[i + 1]["name"] = processes[i + 1]["user"] = texts.add(name.encode())
        processes[i + 1]["parent"] = i
    events.columns["process"][:] = len(names)
    for name in ("file", "path", "path2", "data"):
        events.columns[name][:] = 0
    return Events(events.columns, processes, events.files[:1], texts.rows, 0, start_ns)


def ancestors(events: Events, event: int) -> list[tuple[bytes, bytes]]:
    row, found = int(events["process"][event]), []
    while row:
        process = events.processes[row]
        found.append((events.texts[process["name"]], events.texts[process["user"]]))
        row = int(process["parent"])
    return found


def test_ancestors_stay_with_the_processes_that_are_used() -> None:
    one, other = family(["init", "sshd", "bash"], start_ns=7), family(["runit", "cron"], start_ns=5)
    whole = concatenate([one, other])
    expected = [
        [(name, name) for name in (b"bash", b"sshd", b"init")],
        [(name, name) for name in (b"cron", b"runit")],
    ]
    assert [ancestors(whole, i) for i in (0, 1)] == expected
    small = whole.select(np.array([False, True])).compact()
    assert ancestors(small, 0) == expected[1]
    assert len(small.processes) == 3
    assert len(small.texts) == 3
    assert (whole.start_ns, small.start_ns, concatenate([]).start_ns) == (5, 5, 0)


def test_parents_in_a_ring_are_kept_once() -> None:
    events = family(["a", "b"])
    events.processes["parent"][1] = 2
    assert len(events.compact().processes) == 3
