"""Rounds in turn: ours, peer, ours, peer …, so that what else the machine does hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TypeVar

T = TypeVar("T")

#: Whether somebody has asked for the long form of benchmarks that have one.
LONG = False


def in_turn(
    contestants: Mapping[str, Callable[[], T]], rounds: int, budget_s: float
) -> dict[str, list[T]]:
    """Let all contestants run once per round and answer what each of their runs answered.

    No further round is begun once it would likely end after `budget_s` seconds; the first always
    is. All contestants have run equally often.
    """
    found: dict[str, list[T]] = {name: [] for name in contestants}
    start = time.monotonic()
    for done in range(rounds):
        spent_s = time.monotonic() - start
        if done and spent_s + spent_s / done > budget_s:
            break
        for name, run in contestants.items():
            found[name].append(run())
    return found


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Wait until a condition holds. Raises TimeoutError that says what did not come about."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.02)
