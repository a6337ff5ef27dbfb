"""Filesystems and swap areas: which there are, and what each of them takes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

MIB = 1 << 20
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
VOLUME_ID = re.compile(r"[0-9A-F]{4}-[0-9A-F]{4}")
# What no label may have: control characters, and what would end a line of fstab or a link of udev.
LABEL = re.compile(r"[^\x00-\x1f\x7f/]*")
VFAT_LABEL = re.compile(r"[A-Z0-9 !#$%&'()@^_`{}~-]*")
#: What is left of a device beyond a filesystem's end and is no reason to grow it: less than one
#: group of blocks makes, with what ext4 needs to describe the group.
GROW_LEAST_BYTES = 4 * MIB


@dataclass(frozen=True, slots=True)
class Kind:
    """What one type of filesystem takes. `least_bytes` is the smallest device."""

    label_bytes_most: int
    least_bytes: int
    uuid: re.Pattern[str] = UUID
    label: re.Pattern[str] = LABEL
    grows: bool = False
    grows_unmounted: bool = False
    labels_in_use: bool = False


#: Source: mkfs.ext4(8), mkfs.btrfs(8), mkfs.xfs(8), mkfs.fat(8), mkswap(8), of Debian 12.
KINDS: Mapping[str, Kind] = {
    "ext4": Kind(16, 2 * MIB, grows=True, grows_unmounted=True, labels_in_use=True),
    "btrfs": Kind(255, 109 * MIB, grows=True, labels_in_use=True),
    "xfs": Kind(12, 300 * MIB, grows=True, labels_in_use=True),
    "vfat": Kind(11, 1 * MIB, uuid=VOLUME_ID, label=VFAT_LABEL),
    "swap": Kind(15, 1 * MIB),
}


def label_fault(kind: str, label: str) -> str:
    """Say why a filesystem of this kind cannot have that label; empty if it can."""
    takes = KINDS[kind]
    if len(label.encode(errors="replace")) > takes.label_bytes_most:
        return f"a label of {kind} has at most {takes.label_bytes_most} bytes"
    if not takes.label.fullmatch(label) or label.strip() != label:
        return f"has characters that a label of {kind} cannot have"
    return ""


def uuid_fault(kind: str, uuid: str) -> str:
    """Say why a filesystem of this kind cannot have that UUID; empty if it can, or it is empty."""
    if uuid and not KINDS[kind].uuid.fullmatch(uuid):
        shape = "1234-ABCD" if kind == "vfat" else "what uuidgen(1) makes, in lower case"
        return f"must be such as {shape}"
    return ""
