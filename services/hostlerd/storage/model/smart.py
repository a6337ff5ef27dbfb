"""What a disk says of itself by SMART, as smartctl(8) tells it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

_REALLOCATED, _PENDING, _UNCORRECTABLE = 5, 197, 198
_DAMAGE = {
    _REALLOCATED: "reallocated sectors",
    _PENDING: "sectors that wait to be reallocated",
    _UNCORRECTABLE: "sectors that cannot be read",
}


@dataclass(frozen=True, slots=True)
class Smart:
    """What is known. `passed` is None if the disk did not say, and then `why` says why not."""

    passed: bool | None
    why: str = ""
    hours: int | None = None
    """How long it has run."""
    damage: tuple[str, ...] = ()
    """What it has counted that a new disk has none of."""


def parse(said: str) -> Smart:
    """Read what `smartctl --json` says; whatever it is, it is no error."""
    try:
        told = json.loads(said)
    except ValueError:
        told = None
    if not isinstance(told, dict):
        return Smart(None, "smartctl said nothing that can be read")
    passed = _in(told, "smart_status", "passed")
    if not isinstance(passed, bool):
        messages = _in(told, "smartctl", "messages")
        words = [
            str(one.get("string", ""))
            for one in (messages if isinstance(messages, list) else [])
            if isinstance(one, dict)
        ]
        return Smart(None, "; ".join(filter(None, words))[:500] or "the disk does not say")
    hours = _in(told, "power_on_time", "hours")
    return Smart(passed, "", hours if type(hours) is int else None, tuple(_damage(told)))


def _damage(told: dict[str, Any]) -> list[str]:
    found = []
    rows = _in(told, "ata_smart_attributes", "table")
    for row in rows if isinstance(rows, list) else []:
        count = _in(row, "raw", "value")
        if _in(row, "id") in _DAMAGE and type(count) is int and count > 0:
            found.append(f"{count} {_DAMAGE[row['id']]}")
    log = "nvme_smart_health_information_log"
    for key, words in (("media_errors", "media errors"), ("critical_warning", "as its warnings")):
        count = _in(told, log, key)
        if type(count) is int and count > 0:
            found.append(f"{count} {words}")
    grown = _in(told, "scsi_grown_defect_list")
    if type(grown) is int and grown > 0:
        found.append(f"{grown} grown defects")
    return found


def _in(told: Any, *keys: str) -> Any:
    for key in keys:
        told = told.get(key) if isinstance(told, dict) else None
    return told
