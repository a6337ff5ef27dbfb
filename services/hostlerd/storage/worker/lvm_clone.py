"""A thin volume made of a template, grown, with an identity of its own; removed if that fails."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from hostlerd.privileged.grammar import text, whole
from hostlerd.privileged.refused import Refused as PrivilegedRefused
from hostlerd.storage.model.lvm import EXTENTS_MOST, HOSTNAME, NAME, UUID, mapped_name
from hostlerd.storage.worker import clone_identity, lvm_saved, lvm_tool, tools
from hostlerd.storage.worker.grammar import targets
from hostlerd.storage.worker.lvm_look import proven, refuse_name, volume
from hostlerd.storage.worker.operation import Operation, Request
from hostlerd.storage.worker.refused import Refused
from hostlerd.storage.worker.tools import Tools

_CHECK_TIMEOUT_S = 3600.0
_CORRECTED = (0, 1)


def clone(request: Request, tools_: Tools) -> dict[str, Any]:
    """Make a clone; what was made of it is removed again if anything of it fails."""
    group, devices = proven(request), request.devices["devices"]
    template, name = volume(request, group), str(request["name"])
    refuse_name(group, name)
    kept = lvm_saved.keep(request.store, devices, group, tools_)
    # Of a thin volume, too, LVM asks for it.
    lvm_tool.load("snapshot")
    words = ("--snapshot", "--setactivationskip", "n", "--name", name)
    argv = lvm_tool.argv("lvcreate", devices, *words, f"{group.name}/{template.name}")
    tools_.run(argv)
    try:
        more = request["extents"] * group.extent_bytes > template.size_bytes
        if more:
            size = ("--extents", str(request["extents"]))
            tools_.run(lvm_tool.argv("lvextend", devices, *size, f"{group.name}/{name}"))
        done = _made_its_own(f"/dev/mapper/{mapped_name(group.name, name)}", request, more, tools_)
    except (PrivilegedRefused, OSError):
        with suppress(PrivilegedRefused, OSError):
            argv = lvm_tool.argv("lvremove", devices, "--yes", f"{group.name}/{name}")
            tools_.run(argv)
        raise
    return {"kept": kept, "reset": done}


def _made_its_own(path: str, request: Request, more: bool, tools_: Tools) -> list[str]:
    """Check and grow the file system, draw it a UUID, and reset what says which host it is."""
    before = _uuid(path)
    # Of one that was in use, the journal is played back first.
    check = ("/usr/sbin/e2fsck", "-f", "-p", path)
    tools_.run(check, timeout_s=_CHECK_TIMEOUT_S, good=_CORRECTED)
    tools_.run(("/usr/sbin/tune2fs", "-U", "random", path))
    if more:
        tools_.run(("/usr/sbin/resize2fs", path), timeout_s=_CHECK_TIMEOUT_S)
    uuids = (before, _uuid(path))
    return clone_identity.reset(path, str(request["hostname"]), uuids, tools_)


def _uuid(path: str) -> str:
    for one in tools.signatures(path):
        if one.type == "ext4":
            return one.uuid
    raise Refused("NOT_A_SYSTEM", "the template holds no ext4")


OPERATIONS: Mapping[str, Operation] = {
    "CloneVolume": Operation(
        {
            "group": text(NAME),
            "uuid": text(UUID),
            "seqno": whole(0, 1 << 32),
            "missing": whole(0, 256),
            "devices": targets(1, 256),
            "volume": text(NAME),
            "volume_uuid": text(UUID),
            "name": text(NAME),
            "extents": whole(1, EXTENTS_MOST),
            "hostname": text(HOSTNAME),
        },
        clone,
        uses=("devices",),
    ),
}
