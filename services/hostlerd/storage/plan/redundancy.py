"""Which legs an array, a pool or a volume can do without."""

from __future__ import annotations

import re
from collections.abc import Mapping

from hostlerd.storage.model.array import Copies
from hostlerd.storage.model.graph import Need
from hostlerd.storage.model.observed import Btrfs, MdFacts

_MD_SPARES = {"raid0": 0, "linear": 0, "raid4": 1, "raid5": 1, "raid6": 2}
"""How many of its disks a level can do without; raid1 and raid10 are told by their copies."""
_BTRFS_SPARES = {"raid1": 1, "raid10": 1, "raid1c3": 2, "raid1c4": 3, "raid5": 1, "raid6": 2}
"""The same for a profile, wherever its chunks have come to lie. The others need each device."""
_LVM_IMAGE = re.compile(r"_(?:rimage|rmeta|mimage)_(\d+)$")


def of_md(md: MdFacts, ids: Mapping[str, str]) -> tuple[Need, ...]:
    """What an array needs, of the legs that are in sync. Empty for a level that is not known."""
    legs = {
        one.slot: (ids[one.device],)
        for one in md.members
        if one.slot is not None and one.device in ids and _is_in_sync(one.state)
    }
    if md.level == "raid1":
        return (Need(tuple(legs.values()), 1),)
    if md.level == "raid10":
        sets = Copies.of_layout(md.layout).holders(md.raid_disks)
        return tuple(
            Need(tuple(legs[slot] for slot in sorted(slots) if slot in legs), 1)
            for slots in sorted(sets, key=sorted)
        )
    if md.level in _MD_SPARES:
        return (Need(tuple(legs.values()), md.raid_disks - _MD_SPARES[md.level]),)
    return ()


def _is_in_sync(state: str) -> bool:
    words = state.split(",")
    return "in_sync" in words and "faulty" not in words


def of_btrfs(pool: Btrfs, ids: Mapping[str, str]) -> tuple[Need, ...]:
    """What a btrfs needs, by the weakest of its profiles."""
    spares = min((_BTRFS_SPARES.get(one.profile, 0) for one in pool.allocations), default=0)
    legs = tuple((ids[one.name],) for one in pool.devices if not one.is_missing and one.name in ids)
    return (Need(legs, len(pool.devices) - spares),)


def of_lvm(segment_type: str, lower: Mapping[str, str]) -> tuple[Need, ...]:
    """What a volume needs, of what it lies on: ids by the names of the device mapper.

    A leg is an image with the metadata of its number. Source: lvmraid(7).
    """
    legs: dict[int, tuple[str, ...]] = {}
    for name, node_id in sorted(lower.items()):
        if found := _LVM_IMAGE.search(name):
            number = int(found[1])
            legs[number] = (*legs.get(number, ()), node_id)
    count = max(legs, default=-1) + 1
    if not count:
        return ()
    if segment_type in ("raid1", "mirror"):
        return (Need(tuple(legs.values()), 1),)
    if segment_type.startswith("raid10"):
        # Two copies, side by side.
        pairs = [[legs[n] for n in (at, at + 1) if n in legs] for at in range(0, count, 2)]
        return tuple(Need(tuple(pair), 1) for pair in pairs)
    for level in ("raid4", "raid5", "raid6"):
        if segment_type.startswith(level):
            return (Need(tuple(legs.values()), count - _MD_SPARES[level]),)
    return ()
