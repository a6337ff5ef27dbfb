"""The partitions that the kernel has of a disk, and telling it of other ones.

One by one, so that those which stay may be in use; BLKRRPART would want all of them free.
Source: Linux include/uapi/linux/blkpg.h, block/ioctl.c.
"""

from __future__ import annotations

import errno
import fcntl
import struct
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hostlerd.storage.worker import sysfs
from hostlerd.storage.worker.identity import Device

_BLKPG = 0x1269
_ADD, _DELETE, _RESIZE = 1, 2, 3
_UNIT_BYTES = 512
# The kernel shows no more than this of an extended partition, so that nobody writes over it.
_EXTENDED_BYTES = 1024
# Whoever looks at a partition right now keeps it from going.
_BUSY_WAIT_S = 5.0
_BUSY_LOOK_S = 0.05


@dataclass(frozen=True, slots=True)
class Place:
    """A partition by its number, and where it is."""

    number: int
    start_bytes: int
    size_bytes: int
    is_extended: bool = False
    device_number: str = ""


def present(disk: Path) -> list[Place]:
    """The partitions that the kernel has of a disk, by its folder of sysfs."""
    found = []
    most = max(_EXTENDED_BYTES, sysfs.number(disk / "queue/logical_block_size"))
    for entry in sorted(disk.glob("*/partition")):
        folder = entry.parent
        start, size = (sysfs.number(folder / name) * _UNIT_BYTES for name in ("start", "size"))
        found.append(
            Place(
                sysfs.number(entry),
                start,
                size,
                is_extended=size <= most,
                device_number=sysfs.text(folder / "dev"),
            )
        )
    return found


def tell(disk: Device, wanted: Sequence[Place], sector_bytes: int) -> str:
    """Make the kernel's partitions those of the table; answer why it has others, if it does."""
    new = {one.number: _shown(one, sector_bytes) for one in wanted}
    old = {one.number: one for one in present(disk.folder)}
    try:
        for number, one in old.items():
            if number not in new or new[number].start_bytes != one.start_bytes:
                _patiently(lambda one=one: _ask(disk.fd, _DELETE, one))  # type: ignore[misc]
        for number, one in new.items():
            before = old.get(number)
            if before is None or before.start_bytes != one.start_bytes:
                _ask(disk.fd, _ADD, one)
            elif before.size_bytes != one.size_bytes:
                _ask(disk.fd, _RESIZE, one)
    except OSError as e:
        if e.errno in (errno.EINVAL, errno.ENOTTY) and not old:
            return "the kernel has no partitions of this device, as of a plain loop device"
        return f"the kernel still has the old partitions: {e.strerror}"
    return ""


def _shown(one: Place, sector_bytes: int) -> Place:
    if not one.is_extended:
        return one
    most = max(_EXTENDED_BYTES, sector_bytes)
    return Place(one.number, one.start_bytes, min(one.size_bytes, most), is_extended=True)


def _patiently(work: Callable[[], None]) -> None:
    end = time.monotonic() + _BUSY_WAIT_S
    while True:
        try:
            work()
        except OSError as e:
            if e.errno != errno.EBUSY or time.monotonic() > end:
                raise
            time.sleep(_BUSY_LOOK_S)
        else:
            return


def _ask(fd: int, operation: int, one: Place) -> None:
    size = 0 if operation == _DELETE else one.size_bytes
    said = struct.pack("@qqi64s64s4x", one.start_bytes, size, one.number, b"", b"")
    # The kernel follows a pointer: ctypes would want memory that can be written and executed.
    data = array("B", said)
    address, _ = data.buffer_info()
    fcntl.ioctl(fd, _BLKPG, struct.pack("@iiiP", operation, 0, len(said), address))
