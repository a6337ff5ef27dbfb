"""Arrays as sysfs shows them; the daemon that plans reads them by this code too.

Source: Linux Documentation/admin-guide/md.rst.
"""

from __future__ import annotations

from pathlib import Path

from hostlerd.storage.model.array import Array, Member, Speed, Sync
from hostlerd.storage.worker.sysfs import SECTOR_BYTES, number, text

_KIB = 1024


def read(folder: Path) -> Array | None:
    """The array in a folder of sysfs, such as /sys/block/md127; None if it is none, or gone."""
    md = folder / "md"
    level = text(md / "level")
    if not md.is_dir():
        return None
    entries = sorted(md.glob("dev-*"))
    return Array(
        name=folder.name,
        uuid=text(md / "uuid"),
        label="",
        level=level,
        state=text(md / "array_state"),
        raid_disks=_leading(md / "raid_disks"),
        degraded=number(md / "degraded"),
        members=tuple(_member(entry) for entry in entries),
        layout=_leading(md / "layout"),
        chunk_bytes=_leading(md / "chunk_size"),
        metadata=text(md / "metadata_version"),
        bitmap=_none_is_empty(text(md / "bitmap/location")),
        component_bytes=_leading(md / "component_size") * _KIB,
        data_offset_bytes=max((number(e / "offset") * SECTOR_BYTES for e in entries), default=0),
        size_bytes=number(folder / "size") * SECTOR_BYTES,
        sync=_sync(md),
        is_reshaping=text(md / "reshape_position") not in ("", "none"),
        speed=Speed(_bound(md / "sync_speed_min"), _bound(md / "sync_speed_max")),
    )


def _member(entry: Path) -> Member:
    slot = text(entry / "slot")
    block = entry / "block"
    try:
        name = block.readlink().name
    except OSError:
        name = entry.name.removeprefix("dev-")
    return Member(
        name=name,
        slot=int(slot) if slot.isdigit() else None,
        states=frozenset(text(entry / "state").split(",")) - {""},
        errors=number(entry / "errors"),
        # The link of a device that was unplugged leads nowhere.
        is_there=block.exists(),
    )


def _sync(md: Path) -> Sync:
    completed = text(md / "sync_completed")
    done, _, total = completed.partition(" / ")
    counted = done.isdigit() and total.isdigit()
    return Sync(
        action=text(md / "sync_action") or "idle",
        done_bytes=int(done) * SECTOR_BYTES if counted else 0,
        total_bytes=int(total) * SECTOR_BYTES if counted else 0,
        rate_bytes_per_second=number(md / "sync_speed") * _KIB,
        mismatch_sectors=number(md / "mismatch_cnt"),
        is_delayed=completed == "delayed",
    )


def _leading(path: Path) -> int:
    """The first number of a file: while a reshape goes on, the one before stands behind it."""
    first = text(path).partition(" ")[0]
    return int(first) if first.isdigit() else 0


def _bound(path: Path) -> int | None:
    words = text(path).split(" ")
    return int(words[0]) if len(words) == 2 and words[1] == "(local)" else None


def _none_is_empty(words: str) -> str:
    return "" if words == "none" else words
