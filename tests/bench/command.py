"""How long the command line takes to come up: `hostler --help` beside click with nothing to do."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from report import Row
from rounds import in_turn

HOSTLER = (str(Path(sys.executable).with_name("hostler")), "--help")
CLICK = (sys.executable, "-c", "import click; click.command()(lambda: None)(['--help'])")
ROUNDS = 21
BUDGET_S = 30.0
TARGET_MS = 150.0


def rows() -> list[Row]:
    """Measure both in turn; the first row has the target, which is a time."""
    found = in_turn({"ours": lambda: ms(HOSTLER), "peer": lambda: ms(CLICK)}, ROUNDS, BUDGET_S)
    ours, peer = tuple(found["ours"]), tuple(found["peer"])
    return [
        Row("command", "ms of hostler --help", ours, target=TARGET_MS),
        Row("command", "ms of hostler --help", ours, peer, "click alone"),
    ]


def ms(argv: Sequence[str]) -> float:
    """Run a command and answer how long it took, in milliseconds."""
    start = time.monotonic()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, timeout=60)
    return (time.monotonic() - start) * 1000
