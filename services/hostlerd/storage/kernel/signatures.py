"""What lies on devices, by its magic bytes: asked of blkid(8), one process for each device.

A device that does not answer holds up its own process and no other.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hostlerd.storage.errors import ToolFailed
from hostlerd.storage.kernel.tool import run
from hostlerd.storage.model import blkid
from hostlerd.storage.model.observed import Device, Signature, Unseen

_AT_ONCE = 8
_TIMEOUT_S = 5.0
_WIPEFS = "/usr/sbin/wipefs"
_TABLES = frozenset(("gpt", "dos", "PMBR", "bsd", "sun", "sgi", "mac", "atari", "ultrix"))


def of_devices(
    devices: Iterable[Device],
) -> tuple[Mapping[str, tuple[Signature, ...]], list[Unseen]]:
    """The signatures on each device, by its name, and what could not be read."""
    asked = [device for device in devices if device.size_bytes and not _is_empty_drive(device)]
    found: dict[str, tuple[Signature, ...]] = {}
    unseen: list[Unseen] = []
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="blkid") as pool:
        for device, answer in zip(asked, pool.map(_ask, asked), strict=True):
            if isinstance(answer, Unseen):
                unseen.append(answer)
                if answer.code == "SIGNATURES_AMBIVALENT":
                    found[device.name] = (blkid.CONTRADICTION,)
            else:
                found[device.name] = answer
    return found, unseen


def again(device: Device) -> tuple[Signature, ...] | None:
    """What lies on one device now; None if it does not answer."""
    answer = _ask(device)
    if isinstance(answer, Unseen):
        return (blkid.CONTRADICTION,) if answer.code == "SIGNATURES_AMBIVALENT" else None
    return answer


def _is_empty_drive(device: Device) -> bool:
    return device.name.startswith(("sr", "fd")) and device.size_bytes <= 1 << 30


def _ask(device: Device) -> tuple[Signature, ...] | Unseen:
    path = Path("/dev") / device.name.replace("!", "/")
    if not path.is_block_device():
        return Unseen("NO_DEVICE_NODE", device.name, f"{path} is no device here")
    try:
        answer = run(blkid.argv(str(path)), _TIMEOUT_S)
    except ToolFailed as e:
        return Unseen("DEVICE_UNREADABLE", device.name, str(e))
    if answer.status == blkid.AMBIVALENT:
        return _ask_for_all(device, path)
    if answer.status not in (0, blkid.NOTHING_FOUND):
        words = answer.errors.strip() or f"blkid ended with status {answer.status}"
        return Unseen("DEVICE_UNREADABLE", device.name, words)
    return blkid.parse(answer.output)


def _ask_for_all(device: Device, path: Path) -> tuple[Signature, ...] | Unseen:
    """All signatures, where blkid cannot choose among them. Without --all, wipefs only reads."""
    try:
        answer = run((_WIPEFS, "--no-act", "--json", str(path)), _TIMEOUT_S)
        found = parse_wipefs(answer.output)
    except (ToolFailed, ValueError, KeyError) as e:
        return Unseen("SIGNATURES_AMBIVALENT", device.name, f"signatures contradict: {e}")
    return (*found, blkid.CONTRADICTION)


def parse_wipefs(said: str) -> tuple[Signature, ...]:
    """Read what wipefs says, each kind once. Raises ValueError, KeyError."""
    rows = json.loads(said)["signatures"]
    found = {
        (row["type"], row["uuid"]): Signature(
            row["type"], _usage(row["type"]), row["uuid"] or "", row["label"] or ""
        )
        for row in rows
    }
    return tuple(found.values())


def _usage(kind: str) -> str:
    """What wipefs does not say. Source: libblkid's lists of superblocks and partition tables."""
    if kind.endswith("_member"):
        return "raid" if kind != "zfs_member" else "filesystem"
    if kind in _TABLES:
        return "partition-table"
    if kind.startswith("crypto_"):
        return "crypto"
    return "other" if kind in ("swap", "swsuspend") else "filesystem"
