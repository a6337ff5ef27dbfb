"""Partition tables: written by sfdisk(8), or byte for byte from a backup; then the kernel is told.

Partitions that stay may be in use. Nothing is written inside of one that is not released.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from hostlerd.privileged import refused
from hostlerd.privileged.grammar import array, flag, one_of, record, text, whole
from hostlerd.storage.model.saved import Region
from hostlerd.storage.model.table import Entry
from hostlerd.storage.model.table_script import script
from hostlerd.storage.model.target import signature_words
from hostlerd.storage.worker import identity, saved, sysfs, tools
from hostlerd.storage.worker.carry import refuse_unless_free
from hostlerd.storage.worker.grammar import read_target, target, targets
from hostlerd.storage.worker.identity import Device
from hostlerd.storage.worker.kernel_partitions import Place, present, tell
from hostlerd.storage.worker.operation import Operation, Request
from hostlerd.storage.worker.refused import Refused
from hostlerd.storage.worker.tools import Tools

_SFDISK = "/usr/sbin/sfdisk"
_SECTORS = (1 << 63) - 1
_MOST_STRUCTURES = 200
_MOST_ENTRIES = 1024
# Half of what a request may have, as each byte is two digits.
_PIECES_BYTES_MOST = 400_000


def change(request: Request, tools_: Tools) -> dict[str, Any]:
    """Write the table by sfdisk; see that it is the one that was asked for."""
    disk, entries = request.device("disk"), _entries(request)
    words = script(
        str(request["kind"]),
        str(request["id"]),
        (int(request["first_sector"]), int(request["slots"])),
        entries,
    )
    with _writing(request) as (fd, kept):
        _erase(request, fd, disk)
        tools_.run(
            (
                *(_SFDISK, "--quiet", "--no-reread", "--no-tell-kernel"),
                *("--wipe", "never", "--wipe-partitions", "never", disk.path),
            ),
            words.encode(),
        )
        _refuse_another_table(disk, entries)
    return _told(request, disk, kept)


def put(request: Request, _: Tools) -> dict[str, Any]:
    """Write the pieces of a backup to their places."""
    disk = request.device("disk")
    pieces = {int(one["offset_bytes"]): bytes.fromhex(one["data"]) for one in request["pieces"]}
    if sum(map(len, pieces.values())) > _PIECES_BYTES_MOST:
        raise Refused("INVALID", f"the pieces have more than {_PIECES_BYTES_MOST} bytes")
    regions = [Region(at, len(piece)) for at, piece in pieces.items()]
    _refuse_inside(request, disk, regions)
    with _writing(request) as (fd, kept):
        _erase(request, fd, disk)
        saved.write(fd, regions, pieces.values())
        request.tools.check()
    return _told(request, disk, kept)


def _entries(request: Request) -> tuple[Entry, ...]:
    return tuple(Entry(**one) for one in request["entries"])


@contextmanager
def _writing(request: Request) -> Iterator[tuple[int, dict[str, str]]]:
    """Open the disk for writing once all that goes is free, and saved; answer under which names.

    The old table is put back if it fails.
    """
    disk = request.device("disk")
    if identity.is_read_only(disk.fd):
        words = f"{disk.target.id} ({disk.target.name}) is read-only"
        raise Refused("DEVICE_READ_ONLY", words, device=disk.target.id)
    _refuse_held(disk)
    regions, pieces = _standing(request, disk)
    kept = _released(request)
    kept[disk.target.id] = request.store.save(disk, request.operation)
    fd = os.open(disk.path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if identity.disk_sequence(fd) != disk.target.disk_sequence:
            raise identity.changed(disk.target, "its disk sequence")
        try:
            yield fd, kept
        except (refused.Refused, OSError):
            request.tools.check()
            saved.write(fd, regions, pieces)
            raise
        os.fsync(fd)
    finally:
        os.close(fd)


def _refuse_held(disk: Device) -> None:
    """Raise Refused if the disk as a whole is part of something, or holds another thing by now."""
    holders = sysfs.names(disk.folder / "holders")
    if holders:
        words = f"{disk.target.id} ({disk.target.name}) is in use: {', '.join(holders)}"
        raise Refused("DEVICE_BUSY", words, device=disk.target.id, used_by=", ".join(holders))
    found = signature_words(tools.signatures(disk.path))
    if found != disk.target.signatures:
        told, planned = (", ".join(w) or "nothing" for w in (found, disk.target.signatures))
        words = f"{disk.target.id} holds {told}, where the plan saw {planned}"
        raise Refused("SIGNATURES_CHANGED", words, device=disk.target.id)


def _standing(request: Request, disk: Device) -> tuple[list[Region], list[bytes]]:
    """Read what the table is made of; raise Refused unless it is what the plan saw."""
    regions, pieces = [], []
    for one in request["standing"]:
        region = Region(int(one["offset_bytes"]), int(one["length_bytes"]))
        piece = os.pread(disk.fd, region.length, region.offset)
        if hashlib.sha256(piece).hexdigest() != one["sha256"]:
            words = f"the table of {disk.target.id} is another one than the plan saw"
            raise Refused("DEVICE_CHANGED", words, device=disk.target.id)
        regions.append(region)
        pieces.append(piece)
    return regions, pieces


def _released(request: Request) -> dict[str, str]:
    """See that nobody uses the partitions that go, and save what tells what they hold."""
    disk, kept = request.device("disk"), {}
    for one in request["released"]:
        with identity.opened(read_target(one)) as device:
            if device.whole != disk.folder or device.folder == disk.folder:
                raise Refused("INVALID", f"{device.target.id} is no partition of the disk")
            refuse_unless_free(device)
            kept[device.target.id] = request.store.save(device, request.operation)
    return kept


def _erase(request: Request, fd: int, disk: Device) -> None:
    """Zero sectors of the old table."""
    size = int(request["sector_bytes"])
    regions = [Region(int(sector) * size, size) for sector in request["erase"]]
    _refuse_inside(request, disk, regions)
    saved.write(fd, regions, (bytes(size) for _ in regions))


def _refuse_inside(request: Request, disk: Device, regions: list[Region]) -> None:
    """Raise Refused for a write that is not to the disk's own sectors."""
    gone = {str(one["number"]) for one in request["released"]}
    there = [one for one in present(disk.folder) if one.device_number not in gone]
    # A kernel that has no partitions of the disk must not make anybody bold.
    there += _places(request)
    for region in regions:
        end = region.offset + region.length
        inside = [
            one
            for one in there
            if not one.is_extended
            and region.offset < one.start_bytes + one.size_bytes
            and one.start_bytes < end
        ]
        if inside or end > disk.target.size_bytes:
            words = f"{region.offset} to {end} is not for the table of {disk.target.id}"
            raise Refused("INVALID", words, device=disk.target.id)


def _refuse_another_table(disk: Device, entries: tuple[Entry, ...]) -> None:
    """Raise Refused unless sfdisk reads the table that it was to write."""
    told = json.loads(tools.probe((_SFDISK, "--json", disk.path)))["partitiontable"]
    found = {
        (int(re.split(r"(\d+)$", one["node"])[1]), one["start"], one["size"])
        for one in told.get("partitions", ())
    }
    wanted = {(one.number, one.start_sector, one.size_sectors) for one in entries}
    if found != wanted:
        words = f"sfdisk has made other partitions: {sorted(found - wanted)}"
        raise Refused("NOT_MADE", words, device=disk.target.id)


def _places(request: Request) -> list[Place]:
    """The partitions that are wanted, in bytes."""
    size = int(request["sector_bytes"])
    return [
        Place(one.number, one.start_sector * size, one.size_sectors * size, one.is_extended)
        for one in _entries(request)
    ]


def _told(request: Request, disk: Device, kept: Mapping[str, str]) -> dict[str, Any]:
    """Tell the kernel; answer why it has other ones, if it does, and what was saved as what."""
    size = int(request["sector_bytes"])
    return {"saved": dict(kept), "kernel": tell(disk, _places(request), size)}


_HEX = text(re.compile(r"(?:[0-9a-f]{2})+"), max_bytes=2 * _PIECES_BYTES_MOST)
_SECTOR = whole(0, _SECTORS)
_ENTRY = record(
    {
        "number": whole(1, _MOST_ENTRIES),
        "start_sector": _SECTOR,
        "size_sectors": whole(1, _SECTORS),
        "type": text(re.compile(r"0x[0-9a-f]{2}|[0-9A-F]{8}(?:-[0-9A-F]{4}){3}-[0-9A-F]{12}")),
        "name": text(re.compile(r"[^\x00-\x1f\x7f]{0,36}")),
        "uuid": text(re.compile(r"(?:[0-9A-F]{8}(?:-[0-9A-F]{4}){3}-[0-9A-F]{12})?")),
        "bootable": flag,
        "attributes": whole(0, (1 << 64) - 1),
    },
    required=(
        *("number", "start_sector", "size_sectors", "type", "name", "uuid", "bootable"),
        "attributes",
    ),
)
_DIGEST = record(
    {
        "offset_bytes": _SECTOR,
        "length_bytes": whole(1, 4 << 20),
        "sha256": text(re.compile(r"[0-9a-f]{64}")),
    },
    required=("offset_bytes", "length_bytes", "sha256"),
)
_PIECE = record({"offset_bytes": _SECTOR, "data": _HEX}, required=("offset_bytes", "data"))
_COMMON: Mapping[str, Callable[..., None]] = {
    "disk": target,
    "released": targets(0, 128),
    "standing": array(_DIGEST, 1, _MOST_STRUCTURES),
    "erase": array(_SECTOR, 0, _MOST_STRUCTURES),
    "sector_bytes": whole(512, 4096),
    "have": array(_ENTRY, 0, _MOST_ENTRIES),
    "entries": array(_ENTRY, 0, _MOST_ENTRIES),
}
OPERATIONS: Mapping[str, Operation] = {
    "ChangeTable": Operation(
        {
            **_COMMON,
            "kind": one_of("gpt", "dos"),
            "id": text(
                re.compile(r"(?:0x[0-9a-f]{8}|[0-9A-F]{8}(?:-[0-9A-F]{4}){3}-[0-9A-F]{12})?")
            ),
            "first_sector": whole(1, 1 << 20),
            "slots": whole(0, _MOST_ENTRIES),
        },
        change,
        uses=("disk",),
    ),
    "PutTable": Operation(
        {**_COMMON, "pieces": array(_PIECE, 1, _MOST_STRUCTURES)}, put, uses=("disk",)
    ),
}
