"""Arrays of md: what the kernel has of them, and following what it does to one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from hostlerd.storage.errors import ArrayNotFound
from hostlerd.storage.model.array import MEMBER_SIGNATURE, Array, Sync
from hostlerd.storage.model.observed import Device, Observed
from hostlerd.storage.worker import md_look
from hostlerd.storage.worker.sysfs import BLOCK

_LINKS = "/dev/md/"
_LOOK_EVERY_S = 0.25
# Between two phases, as from a resync to the recovery of the next slot, md is idle for a moment.
_IDLE_LOOKS = 3


def arrays(seen: Observed) -> tuple[Array, ...]:
    """All arrays that are assembled, by the kernel's names."""
    devices = {one.name: one for one in seen.devices}
    found = []
    for device in seen.devices:
        one = md_look.read(BLOCK / device.name) if device.md is not None else None
        if one is not None:
            members = [devices[each.name] for each in one.members if each.name in devices]
            found.append(replace(one, label=_label(device.links, members)))
    return tuple(found)


def _label(links: Sequence[str], members: Sequence[Device]) -> str:
    """The array's own name: as udev has it, and where udev is late, as its superblocks have it."""
    for link in links:
        if link.startswith(_LINKS):
            return link.removeprefix(_LINKS)
    labels = (s.label for one in members for s in one.signatures if s.type == MEMBER_SIGNATURE)
    return next((label.rpartition(":")[2] for label in labels if label), "")


def by_uuid(uuid: str) -> Array:
    """The array of this UUID as it is now. Raises ArrayNotFound."""
    for entry in sorted(BLOCK.glob("md*")):
        found = md_look.read(entry)
        if found is not None and found.uuid == uuid:
            return found
    raise ArrayNotFound("the array has been stopped", array=uuid)


def follow(uuid: str, tell: Callable[[Sync], None]) -> Array:
    """Tell of what md does to an array until it does nothing; answer it as it is then.

    Blocks. Raises ArrayNotFound if it is stopped meanwhile, and what `tell` raises.
    """
    idle, last = 0, Sync()
    while True:
        found = by_uuid(uuid)
        idle = idle + 1 if found.sync.is_idle else 0
        # An idle array counts nothing: what it came to last stands meanwhile.
        last = last if idle else found.sync
        if idle >= _IDLE_LOOKS:
            if not found.degraded:
                tell(replace(last, done_bytes=last.total_bytes))
            return found
        tell(last)
        time.sleep(_LOOK_EVERY_S)
