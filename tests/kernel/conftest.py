"""What tests of the kernel find on every machine: tracefs, which perf would mount, and leave."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

TRACEFS = Path("/sys/kernel/tracing")


@pytest.fixture(scope="session", autouse=True)
def tracefs() -> Iterator[None]:
    """Mount it for the run if it is not mounted."""
    if os.geteuid() != 0 or TRACEFS.is_mount():
        yield
        return
    subprocess.run(["/usr/bin/mount", "-t", "tracefs", "none", str(TRACEFS)], check=True)
    try:
        yield
    finally:
        # Whatever a killed program still has open there goes with it.
        subprocess.run(["/usr/bin/umount", "--lazy", str(TRACEFS)], check=True)
