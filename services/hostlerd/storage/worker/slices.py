"""Partitions that a step before has made: which device each of them has become.

The disk is proven as any other device is; the partition is the one that begins and ends where the
plan wants it. What lies on it was the disk's, and is taken for what it is now.
"""

from __future__ import annotations

import time
from dataclasses import replace

from hostlerd.storage.model.target import Slice, Target, signature_words
from hostlerd.storage.worker import identity, kernel_partitions, sysfs, tools
from hostlerd.storage.worker.refused import Refused

# udev comes to a new partition after the kernel, and some disks have their names from udev alone.
_KNOWN_WITHIN_S = 20.0
_LOOK_EVERY_S = 0.05


def settled(target: Target) -> Target:
    """The device that a target is by now: itself, unless it was to be made. Raises Refused."""
    if target.part is None:
        return target
    with identity.opened(replace(target, part=None)) as disk:
        number = _number(disk, target, target.part)
        _wait_for_udev(disk, number)
        name = target.kernel_name
        if sysfs.text(sysfs.BLOCK / name / "dev") != number:
            raise identity.changed(target, f"its partition {target.part.number} is not {name}")
        return replace(
            target,
            id=f"{target.id}-part{target.part.number}",
            name=name,
            number=number,
            size_bytes=target.part.size_bytes,
            signatures=signature_words(tools.signatures(identity.node(name))),
            part=None,
        )


def _number(disk: identity.Device, target: Target, part: Slice) -> str:
    """MAJOR:MINOR of the partition. Raises Refused unless it is where it was to be."""
    for one in kernel_partitions.present(disk.folder):
        if one.number == part.number:
            if (one.start_bytes, one.size_bytes) != (part.start_bytes, part.size_bytes):
                raise identity.changed(target, f"partition {part.number} lies elsewhere")
            return one.device_number
    raise Refused("DEVICE_GONE", f"{target.id} has no partition {part.number}", device=target.id)


def _wait_for_udev(disk: identity.Device, number: str) -> None:
    """Wait until the partition is called by its disk's names, within bounds."""
    end = time.monotonic() + _KNOWN_WITHIN_S
    while time.monotonic() < end:
        known = sysfs.udev(number)
        found = (sysfs.serial(disk.whole, known), sysfs.wwn(disk.whole, known))
        if found == (disk.target.serial, disk.target.wwn):
            return
        time.sleep(_LOOK_EVERY_S)
