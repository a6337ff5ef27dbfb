"""Groups and volumes of LVM, read from the descriptions on their physical volumes.

LVM's own tool opens devices with O_NOATIME, which takes the rights of their owner: this daemon may
read them and no more. What lies there is text. Source: LVM2 lib/format_text/layout.h, and
lvm2's doc/lvm2-raid.txt for what segments name.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from hostlerd.storage.errors import ToolFailed
from hostlerd.storage.kernel.lvm_text import parse
from hostlerd.storage.kernel.tool import run_for_bytes
from hostlerd.storage.model.observed import Device, LogicalVolume, Unseen, VolumeGroup

T = TypeVar("T", int, str, dict[str, Any], list[Any])
Lvm = tuple[tuple[VolumeGroup, ...], tuple[LogicalVolume, ...], list[Unseen]]

_AT_ONCE, _TIMEOUT_S = 8, 5.0
# The label, and the area that pvcreate(8) makes unless it is told otherwise: up to 1 MiB.
_HEAD_BYTES = 2 << 20
_SECTOR_BYTES, _LABEL_SECTORS = 512, 4
_LABEL = struct.Struct("<8sQII8s")
_AREA = struct.Struct("<QQ")
_PLACE = struct.Struct("<4x16sIQQQQII")
_MAGIC = b" LVM2 x[5A%r0N*>"
_FIRST_TEXT = 512
"""The text is a ring; its header takes the first sector of the area."""


@dataclass(frozen=True, slots=True)
class Described:
    """A group as one of its physical volumes tells of it."""

    uuid: str
    name: str
    seqno: int
    size_bytes: int
    free_bytes: int
    carriers: tuple[str, ...]
    """The UUIDs of all its physical volumes."""
    volumes: tuple[LogicalVolume, ...]


Found = tuple[str, tuple[Described, ...]]
"""The UUID of a physical volume, and the group that it is in, if any."""


def look(devices: Iterable[Device]) -> Lvm:
    """What the physical volumes say, and what could not be read."""
    members = [one for one in devices if any(s.type == "LVM2_member" for s in one.signatures)]
    said: dict[str, Found] = {}
    unseen: list[Unseen] = []
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="lvm") as pool:
        for device, answer in zip(members, pool.map(_ask, members), strict=True):
            if isinstance(answer, Unseen):
                unseen.append(answer)
            else:
                said[device.name] = answer
    groups, volumes = together(said)
    return groups, volumes, unseen


def _ask(device: Device) -> Found | Unseen:
    path = str(Path("/dev") / device.name.replace("!", "/"))
    argv = ("/usr/bin/head", "-c", str(_HEAD_BYTES), path)
    try:
        return description(run_for_bytes(argv, _TIMEOUT_S))
    except (ToolFailed, ValueError) as e:
        return Unseen("LVM_UNREADABLE", device.name, f"LVM's description on {device.name}: {e}")


def description(head: bytes) -> Found:
    """Read the beginning of a physical volume; one in no group tells of none. Raises ValueError."""
    for sector in range(_LABEL_SECTORS):
        at = sector * _SECTOR_BYTES
        if head[at : at + 8] == b"LABELONE" and len(head) >= at + _SECTOR_BYTES:
            break
    else:
        raise ValueError("no label")
    _, _, _, offset, kind = _LABEL.unpack_from(head, at)
    if kind != b"LVM2 001" or offset > _SECTOR_BYTES - 72:
        raise ValueError("not a label of LVM2")
    uuid = _dashed(head[at + offset : at + offset + 32].decode("ascii", "replace"))
    areas = _areas(head[at + offset + 40 : at + _SECTOR_BYTES])
    for start, size in areas:
        text = _text(head, start, size)
        if text:
            tables = parse(text).items()
            return uuid, tuple(
                described(name, each)
                for name, each in tables
                if isinstance(each, dict) and "physical_volumes" in each
            )
    return uuid, ()


def _areas(listed: bytes) -> list[tuple[int, int]]:
    """The second of two lists that end with zeroes: where descriptions are."""
    lists: list[list[tuple[int, int]]] = [[], []]
    which = 0
    for at in range(0, len(listed) - _AREA.size, _AREA.size):
        start, size = _AREA.unpack_from(listed, at)
        if start:
            lists[which].append((start, size))
        elif which:
            break
        else:
            which = 1
    return lists[1]


def _text(head: bytes, start: int, size: int) -> str:
    """The description in an area that begins within `head`; empty if it has none."""
    if start + _PLACE.size > len(head):
        return ""
    magic, _, _, _, offset, length, _, _ = _PLACE.unpack_from(head, start)
    if magic != _MAGIC:
        raise ValueError("the area has no header")
    if not offset:
        return ""
    if start + size > len(head) or not _FIRST_TEXT <= offset < size or length > size:
        raise ValueError("the description lies beyond what is read")
    ring = head[start : start + size]
    text = ring[offset : offset + length]
    # What does not fit before the end goes on behind the header.
    text += ring[_FIRST_TEXT : _FIRST_TEXT + length - len(text)]
    return text.rstrip(b"\0").decode("utf-8", "replace")


def _dashed(uuid: str) -> str:
    """As LVM shows it: 6-4-4-4-4-4-6."""
    cuts = (0, 6, 10, 14, 18, 22, 26, 32)
    return "-".join(uuid[a:b] for a, b in pairwise(cuts))


def together(
    said: Mapping[str, Found],
) -> tuple[tuple[VolumeGroup, ...], tuple[LogicalVolume, ...]]:
    """Groups and volumes by the newest description of each; `said` is by name of device."""
    newest: dict[str, Described] = {}
    for _, groups in said.values():
        for each in groups:
            before = newest.get(each.uuid)
            if before is None or before.seqno < each.seqno:
                newest[each.uuid] = each
    here = {uuid: name for name, (uuid, _) in said.items()}
    volumes = tuple(volume for each in newest.values() for volume in each.volumes)
    return tuple(_group(each, here) for each in newest.values()), volumes


def _group(told: Described, here: Mapping[str, str]) -> VolumeGroup:
    names = tuple(here[each] for each in told.carriers if each in here)
    return VolumeGroup(
        uuid=told.uuid,
        name=told.name,
        size_bytes=told.size_bytes,
        free_bytes=told.free_bytes,
        devices=names,
        missing=len(told.carriers) - len(names),
    )


def described(name: str, group: Mapping[str, Any]) -> Described:
    """Take from the tables of a group what is told of it. Raises ValueError."""
    carriers = _tables(_of(group, "physical_volumes", dict))
    volumes = _tables(group.get("logical_volumes", {}))
    extent_bytes = _of(group, "extent_size", int) * _SECTOR_BYTES
    count = sum(_of(each, "pe_count", int) for each in carriers.values())
    taken = sum(
        _of(segment, "extent_count", int)
        for volume in volumes.values()
        for segment in _segments(volume)
        if _is_on(segment, carriers)
    )
    uuid, origins = _of(group, "id", str), _origins(volumes)
    return Described(
        uuid=uuid,
        name=name,
        seqno=_of(group, "seqno", int),
        size_bytes=count * extent_bytes,
        free_bytes=(count - taken) * extent_bytes,
        carriers=tuple(_of(each, "id", str) for each in carriers.values()),
        # What a volume is made of is not visible, and not told.
        volumes=tuple(
            replace(_volume(each, volume, uuid, extent_bytes), origin=origins.get(each, ""))
            for each, volume in volumes.items()
            if "VISIBLE" in _of(volume, "status", list)
        ),
    )


def _volume(name: str, volume: Mapping[str, Any], group: str, extent_bytes: int) -> LogicalVolume:
    segments = _segments(volume)
    kind = _of(segments[0], "type", str) if segments else ""
    is_linear = kind == "striped" and segments[0].get("stripe_count") == 1
    return LogicalVolume(
        uuid=_of(volume, "id", str),
        group=group,
        name=name,
        size_bytes=sum(_of(each, "extent_count", int) for each in segments) * extent_bytes,
        segment_type="linear" if is_linear else kind,
    )


def _origins(volumes: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Of which volume each snapshot is one: a hidden volume says so, of a thin one it itself."""
    found: dict[str, str] = {}
    for name, volume in volumes.items():
        for segment in _segments(volume):
            snapshot = segment.get("cow_store", name)
            if isinstance(snapshot, str) and isinstance(segment.get("origin"), str):
                found[snapshot] = segment["origin"]
    return found


def _is_on(segment: Mapping[str, Any], carriers: Mapping[str, Any]) -> bool:
    """Whether it lies on physical volumes, not on other volumes."""
    stripes = segment.get("stripes")
    return isinstance(stripes, list) and any(each in carriers for each in stripes)


def _segments(volume: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [each for each in volume.values() if isinstance(each, dict) and "extent_count" in each]


def _tables(table: Any) -> dict[str, dict[str, Any]]:
    if not isinstance(table, dict) or not all(isinstance(each, dict) for each in table.values()):
        raise ValueError("a section is missing")
    return table


def _of(table: Mapping[str, Any], key: str, kind: type[T]) -> T:
    value = table.get(key)
    if not isinstance(value, kind):
        raise ValueError(f"{key} is missing")
    return value
