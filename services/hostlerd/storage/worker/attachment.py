"""Attachments: sessions of open-iscsi, whose records of nodes log in again at a boot.

A secret comes before the step that needs it, and stays in memory until then; what is kept of it
lies in root's own files: the record, and a copy beside the definition, to compare with.
Source: iscsiadm(8), iscsid.conf(5), open-iscsi's usr/idbm.c.
"""

from __future__ import annotations

import hmac
import json
import os
import re
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hostlerd.privileged.grammar import flag, record, text, whole
from hostlerd.privileged.refused import Fault
from hostlerd.storage.model import iscsi as model
from hostlerd.storage.model.iscsi import Attachment
from hostlerd.storage.model.target import signature_words
from hostlerd.storage.worker import export_kept as kept
from hostlerd.storage.worker import identity, sysfs, tools, use
from hostlerd.storage.worker.grammar import read_target, targets
from hostlerd.storage.worker.operation import Operation, Request
from hostlerd.storage.worker.refused import Refused
from hostlerd.storage.worker.tools import Tools

_ISCSIADM = "/usr/sbin/iscsiadm"
_UDEVADM = "/usr/bin/udevadm"
_NODES = Path("/etc/iscsi/nodes")
_SESSIONS = Path("/sys/class/iscsi_session")
_LOGIN_S = 60.0
_DEVICE_S = 30.0
_LOOK_S = 0.2
_NOOP_S = 5
_MOST = 64
_LENT_MOST = 64
# iscsiadm(8), "EXIT STATUS".
_SESSION_EXISTS, _NO_OBJECTS = 15, 21
_ANY = text(re.compile(r"[^\x00-\x1f\x7f]*"))
_FIELDS = {
    **{name: _ANY for name in ("name", "portal", "target", "initiator", "chap_user")},
    "chap_secret_file": _ANY,
    "timeout_s": whole(1, model.TIMEOUT_S_MOST),
}
_RECORD = record(_FIELDS, tuple(_FIELDS))
_ONE_AT_A_TIME = threading.Lock()
_lent: OrderedDict[str, str] = OrderedDict()


def _attachment(value: Any, path: str, faults: list[Fault]) -> None:
    """An attachment, held against the same rules as the daemon's own."""
    found: list[Fault] = []
    _RECORD(value, path, found)
    if not found:
        wrong = model.attachment_faults(Attachment.read(value))
        found = [(f"{path}.{field}", why) for field, why in wrong]
    faults += found


def _attachment_or_none(value: Any, path: str, faults: list[Fault]) -> None:
    if value is not None:
        _attachment(value, path, faults)


def lend(request: Request, _: Tools) -> dict[str, Any]:
    """Take a secret for the attachment that is made next; answer whether it is another one."""
    name, secret = str(request["name"]), str(request["secret"])
    _lent[name] = secret
    while len(_lent) > _LENT_MOST:
        _lent.popitem(last=False)
    had = _read(request.store.attachments).get(name)
    return {"is_new": had is None or not hmac.compare_digest(had[1], secret)}


def apply(request: Request, tools_: Tools) -> dict[str, Any]:
    """Log in, and see that a device comes; forget it again if it was not attached before."""
    wanted, folder = Attachment.read(request["attachment"]), request.store.attachments
    with _ONE_AT_A_TIME:
        have = _read(folder)
        had = have.get(wanted.name)
        if had is None and len(have) >= _MOST:
            raise Refused("INVALID", f"there are {_MOST} attachments already")
        if had is not None and had[0] != wanted:
            words = f"attachment {wanted.name} is another one than the plan saw"
            raise Refused("ATTACHMENT_EXISTS", words, attachment=wanted.name)
        secret = _secret(wanted, had[1] if had is not None else "")
        _keep(folder, wanted, secret)
        try:
            _record(wanted, secret, tools_)
            _log_in(wanted, tools_)
            return {"devices": _wait(wanted, tools_)}
        except Refused as e:
            if had is None:
                _forget(folder, wanted, tools_)
            if e.reason != "TOOL_FAILED":
                raise
            stderr = e.metadata.get("stderr", "")
            why = (stderr.splitlines() or [e.message])[-1]
            words = f"{wanted.target} at {wanted.portal}: {why}"
            raise Refused("ATTACH_FAILED", words, attachment=wanted.name, stderr=stderr) from None


def delete(request: Request, tools_: Tools) -> dict[str, Any]:
    """Log out of what nobody uses, and forget it; no error if there is none."""
    wanted, folder = Attachment.read(request["before"]), request.store.attachments
    with _ONE_AT_A_TIME:
        planned = [read_target(one) for one in request["devices"]]
        for one in planned:
            # Open no longer than it takes to look at it: it goes with the session.
            with identity.opened(one) as device:
                use.refuse_if_used(device, tools.probe)
        more = sorted(set(_disks(wanted.target)) - {one.name for one in planned})
        if request["whatever_came"]:
            for name in more:
                found = signature_words(tools.signatures(identity.node(name)))
                with identity.opened(identity.here(name, found)) as device:
                    use.refuse_if_used(device, tools.probe)
        elif more:
            words = f"{wanted.target} is {', '.join(more)} by now, which the plan did not see"
            raise Refused("DEVICE_CHANGED", words, device=wanted.name)
        _forget(folder, wanted, tools_)
    return {}


def told(request: Request, _: Tools) -> dict[str, Any]:
    """All attachments, by name, each with its session. Never a secret."""
    return {
        "items": [
            {"attachment": asdict(one), "session": _session(one.target)}
            for one, _ in _read(request.store.attachments).values()
        ]
    }


def _secret(wanted: Attachment, had: str) -> str:
    given = _lent.pop(wanted.name, "")
    if wanted.chap_secret_file:
        return kept.of_file(wanted.chap_secret_file)
    if not (given or had):
        words = f"attachment {wanted.name} has no secret: give it with the request, or a file of it"
        raise Refused("SECRET_UNUSABLE", words, field="chap_secret", path="")
    return given or had


def _read(folder: Path) -> dict[str, tuple[Attachment, str]]:
    """All definitions by name, each with its secret; one that is damaged is not among them."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        try:
            said = json.loads(path.read_bytes())
            one = Attachment.read(said["attachment"])
            found[one.name] = (one, str(said["secret"]))
        except (OSError, KeyError, TypeError, ValueError):
            continue
    return found


def _keep(folder: Path, one: Attachment, secret: str) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    content = json.dumps({"attachment": asdict(one), "secret": secret}).encode()
    kept.save(folder / f"{one.name}.json", content, 0o600)


def _forget(folder: Path, one: Attachment, tools_: Tools) -> None:
    node = _node(one)
    if _session(one.target):
        tools_.run((*node, "--logout"), timeout_s=_LOGIN_S)
    tools_.run((*node, "-o", "delete"), timeout_s=_LOGIN_S, good=(0, _NO_OBJECTS))
    (folder / f"{one.name}.json").unlink(missing_ok=True)
    kept.sync(folder)


def _node(one: Attachment) -> tuple[str, ...]:
    return (_ISCSIADM, "-m", "node", "-T", one.target, "-p", one.portal)


def _record(one: Attachment, secret: str, tools_: Tools) -> None:
    """Have open-iscsi's record of the node say what is wanted. The secret is in no argument."""
    tools_.run((*_node(one), "-o", "new"), timeout_s=_LOGIN_S)
    for name, value in _settings(one):
        argv = (*_node(one), "-o", "update", "-n", name, "-v", value)
        tools_.run(argv, timeout_s=_LOGIN_S)
    # The first iscsiadm does not take, and the second would show to everybody.
    own = {"iface.initiatorname": one.initiator, "node.session.auth.password": secret}
    _put(_record_file(one), own)


def _settings(one: Attachment) -> Iterator[tuple[str, str]]:
    yield "node.startup", "automatic"
    yield "node.session.auth.authmethod", "CHAP"
    yield "node.session.auth.username", one.chap_user
    yield "node.session.timeo.replacement_timeout", str(one.timeout_s)
    for each in ("interval", "timeout"):
        yield f"node.conn[0].timeo.noop_out_{each}", str(min(_NOOP_S, one.timeout_s))


def _record_file(one: Attachment) -> Path:
    address, port = model.split_portal(one.portal)
    place = _NODES / one.target
    found = [
        path
        for path in sorted((*place.glob(f"{address},{port}*"), *place.glob(f"{address},{port}*/*")))
        if path.is_file() and not path.is_symlink()
    ]
    if len(found) != 1:
        raise Refused("ATTACH_FAILED", f"open-iscsi has no record of {one.target} at {one.portal}")
    return found[0]


def _put(path: Path, settings: Mapping[str, str]) -> None:
    """Have a record say these, and nothing else of them. Raises OSError."""
    seen = path.stat()
    if seen.st_uid != 0 or stat.S_IMODE(seen.st_mode) & 0o077:
        path.chmod(0o600)
    lines = path.read_text().splitlines()
    lines = [one for one in lines if one.partition(" = ")[0] not in settings]
    at = next((i for i, one in enumerate(lines) if one.startswith("# END")), len(lines))
    lines[at:at] = [f"{key} = {value}" for key, value in settings.items()]
    kept.save(path, ("\n".join(lines) + "\n").encode(), 0o600)


def _log_in(one: Attachment, tools_: Tools) -> None:
    tools_.run((*_node(one), "--login"), timeout_s=_LOGIN_S, good=(0, _SESSION_EXISTS))


def _wait(one: Attachment, tools_: Tools) -> list[str]:
    """The names of the disks that have come. Raises Refused if none has."""
    end = time.monotonic() + _DEVICE_S
    while not (found := _disks(one.target)):
        if time.monotonic() > end:
            words = f"{one.target} let this host in, and no device came of it"
            raise Refused("ATTACH_FAILED", words, attachment=one.name)
        time.sleep(_LOOK_S)
    tools_.run((_UDEVADM, "settle", "--timeout=30"), timeout_s=_LOGIN_S, good=(0, 1))
    return found


def _sessions(target: str) -> Iterator[Path]:
    for name in sysfs.names(_SESSIONS):
        if sysfs.text(_SESSIONS / name / "targetname") == target:
            yield _SESSIONS / name


def _session(target: str) -> str:
    """What the kernel says of the session; empty if there is none."""
    return next((sysfs.text(one / "state") or "FREE" for one in _sessions(target)), "")


def _disks(target: str) -> list[str]:
    """The kernel's names of the disks of a target."""
    found = []
    for session in _sessions(target):
        for place in (session / "device").glob("target*/*/block/*"):
            found.append(os.fspath(place.name))
    return sorted(found)


OPERATIONS: Mapping[str, Operation] = {
    "ListAttachments": Operation({}, told),
    "LendSecret": Operation({"name": text(model.NAME), "secret": text(model.SECRET)}, lend),
    "ApplyAttachment": Operation({"attachment": _attachment, "before": _attachment_or_none}, apply),
    "DeleteAttachment": Operation(
        {"before": _attachment, "devices": targets(0, 16), "whatever_came": flag}, delete
    ),
}
