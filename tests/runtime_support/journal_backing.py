"""Changes with all that stands behind them, for tests that have a kernel and no daemon."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from hostlerd.runtime.answers import Answers
from hostlerd.runtime.changes import Backing, Changes
from hostlerd.runtime.edge import Edge, Recoverable
from hostlerd.runtime.journal import Journals
from hostlerd.runtime.locks import ChangeLock
from hostlerd.runtime.recovery import Recovery

Blocking = Callable[..., Awaitable[Any]]


def backing_of(folder: Path) -> Backing:
    """Lock, journals and answers below a folder, as a process of the domain finds them."""
    state, run = folder / "state", folder / "run"
    for place in (state, run):
        place.mkdir(parents=True, exist_ok=True)
    lock, journals = ChangeLock(state / "lock"), Journals(state / "journal", run / "journal")
    return Backing(lock, journals, Recovery(lock, journals, Answers(state, run)))


def backed(
    kernel: Recoverable,
    folder: Path,
    blocking: Blocking = asyncio.to_thread,
    backing: Backing | None = None,
) -> Changes:
    """Answer the changes of a kernel, journalled below a folder."""
    made, edge = backing or backing_of(folder), Edge.of(kernel)
    made.recovery.add("domain", edge)
    return Changes(kernel, blocking, made, ("domain", edge))
