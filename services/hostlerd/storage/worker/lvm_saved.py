"""Descriptions of groups, kept before each change: the newest of all, in a number that is bounded.

Each is a text of vgcfgbackup(8), which vgcfgrestore(8) takes.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path

from hostlerd.storage.model.lvm import Group
from hostlerd.storage.model.saved import ID
from hostlerd.storage.worker import lvm_tool
from hostlerd.storage.worker.identity import Device
from hostlerd.storage.worker.refused import Refused
from hostlerd.storage.worker.saved import Store, name_of
from hostlerd.storage.worker.tools import Tools

MOST_KEPT = 256
_HEAD_BYTES_MOST = 64 << 10
_FACT = re.compile(r'^\t(id|seqno) = "?([^"\n]+)"?$', re.MULTILINE)
_NAME = re.compile(r"^([A-Za-z0-9+_.][A-Za-z0-9+_.-]*) \{$", re.MULTILINE)


def folder(store: Store) -> Path:
    """Where they are kept, beside what was saved of devices."""
    return store.backups.with_name("lvm")


def keep(store: Store, devices: Sequence[Device], group: Group, tools_: Tools) -> str:
    """Keep a group's description as it is now; answer its name. Raises Refused, OSError."""
    place = folder(store)
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    for old in _names(place)[: 1 - MOST_KEPT]:
        (place / old).unlink()
    name = name_of(time.time_ns())
    words = ("--file", str(place / name), group.name)
    tools_.run(lvm_tool.argv("vgcfgbackup", devices, *words))
    return name


def told(store: Store) -> list[dict[str, object]]:
    """All that are kept, the newest first."""
    found = []
    place = folder(store)
    for name in reversed(_names(place)):
        try:
            with (place / name).open("rb") as file:
                head = file.read(_HEAD_BYTES_MOST).decode("utf-8", "replace")
        except OSError:
            continue
        facts, group = dict(reversed(_FACT.findall(head))), _NAME.search(head)
        if group is None or not facts.get("seqno", "").isdigit():
            # One that is damaged must not hide the others.
            continue
        found.append(
            {
                "id": name,
                "group": group[1],
                "uuid": facts.get("id", ""),
                "seqno": int(facts["seqno"]),
                "unix_s": int((place / name).stat().st_mtime),
            }
        )
    return found


def path(store: Store, name: str, group: Group) -> Path:
    """Where a description of a group is kept. Raises Refused."""
    for one in told(store):
        if one["id"] == name:
            if one["uuid"] != group.uuid:
                words = f"that was kept of group {one['group']} ({one['uuid']})"
                raise Refused("SAVED_OF_ANOTHER_DEVICE", words, group=group.uuid)
            return folder(store) / name
    raise Refused("SAVED_NOT_FOUND", "nothing is kept under that name", saved=name)


def _names(place: Path) -> list[str]:
    try:
        return sorted(p.name for p in place.iterdir() if ID.fullmatch(p.name))
    except FileNotFoundError:
        return []
