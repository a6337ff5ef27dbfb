"""Block devices as sysfs shows them.

Source: Linux Documentation/ABI/stable/sysfs-block, Documentation/admin-guide/md.rst.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from hostlerd.storage.model.observed import (
    Device,
    IscsiFacts,
    MdFacts,
    MdMember,
    PartitionFacts,
)
from hostlerd.storage.worker.sysfs import (
    BLOCK,
    SECTOR_BYTES,
    bay,
    exported,
    names,
    number,
    serial,
    text,
    udev,
    whole_disk,
    wwn,
)

_ISCSI = Path("/sys/class")
_PCI_FUNCTION = re.compile(r"/([0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])(?=/)")
_SESSION = re.compile(r"/session(\d+)/")


def devices() -> tuple[Device, ...]:
    """All block devices that have a size, or something in them, in the order of their names."""
    found, away = [], exported()
    for entry in sorted(BLOCK.iterdir()):
        device = _device(entry, away)
        if device is not None and (device.size_bytes or device.backing_file):
            found.append(device)
    return tuple(found)


def _device(entry: Path, away: Mapping[str, str]) -> Device | None:
    # A partition lies in the folder of its disk.
    try:
        folder = entry.resolve(strict=True)
    except OSError:
        return None
    number_of = text(folder / "dev")
    if not number_of or text(folder / "hidden") == "1":
        return None
    known = udev(number_of)
    partition = _partition(folder, known)
    whole = whole_disk(folder)
    queue, device, bay_of = whole / "queue", whole / "device", bay(whole)
    return Device(
        name=entry.name,
        number=number_of,
        size_bytes=number(folder / "size") * SECTOR_BYTES,
        logical_sector_bytes=number(queue / "logical_block_size"),
        physical_sector_bytes=number(queue / "physical_block_size"),
        is_read_only=text(folder / "ro") == "1",
        is_removable=text(whole / "removable") == "1",
        is_rotational=text(queue / "rotational") == "1",
        disk_sequence=number(whole / "diskseq"),
        transport=_transport(whole, known),
        model=text(device / "model") or known.get("ID_MODEL", ""),
        serial=serial(whole, known),
        wwn=wwn(whole, known),
        slot=known.get("ID_PATH", "") if partition is None else "",
        controller=_controller(whole),
        enclosure=bay_of.parent.name if bay_of is not None else "",
        bay=bay_of.name if bay_of is not None else "",
        state=text(device / "state"),
        partition=partition,
        backing_file=text(folder / "loop/backing_file"),
        dm_name=text(folder / "dm/name"),
        dm_uuid=text(folder / "dm/uuid"),
        md=md(folder),
        iscsi=iscsi(str(whole)),
        exported=away.get(number_of, ""),
        lower=names(folder / "slaves"),
        links=_links(known),
    )


def _partition(folder: Path, known: Mapping[str, str]) -> PartitionFacts | None:
    if not (folder / "partition").exists():
        return None
    return PartitionFacts(
        of=folder.parent.name,
        number=number(folder / "partition"),
        start_sector=number(folder / "start"),
        uuid=known.get("ID_PART_ENTRY_UUID", ""),
    )


def _links(known: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(link for link in known["links"].split("\n") if link)


def _transport(whole: Path, known: Mapping[str, str]) -> str:
    path = str(whole)
    for part, word in (
        ("/nvme", "nvme"),
        ("/usb", "usb"),
        ("/session", "iscsi"),
        ("/virtio", "virtio"),
        ("/mmc_host", "mmc"),
        ("/sas_", "sas"),
        ("/ata", "sata"),
    ):
        if part in path:
            return word
    return known.get("ID_BUS", "")


def _controller(whole: Path) -> str:
    """The last PCI function above a disk; of an NVMe disk that is the disk's own."""
    found = _PCI_FUNCTION.findall(str(whole))
    return found[-1] if found else ""


def iscsi(path: str, classes: Path = _ISCSI) -> IscsiFacts | None:
    """The session that a disk comes by; None for a disk of this host."""
    found = _SESSION.search(path)
    if found is None:
        return None
    session = classes / "iscsi_session" / f"session{found[1]}"
    connection = classes / "iscsi_connection" / f"connection{found[1]}:0"
    address, port = text(connection / "persistent_address"), text(connection / "persistent_port")
    return IscsiFacts(
        target=text(session / "targetname"),
        portal=f"[{address}]:{port}" if ":" in address else f"{address}:{port}",
        state=text(session / "state"),
    )


def md(folder: Path) -> MdFacts | None:
    """What md says of an array; None of what is none."""
    place = folder / "md"
    if not place.is_dir():
        return None
    done, _, total = text(place / "sync_completed").partition(" / ")
    return MdFacts(
        level=text(place / "level"),
        array_state=text(place / "array_state"),
        raid_disks=int(text(place / "raid_disks").split(" ")[0] or 0),
        degraded=number(place / "degraded"),
        sync_action=text(place / "sync_action"),
        sync_done_sectors=int(done) if done.isdigit() else 0,
        sync_total_sectors=int(total) if total.isdigit() else 0,
        mismatch_count=number(place / "mismatch_cnt"),
        uuid=text(place / "uuid"),
        members=tuple(_member(entry) for entry in sorted(place.glob("dev-*"))),
        layout=number(place / "layout"),
    )


def _member(entry: Path) -> MdMember:
    slot = text(entry / "slot")
    try:
        device = (entry / "block").readlink().name
    except OSError:
        device = entry.name.removeprefix("dev-")
    return MdMember(
        device=os.fsdecode(device),
        state=text(entry / "state"),
        slot=int(slot) if slot.isdigit() else None,
        errors=number(entry / "errors"),
    )
