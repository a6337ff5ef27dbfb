"""The closed grammar of what all requests have in common: their devices."""

from __future__ import annotations

import re
from typing import Any

from hostlerd.privileged.grammar import Check, array, record, text, whole
from hostlerd.privileged.refused import Fault
from hostlerd.storage.model.target import Slice, Target

_MOST = (1 << 63) - 1
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.!:-]{0,63}")
NUMBER = re.compile(r"[0-9]{1,4}:[0-9]{1,8}")
PLACE = re.compile(r"[0-9]{1,4}:[0-9]{1,8}(/[1-9][0-9]{0,4})?")
"""A device's number, or a disk's with that of a partition that was made on it before."""
WORDS = re.compile(r"[^\x00-\x1f\x7f]{0,512}")

_SLICE = record(
    {
        "number": whole(1, 1 << 16),
        "start_bytes": whole(1, _MOST),
        "size_bytes": whole(1, _MOST),
    },
    required=("number", "start_bytes", "size_bytes"),
)


def _slice(value: Any, path: str, faults: list[Fault]) -> None:
    """A partition that a step before has made; None if a device that was there is meant."""
    if value is not None:
        _SLICE(value, path, faults)


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
        "part": _slice,
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
    part = value.get("part")
    made = {"signatures": tuple(value["signatures"]), "part": Slice(**part) if part else None}
    return Target(**{**value, **made})
