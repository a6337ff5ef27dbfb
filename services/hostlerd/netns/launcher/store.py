"""The launcher's own files: what each unit was started with, and how it ended.

They are kept in a directory of root, 0700, since a unit's environment may hold secrets: neither
ps(1) nor `systemctl show` tells it. `NS.NAME.json` is the unit, `NS.NAME.live` says that its start
succeeded, `NS.NAME.end` how it ended.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from hostlerd.privileged.refused import Fault, Refused

from .grammar import DEFAULTS, UNIT

# What the status text of a unit says as soon as the process itself has begun.
RUNS = "running"
STORE = Path("/run/hostler-launcher")
MAX_BYTES = 1 << 20


def save(unit: dict[str, Any]) -> None:
    """Write the unit, whole or not at all; forget how an earlier one of that name ended."""
    forget(unit["namespace"], unit["name"])
    _write(unit["namespace"], unit["name"], "json", unit)


def load(namespace: str, name: str) -> dict[str, Any] | None:
    """Read a unit, or None. The grammar is asked again: a file is an input, too."""
    unit = _read(namespace, name, "json")
    if unit is None:
        return None
    faults: list[Fault] = []
    UNIT(unit, "unit", faults)
    if faults:
        raise Refused("MALFORMED", "the saved unit is not in the grammar", faults)
    return {**DEFAULTS, **unit}


def set_live(namespace: str, name: str) -> None:
    """Note that the start succeeded: from now on an end is a process's, not a failed start's."""
    _write(namespace, name, "live", True)


def is_live(namespace: str, name: str) -> bool:
    """Whether the start succeeded."""
    return _read(namespace, name, "live") is True


def save_end(namespace: str, name: str, end: dict[str, Any]) -> None:
    """Write how the process ended."""
    _write(namespace, name, "end", end)


def load_end(namespace: str, name: str) -> dict[str, Any] | None:
    """Read how the process ended, or None."""
    end = _read(namespace, name, "end")
    return end if isinstance(end, dict) else None


def drop_unit(namespace: str, name: str) -> None:
    """Remove the unit with its secrets; how it ended stays."""
    for kind in ("json", "live"):
        _path(namespace, name, kind).unlink(missing_ok=True)


def forget(namespace: str, name: str) -> None:
    """Remove everything about the unit."""
    drop_unit(namespace, name)
    _path(namespace, name, "end").unlink(missing_ok=True)


def known() -> set[tuple[str, str]]:
    """The namespaces and names of which there is a file."""
    found = set()
    with suppress(FileNotFoundError):
        for path in STORE.iterdir():
            namespace, _, rest = path.name.partition(".")
            name, _, kind = rest.partition(".")
            if kind in {"json", "end"}:
                found.add((namespace, name))
    return found


def _path(namespace: str, name: str, kind: str) -> Path:
    return STORE / f"{namespace}.{name}.{kind}"


def _read(namespace: str, name: str, kind: str) -> Any:
    try:
        with _path(namespace, name, kind).open("rb") as file:
            return json.loads(file.read(MAX_BYTES))
    except (FileNotFoundError, ValueError):
        return None


def _write(namespace: str, name: str, kind: str, value: Any) -> None:
    STORE.mkdir(mode=0o700, exist_ok=True)
    path = _path(namespace, name, kind)
    draft = path.with_suffix(f".{kind}-{os.getpid()}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "w") as file:
        json.dump(value, file)
    draft.rename(path)
