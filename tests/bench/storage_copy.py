"""A verified copy beside `cp` + `sync` + eviction + `cmp`, and `rsync -S`, which proves nothing.

300 MB; 1.5 GB in the long form. The source is in the cache, as after a backup was written.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import rounds
from report import Row
from rounds import in_turn

from hostler.core.copying.copy import copy

ROOT = Path(__file__).parents[2]
ROUNDS = 5
BUDGET_S = 60.0
LONG_BUDGET_S = 240.0
MB = 1_000_000
TIMEOUT_S = 300
# 0.9 times the speed of the peer that proves as much.
TARGET = 1 / 0.9


def rows() -> list[Row]:
    """Measure all in turn: seconds for each copy."""
    size_mb = 1500 if rounds.LONG else 300
    # Not in /tmp, which may be memory.
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as folder:
        source = Path(folder, "source")
        with source.open("wb") as file:
            for _ in range(size_mb):
                file.write(os.urandom(MB))
            os.fsync(file.fileno())
        target = Path(folder, "target")
        found = in_turn(
            {
                "ours": lambda: seconds(lambda: copy(source, target), target),
                "cp": lambda: seconds(lambda: cp(source, target), target),
                "rsync": lambda: seconds(lambda: rsync(source, target), target),
            },
            ROUNDS,
            LONG_BUDGET_S if rounds.LONG else BUDGET_S,
        )
    metric = f"s to copy {size_mb} MB and prove it"
    ours, cps, rsyncs = (tuple(found[name]) for name in ("ours", "cp", "rsync"))
    return [
        Row("storage_copy", metric, ours, cps, "cp, sync, evict, cmp", target=TARGET),
        Row("storage_copy", metric, ours, rsyncs, "rsync -S, unproven"),
    ]


def seconds(make: Callable[[], object], target: Path) -> float:
    """Time one copy, and remove it."""
    start = time.monotonic()
    make()
    spent_s = time.monotonic() - start
    target.unlink()
    return spent_s


def cp(source: Path, target: Path) -> None:
    """Do what a careful administrator does. Source for the eviction: dd(1), nocache."""
    tool("/usr/bin/cp", "--sparse=auto", "--preserve=all", source, target)
    tool("/usr/bin/sync", target)
    tool("/usr/bin/dd", f"if={target}", "iflag=nocache", "count=0", "status=none")
    tool("/usr/bin/cmp", source, target)


def rsync(source: Path, target: Path) -> None:
    """Copy with rsync."""
    tool("/usr/bin/rsync", "-S", source, target)


def tool(*argv: str | Path) -> None:
    """Run a tool. Raises if it fails."""
    subprocess.run(argv, check=True, timeout=TIMEOUT_S, stdout=subprocess.DEVNULL)
