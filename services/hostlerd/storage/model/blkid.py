"""What blkid(8) says of one device. The daemon that plans and the worker that checks read it alike.

Source: blkid(8), `-p -o udev`.
"""

from __future__ import annotations

import shlex

from hostlerd.storage.model.observed import Signature

BLKID = "/usr/sbin/blkid"
NOTHING_FOUND = 2
AMBIVALENT = 8
"""Exit statuses beside 0."""
CONTRADICTION = Signature("ambivalent", "other")
"""What stands for signatures that contradict each other."""
_USAGES = {
    "filesystem": "filesystem",
    "raid": "raid",
    "crypto": "crypto",
    "other": "other",
}


def argv(path: str) -> tuple[str, ...]:
    """The command that probes a device itself, not a cache."""
    return BLKID, "-p", "-o", "udev", path


def parse(said: str) -> tuple[Signature, ...]:
    """Read what blkid says: what is on the device, and which partition table it has."""
    fields: dict[str, str] = {}
    for line in said.splitlines():
        key, equals, value = line.partition("=")
        if equals:
            fields[key] = _unquoted(value)
    found = []
    if kind := fields.get("ID_FS_TYPE", ""):
        found.append(
            Signature(
                kind,
                _USAGES.get(fields.get("ID_FS_USAGE", ""), "other"),
                fields.get("ID_FS_UUID", ""),
                _decoded(fields.get("ID_FS_LABEL_ENC", "")),
            )
        )
    if kind := fields.get("ID_PART_TABLE_TYPE", ""):
        uuid = fields.get("ID_PART_TABLE_UUID", "")
        found.append(Signature(kind, "partition-table", uuid))
    return tuple(found)


def _unquoted(value: str) -> str:
    if value[:1] not in "'\"":
        return value
    try:
        return "".join(shlex.split(value))
    except ValueError:
        return value


def _decoded(value: str) -> str:
    r"""Undo the encoding of udev: bytes that are not plain stand as \x20. Source: libblkid."""
    raw = bytearray()
    at = 0
    while at < len(value):
        if value.startswith("\\x", at) and len(value) >= at + 4:
            try:
                raw.append(int(value[at + 2 : at + 4], 16))
            except ValueError:
                pass
            else:
                at += 4
                continue
        raw += value[at].encode()
        at += 1
    return raw.decode("utf-8", "replace")
