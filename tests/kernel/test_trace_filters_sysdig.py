"""Filters made by chance, on a real trace: ours picks the calls that `sysdig -r` picks.

Calls that sysdig knows by their parameters alone are asked for. It judges the entry of a call too,
and forgets the fd of one whose entry it has left out, so no filter asks for what only an exit has
(latency, result) and for the fd at once. Left out are calls about no fd (close of -1 has number -1
there, and none here), about directories (files there) and about pipes (which have no name there).
"""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from traced import trace

from hostler.core.trace.blocks import exit_ns
from hostler.core.trace.events import Events, FileType, Flag
from hostler.core.trace.filter import compile_filter
from hostler.core.trace.scap import export

SYSDIG = shutil.which("sysdig")
pytestmark = [
    pytest.mark.kernel,
    pytest.mark.timeout(300),
    pytest.mark.skipif(SYSDIG is None, reason="sysdig is not installed"),
]

FILTERS = 200
SCRIPT = """
for word in a b c; do /usr/bin/basename /tmp/$word; done
(cd /usr && cat < ../etc/passwd)
sort < /etc/hosts | uniq -c
cat /etc/hostname /nowhere
ls /usr/share | wc -l
dd if=/dev/zero of=/dev/null bs=1000 count=20
"""
KNOWN = "evt.type in (open, openat, read, write, close)"

Made = Callable[[random.Random], str]


def one_of(field: str, operators: str, *values: str) -> Made:
    def made(dice: random.Random) -> str:
        operator = dice.choice(operators.split())
        if operator == "in":
            chosen = dice.sample(values, min(len(values), dice.randint(1, 3)))
            return f"{field} in ({', '.join(chosen)})"
        return f"{field} {operator} {dice.choice(values)}"

    return made


def fields_of(events: Events) -> tuple[list[Made], list[Made]]:
    """Tests of what an entry has as well, and tests of what only an exit has."""
    pids = sorted({str(pid) for pid in events.of_process("pid").tolist()})
    latencies = [str(ns) for ns in sorted(events["latency_ns"].tolist())[:: len(events) // 20]]
    text = "= != contains icontains startswith endswith in"
    ordered = "= != < <= > >= in"
    entry = [
        one_of("proc.name", text, "cat", "sh", "sort", "dd", "bas", "e", "UNIQ"),
        one_of("proc.pid", ordered, *pids),
        one_of("thread.tid", ordered, *pids),
        one_of("evt.type", "= != in", "openat", "read", "write", "close"),
        one_of("proc.name", "glob", "*a*", "s?", "ca?", "[cs]*"),
    ]
    files = [
        one_of("fd.num", ordered, "0", "1", "2", "3", "4", "5"),
        one_of("fd.name", text, "/etc/passwd", "/etc", "/dev/zero", "host", ".so", "LIBC"),
        one_of("fd.directory", "= != contains", "/etc", "/dev", "/usr/share"),
        one_of("fd.filename", "= != startswith", "passwd", "zero", "null", "h"),
        one_of("fd.typechar", "= !=", "f", "p"),
    ]
    exits = [
        one_of("evt.latency", ordered, *latencies),
        one_of("evt.rawres", ordered, "-2", "0", "1", "3", "832", "1000"),
        one_of("evt.failed", "= !=", "true", "false"),
    ]
    return [*entry, *files], [*entry, *exits]


def tree(dice: random.Random, tests: list[Made], depth: int) -> str:
    if depth == 0 or dice.random() < 0.3:
        return dice.choice(tests)(dice)
    if dice.random() < 0.25:
        return f"not ({tree(dice, tests, depth - 1)})"
    join = dice.choice([" and ", " or "])
    return join.join(f"({tree(dice, tests, depth - 1)})" for _ in range(2))


def asked_of_sysdig(path: Path, text: str) -> set[tuple[int, int]]:
    assert SYSDIG
    argv = [SYSDIG, "-r", str(path), "-p", "%thread.tid %evt.rawtime %evt.dir", text]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{text}: {done.stderr}"
    lines = [line.split() for line in done.stdout.splitlines()]
    return {(int(tid), int(time)) for tid, time, way in lines if way == "<"}


def test_sysdig_picks_the_same_calls(tmp_path: Path) -> None:
    events = trace(["/bin/sh", "-c", SCRIPT])
    events = events.select((events["flags"] & (Flag.UNFINISHED | Flag.ENTRY_LOST)) == 0)
    path = tmp_path / "a.scap"
    with path.open("wb") as out:
        export(lambda: [events], out, "here")
    dice = random.Random(5)  # noqa: S311 - filters, not secrets
    kinds = fields_of(events)
    texts = [f"{KNOWN} and ({tree(dice, kinds[i % 2], 3)})" for i in range(FILTERS)]
    with ThreadPoolExecutor(2) as pool:
        theirs = list(pool.map(lambda text: asked_of_sysdig(path, text), texts))
    keys = list(zip(events["tid"].tolist(), exit_ns(events).tolist(), strict=True))
    is_judged = np.isin(events.of_file("type"), (FileType.FILE, FileType.DEVICE))
    judged = {keys[row] for row in is_judged.nonzero()[0]}
    picked = 0
    differing = []
    for text, their in zip(texts, theirs, strict=True):
        ours = {keys[row] for row in compile_filter(text).matches(events).nonzero()[0]} & judged
        picked += 0 < len(ours) < len(judged)
        if ours != their & judged:
            differing.append((text, len(ours - their), len(their & judged - ours)))
    assert differing == []
    # Filters that pick nothing, or all, would show nothing.
    assert picked > FILTERS // 2
