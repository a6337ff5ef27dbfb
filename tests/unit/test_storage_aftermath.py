"""A change that was made is answered, whether or not what is there then can be seen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from hostler.api.common.v1 import change_pb2
from hostlerd.storage.errors import WorkerLost
from hostlerd.storage.service.aftermath import seen_after


def seen(get: Callable[..., Any]) -> tuple[Any, change_pb2.Change]:
    change = change_pb2.Change(outcome=change_pb2.OUTCOME_APPLIED, changed=True)
    runtime: Any = SimpleNamespace(blocking=asyncio.to_thread)
    return asyncio.run(seen_after(runtime, change, get, "vg")), change


def lost(name: str) -> None:
    raise WorkerLost(f"nobody tells of {name}")


def broken(name: str) -> None:
    raise OSError(5, "Input/output error")


def test_what_can_be_seen_is_answered_and_nothing_else_said() -> None:
    found, change = seen(str.upper)
    assert found == "VG" and not change.warnings


@pytest.mark.parametrize(
    ("get", "why"), [(lost, "nobody tells of vg"), (broken, "Input/output error")]
)
def test_what_cannot_be_seen_is_a_warning_and_no_error(get: Callable[..., Any], why: str) -> None:
    found, change = seen(get)
    assert found is None and change.changed and change.outcome == change_pb2.OUTCOME_APPLIED
    (warning,) = change.warnings
    assert warning.code == "RESULT_NOT_SEEN" and warning.message.endswith(why)


def test_a_fault_of_ours_stays_one() -> None:
    with pytest.raises(ValueError, match="ours"):
        seen(lambda name: (_ for _ in ()).throw(ValueError("ours")))
