"""How much room there is, honestly.

A btrfs has no one number: what still fits depends on where it puts the next byte. So there are two,
at least and at the most. df(1) and what the filesystem itself believes are told beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hostlerd.storage.model.observed import Btrfs, BtrfsAllocation, Device, Mount, Observed, Room

COPIES = {
    "single": 1,
    "dup": 2,
    "raid0": 1,
    "raid1": 2,
    "raid1c3": 3,
    "raid1c4": 4,
    "raid10": 2,
}
"""How often each byte is on the disks. raid5 and raid6 depend on how many disks a stripe has."""


@dataclass(frozen=True, slots=True)
class Space:
    """The room of a filesystem. All sizes in bytes; `free_files` is -1 where nothing limits it."""

    id: str
    """The node of the mount in the graph."""
    mount: str
    type: str
    physical: int
    physical_used: int
    used: int
    ratio: float
    free_least: int
    free_most: int
    df_available: int
    free_files: int


def spaces(seen: Observed) -> tuple[Space, ...]:
    """The room of each mounted filesystem, by where it is mounted."""
    return tuple(sorted(_all(seen), key=lambda one: one.mount))


def _all(seen: Observed) -> Iterator[Space]:
    pools = {device.name: pool for pool in seen.btrfs for device in pool.devices if device.name}
    sizes = {device.name: device for device in seen.devices}
    done: set[str] = set()
    for mount in seen.mounts:
        room = seen.rooms.get(mount.path)
        if room is None or not room.size_bytes:
            continue
        pool = pools.get(mount.source.rpartition("/")[2]) if mount.type == "btrfs" else None
        key = pool.uuid if pool is not None else mount.number
        if key in done:
            continue
        done.add(key)
        yield _btrfs(pool, mount, room, sizes) if pool is not None else _plain(mount, room)


def _plain(mount: Mount, room: Room) -> Space:
    used = room.size_bytes - room.free_bytes
    return Space(
        id=f"mount-{mount.path}",
        mount=mount.path,
        type=mount.type,
        physical=room.size_bytes,
        physical_used=used,
        used=used,
        ratio=1.0,
        free_least=room.available_bytes,
        free_most=room.available_bytes,
        df_available=room.available_bytes,
        free_files=room.free_files if room.files else -1,
    )


def _btrfs(pool: Btrfs, mount: Mount, room: Room, sizes: Mapping[str, Device]) -> Space:
    physical = sum(sizes[one.name].size_bytes for one in pool.devices if one.name in sizes)
    by_kind = {one.kind: one for one in pool.allocations}
    given_out = sum(one.on_disk_total for one in by_kind.values())
    unallocated = max(0, physical - given_out)
    data = [one for one in pool.allocations if one.kind == "data"]
    inside = sum(one.total - one.used for one in data)
    copies = [COPIES.get(one.profile, 1) for one in data] or [1]
    return Space(
        id=f"mount-{mount.path}",
        mount=mount.path,
        type="btrfs",
        physical=physical,
        physical_used=given_out,
        used=sum(one.used for one in data),
        ratio=_ratio(data),
        # Metadata may take what is not given out yet: half of it counts, at the most copies.
        free_least=inside + _usable(unallocated, max(copies), mixed=True),
        free_most=inside + _usable(unallocated, min(copies), mixed=False),
        df_available=room.available_bytes,
        free_files=-1,
    )


def _usable(unallocated: int, copies: int, *, mixed: bool) -> int:
    return unallocated // copies // (2 if mixed else 1)


def _ratio(data: list[BtrfsAllocation]) -> float:
    """Bytes on the disks for each byte stored; 0 where several profiles or parity have no one."""
    profiles = {one.profile for one in data}
    if len(profiles) != 1:
        return 0.0
    return float(COPIES.get(next(iter(profiles)), 0))
