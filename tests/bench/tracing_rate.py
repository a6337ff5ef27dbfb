"""The most calls per second that are told without a loss, and what becomes of more than that.

`dd bs=1` makes as many calls as a CPU can. Its trace goes to disk as a capture. If any is lost it
is held back, a little more each time, until none is. Then the same with a ring that is far too
small: what was told and what was counted as lost is what perf, which counts for itself, has seen.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path

import rounds
import tracers
from report import Row

from hostler.core.trace.capture import (
    CaptureHeader,
    FrameKind,
    end_bytes,
    frame_bytes,
    header_bytes,
)
from hostler.core.trace.capture_reader import CaptureReader
from hostlerd.tracing.kernel.frames import Block
from hostlerd.tracing.model.trace import Spec

SECONDS, LONG_S = 5, 60
DD = ("/usr/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=1")
# Of each tenth of a second, the part in which dd runs.
PARTS = (1.0, 0.8, 0.65, 0.5, 0.4, 0.3, 0.2, 0.1)
SLICE_S = 0.1
EXCESSIVE = 300_000
TINY_RING_BYTES = 1 << 20
AIM_PER_S, AIM_BYTES = 1_000_000, 10


@dataclass(frozen=True, slots=True)
class Sustained:
    """A round without a loss."""

    seconds: float
    told: tracers.Told
    disk_bytes: int


def rows(place: Path) -> list[Row]:
    """Measure both."""
    found = sustained(place)
    told, events = found.told, found.told.events
    what = f"in {found.seconds:.0f} s without a loss, to disk"
    counted, accounted = overdriven(place)
    return [
        Row("tracing", f"events/s {what} (aim: {AIM_PER_S:,})", (events / found.seconds,)),
        Row(
            "tracing",
            f"bytes of an event on disk {what}",
            (found.disk_bytes / events,),
            target=AIM_BYTES,
        ),
        Row(
            "tracing",
            f"us of the collector's CPU for an event {what}",
            (told.cpu_s / events * 1e6,),
        ),
        Row(
            "tracing",
            f"MiB of the collector at most, its ring mapped twice, {what}",
            (told.memory_bytes / 2**20,),
        ),
        Row(
            "tracing",
            "overdriven: calls told or counted as lost",
            (float(accounted),),
            (float(counted),),
            "perf stat's count",
            1.0,
        ),
    ]


def sustained(place: Path) -> Sustained:
    """The first round without a loss. Raises RuntimeError if there is none."""
    seconds = float(LONG_S if rounds.LONG else SECONDS)
    for part in PARTS:
        found = attempt(place / "rate.htrace", part, seconds)
        if not found.told.lost:
            return found
    raise RuntimeError("events are lost at any rate")


def attempt(path: Path, part: float, seconds: float) -> Sustained:
    """Trace dd for a while, and write what is told into a capture, which is read then."""
    dd = subprocess.Popen(DD, stderr=subprocess.DEVNULL)
    try:
        with path.open("wb") as file:
            file.write(header_bytes(CaptureHeader("bench", "", time.time_ns())))

            def write(block: Block) -> None:
                file.write(frame_bytes(FrameKind.BLOCK, block.data))

            with tracers.ours(Spec(pids=(dd.pid,), budget=tracers.BUDGET), write) as told:
                start = time.monotonic()
                let_run(dd.pid, part, start + seconds)
                dd.kill()
                taken_s = time.monotonic() - start
            end = end_bytes(told.blocks, told.events, told.lost)
            file.write(frame_bytes(FrameKind.END, end))
            file.flush()
            os.fsync(file.fileno())
    finally:
        dd.kill()
        dd.wait()
    with CaptureReader(path) as reader:
        if reader.is_torn or reader.events != told.events:
            raise RuntimeError(f"the capture has {reader.events} events of {told.events}")
    return Sustained(taken_s, told, path.stat().st_size)


def let_run(pid: int, part: float, end_s: float) -> None:
    """Let a process run for a part of the time."""
    while (left_s := end_s - time.monotonic()) > 0:
        time.sleep(min(left_s, SLICE_S * part))
        if part < 1:
            os.kill(pid, signal.SIGSTOP)
            time.sleep(SLICE_S * (1 - part))
            os.kill(pid, signal.SIGCONT)


def overdriven(place: Path) -> tuple[int, int]:
    """How many calls of dd perf has counted, and how many were told or counted as lost."""
    witness = place / "counted"
    counting = ("/usr/bin/perf", "stat", "-x,", "-e", "raw_syscalls:sys_exit", "-o", str(witness))
    budget = replace(tracers.BUDGET, ring_bytes=TINY_RING_BYTES)
    # Whatever else runs on the machine has another name.
    busy = shutil.copy(DD[0], place / f"dd{os.getpid()}")
    with tracers.ours(Spec(f"proc.name = {busy.name}", budget=budget)) as told:
        argv = [*counting, str(busy), *DD[1:], f"count={EXCESSIVE}"]
        subprocess.run(argv, check=True, capture_output=True, timeout=120)
    if not told.lost:
        raise RuntimeError("nothing was lost: the ring was not too small")
    # exit_group does not return: ours tells its beginning, perf counts ends.
    counted = int(witness.read_text().splitlines()[-1].split(",")[0]) + 1
    return counted, told.events + told.lost
