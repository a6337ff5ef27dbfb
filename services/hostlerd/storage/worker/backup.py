"""Definitions of backups, and the timers of those that run by themselves.

They are root's files: the programs that run restic, and read what a network answers, can read
their definitions and change none.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hostlerd.privileged.grammar import array, flag, record, text, whole
from hostlerd.privileged.refused import Fault
from hostlerd.storage.model import backup as model
from hostlerd.storage.model.backup import Definition
from hostlerd.storage.worker import saved, tools
from hostlerd.storage.worker.operation import Operation, Request
from hostlerd.storage.worker.refused import Refused
from hostlerd.storage.worker.tools import Tools

_ANY = text(re.compile(r"[^\x00-\x1f\x7f]*"))
_KEPT = whole(0, model.MOST_KEPT)
_MOST = 1000
_SYSTEMD = Path("/run/systemd/system")
_SYSTEMCTL = "/usr/bin/systemctl"
_FIELDS = {
    "name": text(model.NAME),
    "paths": array(_ANY, 1, model.MOST_PATHS),
    "excludes": array(_ANY, 0, model.MOST_EXCLUDES),
    "repository": _ANY,
    "password_file": _ANY,
    "credentials_file": _ANY,
    "one_file_system": flag,
    "retention": record(
        {key: _KEPT for key in ("last", "daily", "weekly", "monthly")},
        ("last", "daily", "weekly", "monthly"),
    ),
    "calendar": _ANY,
    "zone": _ANY,
    "warn_after_s": whole(0, model.WARN_AFTER_S_MOST),
    "host": _ANY,
}
_RECORD = record(_FIELDS, tuple(_FIELDS))


def _definition(value: Any, path: str, faults: list[Fault]) -> None:
    """A definition, held against the same rules as the daemon's own."""
    found: list[Fault] = []
    _RECORD(value, path, found)
    if not found:
        found = [(f"{path}.{key}", why) for key, why in model.faults(Definition.read(value))]
    faults += found


def _definition_or_none(value: Any, path: str, faults: list[Fault]) -> None:
    if value is not None:
        _definition(value, path, faults)


def apply(request: Request, _: Tools) -> dict[str, Any]:
    """Keep a definition, and have its timer run or gone."""
    backup = Definition.read(request["backup"])
    refuse_calendar(backup)
    folder = request.store.backups
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{backup.name}.json"
    if not path.exists() and len(list(folder.glob("*.json"))) >= _MOST:
        raise Refused("INVALID", f"there are {_MOST} backups already")
    before = _timer_text(request.store.units, backup.name)
    _write(path, json.dumps(asdict(backup)).encode(), 0o600)
    wanted = timer(backup) if backup.calendar else ""
    if wanted != before:
        _set_timer(request.store.units, backup.name, wanted)
    return {}


def delete(request: Request, _: Tools) -> dict[str, Any]:
    """Forget a definition; no error if there is none."""
    backup = Definition.read(request["before"])
    if _timer_text(request.store.units, backup.name):
        _set_timer(request.store.units, backup.name, "")
    _remove(request.store.backups / f"{backup.name}.json")
    return {}


def told(request: Request, _: Tools) -> dict[str, Any]:
    """All definitions, by name, each with when it was made or changed."""
    items = []
    for path in sorted(request.store.backups.glob("*.json")):
        try:
            backup = Definition.read(json.loads(path.read_bytes()))
        except (KeyError, TypeError, ValueError):
            # One that is damaged must not hide the others.
            continue
        since = int(path.stat().st_mtime)
        items.append({"backup": asdict(backup), "since_unix_s": since})
    return {"items": items}


def refuse_calendar(backup: Definition) -> None:
    """Raise Refused unless systemd understands when a backup is to run."""
    if not backup.calendar:
        return
    try:
        tools.probe(model.calendar_argv(backup))
    except Refused as e:
        why = e.metadata.get("stderr", e.message)
        raise Refused("INVALID", why, [("backup.schedule", why)]) from e


def timer(backup: Definition) -> str:
    """The text of the unit that starts a backup. systemd.timer(5)."""
    return (
        f"# Made for `hostler storage backup apply`, and made anew by it.\n"
        f"[Unit]\nDescription=Hostler: when backup {backup.name} runs\n\n"
        f"[Timer]\nOnCalendar={backup.calendar} {backup.zone}\n"
        f"Persistent=yes\nAccuracySec=1s\n\n"
        f"[Install]\nWantedBy=timers.target\n"
    )


def _timer_text(units: Path, name: str) -> str:
    try:
        return (units / unit(name)).read_text()
    except FileNotFoundError:
        return ""


def unit(name: str) -> str:
    """The name of a backup's timer; its service is a template of the package."""
    return f"hostler-storage-backup@{name}.timer"


def _set_timer(units: Path, name: str, content: str) -> None:
    # Without systemd, as in the making of an image, the unit lies there for the first boot.
    runs = _SYSTEMD.is_dir() and units == saved.SYSTEM_UNITS
    if not content:
        if runs:
            _systemctl("disable", "--now", unit(name))
        _remove(units / unit(name))
    else:
        _write(units / unit(name), content.encode(), 0o644)
    if runs:
        _systemctl("daemon-reload")
        if content:
            _systemctl("enable", unit(name))
            _systemctl("restart", unit(name))


def _systemctl(*words: str) -> None:
    tools.probe((_SYSTEMCTL, "--quiet", *words))


def _write(path: Path, content: bytes, mode: int) -> None:
    draft = path.with_name(f".{path.name}.draft")
    with draft.open("wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    _sync(path.parent)


def _remove(path: Path) -> None:
    if path.exists():
        path.unlink()
        _sync(path.parent)


def _sync(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


OPERATIONS: Mapping[str, Operation] = {
    "ListBackups": Operation({}, told, only_reads=True),
    "ApplyBackup": Operation({"backup": _definition, "before": _definition_or_none}, apply),
    "DeleteBackup": Operation({"before": _definition}, delete),
}
