"""Exports: kept, and made by the program that has the kernel's target; or all as it was."""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hostlerd.privileged import refused
from hostlerd.privileged.grammar import array, flag, record, text, whole
from hostlerd.privileged.refused import Fault
from hostlerd.storage.model import iscsi as model
from hostlerd.storage.model.iscsi import Export
from hostlerd.storage.worker import export_kept as kept
from hostlerd.storage.worker import identity, lio, tools, use
from hostlerd.storage.worker.export_kept import Kept
from hostlerd.storage.worker.grammar import WORDS, target
from hostlerd.storage.worker.operation import Operation, Request
from hostlerd.storage.worker.refused import Refused
from hostlerd.storage.worker.tools import Tools

PROGRAM = "hostler-storage-exports@0.service"
"""The instance that waits for nothing; the one of the boot waits for devices to come."""
AT_BOOT = "hostler-storage-exports@120.service"
RULES = Path("/etc/udev/rules.d/62-hostler-exports.rules")
"""Between udev's own links and what assembles arrays, groups and filesystems of what it finds."""
_SYSTEMCTL = "/usr/bin/systemctl"
_UDEVADM = "/usr/bin/udevadm"
_SECRET_BYTES = 16
_TOOL_S = 120.0
_MOST = 64
_ANY = text(re.compile(r"[^\x00-\x1f\x7f]*"))
_FIELDS = {
    **{name: _ANY for name in ("name", "link", "target", "portal", "chap_user")},
    "size_bytes": whole(1, (1 << 63) - 1),
    "serial": text(WORDS),
    "wwn": text(WORDS),
    "initiators": array(_ANY, 1, model.MOST_INITIATORS),
    "chap_secret_file": _ANY,
}
_RECORD = record(_FIELDS, tuple(_FIELDS))
# All of them are one file of rules and one program.
_ONE_AT_A_TIME = threading.Lock()


def _export(value: Any, path: str, faults: list[Fault]) -> None:
    """An export, held against the same rules as the daemon's own."""
    found: list[Fault] = []
    _RECORD(value, path, found)
    if not found:
        told = model.export_faults(Export.read(value))
        found = [(f"{path}.{field}", why) for field, why in told]
    faults += found


def _export_or_none(value: Any, path: str, faults: list[Fault]) -> None:
    if value is not None:
        _export(value, path, faults)


def apply(request: Request, tools_: Tools) -> dict[str, Any]:
    """Keep a definition and have it made; answer the secret if it is a new one."""
    export, device = Export.read(request["export"]), request.device("device")
    with _ONE_AT_A_TIME:
        had = _proven(request)
        facts = (device.target.size_bytes, device.target.serial, device.target.wwn)
        if facts != (export.size_bytes, export.serial, export.wwn):
            raise identity.changed(device.target, "it is not the device of the definition")
        if use.number_of(export.link) != device.target.number:
            words = f"{export.link} does not lead to {device.target.name}"
            raise Refused("LINK_MISSING", words, device=device.target.id)
        if had is None:
            _refuse_unless_free(request)
        else:
            _refuse_sessions(had.export, force=bool(request["force"]))
        wanted, told = _wanted(export, had, request)
        _change(request.store.exports, export.name, wanted, had, tools_)
        return {"secret": told}


def delete(request: Request, tools_: Tools) -> dict[str, Any]:
    """Forget a definition and have it taken away; no error if there is none.

    Where there is none any more the kernel may have it still: whoever took it away was killed.
    """
    with _ONE_AT_A_TIME:
        had = _proven(request)
        if had is not None:
            _refuse_sessions(had.export, force=bool(request["force"]))
        name = Export.read(request["before"]).name
        _change(request.store.exports, name, None, had, tools_)
    return {}


def told(request: Request, _: Tools) -> dict[str, Any]:
    """All exports, by name, each with how it is. Never a secret."""
    target, why = lio.Target(), kept.report()
    items = []
    for name, one in kept.read(request.store.exports).items():
        is_up = target.is_up(one.export.target) and target.made().get(name) == one.mark
        items.append(
            {
                "export": asdict(one.export),
                "is_up": is_up,
                "message": "" if is_up else why.get(name, "the kernel does not have it"),
                "sessions": list(target.sessions(one.export.target)),
                "mark": one.mark,
            }
        )
    return {"items": items}


def _proven(request: Request) -> Kept | None:
    """What is kept now. Raises Refused unless it is what the plan saw, or what is wanted."""
    before = request["before"]
    wanted = request["export"]
    name = Export.read(before or wanted).name
    have = kept.read(request.store.exports)
    had = have.get(name)
    allowed = [Export.read(one) if one else None for one in (before, wanted)]
    if had is None and wanted and len(have) >= _MOST:
        raise Refused("INVALID", f"there are {_MOST} exports already")
    if had is not None and had.export not in allowed:
        words = f"export {name} is another one than the plan saw"
        raise Refused("EXPORT_CHANGED", words, export=name)
    return had


def _refuse_unless_free(request: Request) -> None:
    device = request.device("device")
    if identity.is_read_only(device.fd):
        words = f"{device.target.id} ({device.target.name}) is read-only"
        raise Refused("DEVICE_READ_ONLY", words, device=device.target.id)
    use.refuse_if_used(device, tools.probe)


def _refuse_sessions(export: Export, force: bool) -> None:
    sessions = lio.Target().sessions(export.target)
    if sessions and not force:
        who = ", ".join(sessions)
        words = f"{export.name} ({export.link}) is in use by {who}"
        raise Refused("EXPORT_IN_USE", words, export=export.name, device=export.link, used_by=who)


def _wanted(export: Export, had: Kept | None, request: Request) -> tuple[Kept, str]:
    """The definition to be written, and its secret if that is told."""
    secret, told = _secret(export, had, request)
    previous = "" if had is None or request["goes_back"] else had.secret
    return kept.fresh(export, secret, previous), told


def _secret(export: Export, had: Kept | None, request: Request) -> tuple[str, str]:
    """The secret that is kept, and what is told of it: the one that was made just now."""
    if export.chap_secret_file:
        kept.of_file(export.chap_secret_file)
        return "", ""
    if request["goes_back"] and had is not None:
        # Of a definition that was not written since, the secret is still the one before.
        return had.secret if had.mark == request["mark"] else had.previous, ""
    if request["new_secret"] or had is None or not had.secret:
        made = secrets.token_hex(_SECRET_BYTES)
        return made, made
    return had.secret, ""


def _change(folder: Path, name: str, new: Kept | None, had: Kept | None, tools_: Tools) -> None:
    """Keep what is wanted and have it made; put all back if it cannot be."""
    try:
        _keep(folder, name, new, tools_)
    except (refused.Refused, OSError) as cause:
        why = kept.report().get(name, "")
        try:
            _keep(folder, name, had, tools_)
        except (refused.Refused, OSError) as e:
            words = f"{name}: {why or cause}; then it could not be put back as it was: {e}"
            raise Refused("ROLLBACK_FAILED", words, export=name) from e
        if isinstance(cause, Refused) and cause.reason == "TOOL_FAILED":
            words = why or f"{cause.metadata.get('stderr', '')}; `journalctl -u '{PROGRAM}'`"
            raise Refused("EXPORT_FAILED", f"{name}: {words}", export=name) from None
        raise


def _keep(folder: Path, name: str, one: Kept | None, tools_: Tools) -> None:
    if one is None:
        kept.remove(folder, name)
    else:
        kept.write(folder, one)
    exports = [each.export for each in kept.read(folder).values()]
    RULES.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    kept.save(RULES, rules(exports).encode(), 0o644)
    tools_.run((_UDEVADM, "control", "--reload"), timeout_s=_TOOL_S)
    wanted = "enable" if exports else "disable"
    tools_.run((_SYSTEMCTL, "--quiet", wanted, AT_BOOT), timeout_s=_TOOL_S)
    # That of the time before says nothing of this one.
    kept.REPORT.unlink(missing_ok=True)
    tools_.run((_SYSTEMCTL, "restart", PROGRAM), timeout_s=_TOOL_S)


def rules(exports: list[Export]) -> str:
    """What keeps this host from using what it exports: an array of others', a group, a mount.

    Source: udev(7), systemd.device(5); 64-md-raid-assembly.rules and its like heed SYSTEMD_READY.
    """
    lines = ["# Made for `hostler storage export apply`, and made anew by it."]
    for one in sorted(exports, key=lambda each: each.name):
        link = one.link.removeprefix("/dev/")
        lines.append(
            f'SUBSYSTEM=="block", SYMLINK=="{link}|{link}-part*", ENV{{SYSTEMD_READY}}="0"'
        )
    return "\n".join(lines) + "\n"


OPERATIONS: Mapping[str, Operation] = {
    "ListExports": Operation({}, told),
    "ApplyExport": Operation(
        {
            "export": _export,
            "before": _export_or_none,
            "device": target,
            "new_secret": flag,
            "force": flag,
            "mark": text(re.compile(r"[0-9a-f]{0,64}")),
            "goes_back": flag,
        },
        apply,
        uses=("device",),
    ),
    "DeleteExport": Operation({"before": _export, "force": flag}, delete),
}
