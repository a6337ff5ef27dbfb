"""A thread that is to meet a process in the midst of its work, on a machine that is busy."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def foremost() -> Iterator[None]:
    """Have this thread run whenever it can, whoever else wants the CPUs; what it starts does not.

    Source: sched(7).
    """
    os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
