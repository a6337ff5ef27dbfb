"""What a command on the operator's machine costs, all of its processes included.

The command runs in a cgroup of its own, so its CPU time has also that of what outlives it or is
nobody's child any more, as ssh's masters are. Whatever is left when it has ended is killed: each
run begins without connections.

Memory is looked at every 0.2 s: what its processes have for themselves, with what forks share
counted once, and the pages of files of the process that has most of them. The PSS of these would be
less for who has libraries in common with others on this machine, such as the benchmark itself.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from hostler.lab.cgroup import Cgroup, unified_root
from hostler.lab.host import ENTER

LOOK_S = 0.2
PATIENCE_S = 300.0


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds to the first and the last healthy host's answer and to the end; CPU; memory."""

    first_s: float
    last_s: float
    all_s: float
    cpu_s: float
    peak_mib: float


@dataclass(frozen=True, slots=True)
class Command:
    """A command, and the lines in which it says that a host (group 1) has done what was asked."""

    argv: Sequence[str]
    answer: re.Pattern[str]
    environment: Mapping[str, str]
    folder: Path


def run(command: Command, healthy: Sequence[str]) -> Cost:
    """Run it. Raises AssertionError with what it said unless exactly the healthy have answered.

    A host's answer is the last line that tells of it: what has several steps is done then.
    """
    said: list[str] = []
    answered: dict[str, float] = {}
    with _cgroup() as group, _looking(group) as peak:
        start = time.monotonic()
        with subprocess.Popen(
            [sys.executable, "-IS", str(ENTER), str(group.path), *command.argv],
            env={**command.environment, "PYTHONUNBUFFERED": "1"},
            cwd=command.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            timer = threading.Timer(PATIENCE_S, group.kill)
            timer.start()
            for line in process.stdout or ():
                said.append(line)
                if found := command.answer.search(line):
                    answered[found[1]] = time.monotonic() - start
            process.wait()
            timer.cancel()
        all_s = time.monotonic() - start
        cpu_s = _cpu_s(group)
    if sorted(answered) != sorted(healthy):
        text = "".join(said)[-3000:]
        raise AssertionError(f"{sorted(answered)} have answered {command.argv[0]}:\n{text}")
    times = answered.values()
    return Cost(min(times), max(times), all_s, cpu_s, max(peak))


@contextmanager
def _cgroup() -> Iterator[Cgroup]:
    group = Cgroup(unified_root() / f"hqclient{os.getpid()}")
    group.create()
    try:
        yield group
    finally:
        group.kill()
        group.wait_empty(10)
        group.remove()


def _cpu_s(group: Cgroup) -> float:
    text = (group.path / "cpu.stat").read_text()
    return int(re.findall(r"(?m)^usage_usec (\d+)$", text)[0]) / 1e6


@contextmanager
def _looking(group: Cgroup) -> Iterator[list[float]]:
    """Note in a list what the group's processes have, until this is left."""
    found, over = [0.0], threading.Event()

    def look() -> None:
        while not over.wait(LOOK_S):
            found.append(_memory_mib(group.pids()))

    looker = threading.Thread(target=look)
    looker.start()
    try:
        yield found
    finally:
        over.set()
        looker.join()


def _memory_mib(pids: Iterable[int]) -> float:
    """Answer what processes have. Source: proc(5), smaps_rollup and status."""
    own, of_files = 0, [0]
    for pid in pids:
        # A process may be gone, or have none any more.
        with suppress(OSError, KeyError):
            own += _kib(pid, "smaps_rollup")["Pss_Anon"]
            of_files.append(_kib(pid, "status")["RssFile"])
    return (own + max(of_files)) / 1024


def _kib(pid: int, file: str) -> dict[str, int]:
    text = Path(f"/proc/{pid}/{file}").read_text()
    return {name: int(value) for name, value in re.findall(r"(?m)^(\w+):\s+(\d+) kB$", text)}
