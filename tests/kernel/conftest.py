"""What tests of tracing find on every machine: tracefs, which perf would mount, and leave."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

TRACEFS = Path("/sys/kernel/tracing")


@pytest.fixture(scope="module", autouse=True)
def tracefs(request: pytest.FixtureRequest) -> Iterator[None]:
    """Mount it for a file of such tests, which are all of one worker, if it is not mounted."""
    if not request.path.name.startswith("test_trac") or os.geteuid() != 0 or TRACEFS.is_mount():
        yield
        return
    subprocess.run(["/usr/bin/mount", "-t", "tracefs", "none", str(TRACEFS)], check=True)
    try:
        yield
    finally:
        # Whatever a killed program still has open there goes with it.
        subprocess.run(["/usr/bin/umount", "--lazy", str(TRACEFS)], check=True)
