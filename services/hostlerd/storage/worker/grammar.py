"""The closed grammar of what all requests have in common: their devices."""

from __future__ import annotations

import re
from typing import Any

from hostlerd.privileged.grammar import Check, array, record, text, whole
from hostlerd.privileged.refused import Fault
from hostlerd.storage.model.target import Target

_MOST = (1 << 63) - 1
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.!:-]{0,63}")
NUMBER = re.compile(r"[0-9]{1,4}:[0-9]{1,8}")
WORDS = re.compile(r"[^\x00-\x1f\x7f]{0,512}")

_TARGET = record(
    {
        "id": text(re.compile(r"[^\x00-\x1f\x7f]{1,512}")),
        "name": text(NAME),
        "number": text(NUMBER),
        "size_bytes": whole(1, _MOST),
        "disk_sequence": whole(0, _MOST),
        "serial": text(WORDS),
        "wwn": text(WORDS),
        "signatures": array(text(WORDS), 0, 32),
    },
    required=(
        *("id", "name", "number", "size_bytes", "disk_sequence", "serial", "wwn"),
        "signatures",
    ),
)


def target(value: Any, path: str, faults: list[Fault]) -> None:
    """A block device as the plan saw it."""
    _TARGET(value, path, faults)
    if isinstance(value, dict) and ".." in str(value.get("name")):
        faults.append((f"{path}.name", "must not have .. in it"))


def targets(low: int, high: int) -> Check:
    """Several block devices."""
    return array(target, low, high)


def read_target(value: dict[str, Any]) -> Target:
    """Make a target of what has passed the grammar."""
    return Target(**{**value, "signatures": tuple(value["signatures"])})
