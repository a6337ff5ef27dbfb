"""What is enciphered: opened, closed, its header kept.

The key is a file of root's. cryptsetup is given the very file that was looked at, by its
descriptor; nothing of what is in it is read here, told or logged.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hostlerd.privileged.grammar import flag, text
from hostlerd.storage.model.luks import (
    CREDENTIAL,
    FIRST_BYTES,
    NAME,
    PATH,
    SIGNATURE,
    UUID,
    device_uuid,
    header_bytes,
)
from hostlerd.storage.worker import sysfs, tools, use
from hostlerd.storage.worker.grammar import target
from hostlerd.storage.worker.identity import Device
from hostlerd.storage.worker.operation import Operation, Request
from hostlerd.storage.worker.refused import Refused
from hostlerd.storage.worker.tools import Tools

_CRYPTSETUP = "/usr/sbin/cryptsetup"
_CREDENTIALS = (Path("/etc/credstore"), Path("/run/credstore"))
_KEY_BYTES_MOST = 8 << 20
_WRONG_KEY = 2


def open_(request: Request, tools_: Tools) -> dict[str, Any]:
    """Open it; nothing if it is open under that name."""
    device, name = _proven(request), str(request["name"])
    if _opened(device, request) is not None:
        return {"name": name}
    use.refuse_if_used(device, tools.probe)
    path = str(request["key_file"]) or _credential(str(request["credential"]))
    with _key(path) as key:
        words = ["open", "--type", "luks", "--batch-mode", "--disable-keyring", "--tries", "1"]
        words += ["--readonly"] if request["is_read_only"] else []
        argv = (_CRYPTSETUP, *words, "--key-file", key, device.path, name)
        answer = tools_.run(argv, good=(0, _WRONG_KEY))
    if answer.status == _WRONG_KEY:
        words_ = f"what is in {path} opens no keyslot of {device.target.id}"
        raise Refused("LUKS_KEY_WRONG", words_, device=device.target.id)
    if _opened(device, request) is None:
        raise Refused("NOT_MADE", f"no {name} is to be seen", device=device.target.id)
    return {"name": name}


def close(request: Request, tools_: Tools) -> dict[str, Any]:
    """Close it; the kernel refuses while anybody has it open."""
    device = _proven(request)
    upper = _opened(device, request)
    if upper is None:
        return {}
    held = [f"{one} is built on it" for one in sysfs.names(sysfs.BLOCK / upper / "holders")]
    if held:
        words = f"{request['name']} is in use: {', '.join(held)}"
        raise Refused("DEVICE_BUSY", words, device=device.target.id, used_by=", ".join(held))
    tools_.run((_CRYPTSETUP, "close", str(request["name"])))
    return {}


def backup(request: Request, _: Tools) -> dict[str, Any]:
    """Keep the header; it may be open meanwhile."""
    device = _proven(request)
    try:
        length = header_bytes(os.pread(device.fd, FIRST_BYTES, 0))
    except (ValueError, OSError) as e:
        words = f"{device.target.id}: {e}"
        raise Refused("LUKS_HEADER_DAMAGED", words, device=device.target.id) from None
    kept = request.store.save(device, request.operation, ((0, length),))
    return {"saved": {device.target.id: kept}, "header_bytes": length}


def _proven(request: Request) -> Device:
    """The device, with that very LUKS on it. Raises Refused."""
    device = request.device("device")
    wanted = f"{SIGNATURE} {request['uuid']}"
    found = [f"{one.type} {one.uuid}" for one in tools.signatures(device.path)]
    if wanted not in found:
        raise Refused(
            "SIGNATURES_CHANGED",
            f"{device.target.id} holds {', '.join(found) or 'nothing'} now, and not {wanted}",
            device=device.target.id,
        )
    return device


def _opened(device: Device, request: Request) -> str | None:
    """What the kernel calls the device that it is in the clear, under the name; None if none."""
    wanted = device_uuid(str(request["uuid"]), str(request["name"]))
    for holder in sysfs.names(device.folder / "holders"):
        if wanted.fullmatch(sysfs.text(sysfs.BLOCK / holder / "dm/uuid")):
            return holder
    return None


def _credential(name: str) -> str:
    for folder in _CREDENTIALS:
        if (folder / name).exists():
            return str(folder / name)
    told = " or ".join(map(str, _CREDENTIALS))
    raise Refused("SECRET_UNUSABLE", f"there is no {name} in {told}", field="credential")


@contextmanager
def _key(path: str) -> Iterator[str]:
    """A path at which another program of root's finds that very file. Raises Refused."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as e:
        raise _unusable(path, str(e.strerror)) from None
    try:
        seen = os.fstat(fd)
        if not stat.S_ISREG(seen.st_mode) or seen.st_uid != 0 or seen.st_mode & 0o077:
            raise _unusable(path, "is to be a file of root's that nobody else may open")
        if not 0 < seen.st_size <= _KEY_BYTES_MOST:
            raise _unusable(path, f"is to have 1 to {_KEY_BYTES_MOST} bytes")
        yield f"/proc/{os.getpid()}/fd/{fd}"
    finally:
        os.close(fd)


def _unusable(path: str, why: str) -> Refused:
    return Refused("SECRET_UNUSABLE", f"{path}: {why}", field="key_file", path=path)


_LUKS: Mapping[str, Any] = {"device": target, "uuid": text(UUID)}
_NAMED: Mapping[str, Any] = {**_LUKS, "name": text(NAME)}

OPERATIONS: Mapping[str, Operation] = {
    "OpenLuks": Operation(
        {
            **_NAMED,
            "key_file": text(re.compile(f"|{PATH.pattern}")),
            "credential": text(re.compile(f"|{CREDENTIAL.pattern}")),
            "is_read_only": flag,
        },
        open_,
        uses=("device",),
    ),
    "CloseLuks": Operation(_NAMED, close, uses=("device",)),
    "BackupLuksHeader": Operation(_LUKS, backup, uses=("device",)),
}
