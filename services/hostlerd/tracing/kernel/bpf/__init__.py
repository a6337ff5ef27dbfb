"""The tracer that runs in the kernel, and how it is loaded and read."""

import os
import re
from pathlib import Path

_HERE = Path(__file__).parent
STACKS = _HERE / "stacks.bpf.o"
"""What tells the kernel's stacks of tasks."""


def tracer(release: str | None = None) -> Path:
    """What traces system calls on a kernel of this release; without one, on the running one.

    That for kernels before 6.2 runs on later ones too, and is slower.
    """
    found = re.match(r"(\d+)\.(\d+)", os.uname().release if release is None else release)
    is_old = found is not None and (int(found[1]), int(found[2])) < (6, 2)
    return _HERE / ("trace_before_6_2.bpf.o" if is_old else "trace.bpf.o")
