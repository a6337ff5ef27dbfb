"""Whether a device is the one that the plan saw, and holding it so that it stays that one.

While a descriptor of a device is open, the kernel gives neither its name nor its number to another
one: what was compared once stays true for whatever opens it by its name meanwhile. A medium can
still be changed in a drive, and a file below a loop device: the disk sequence tells that.
Source: Linux include/uapi/linux/fs.h.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from hostlerd.storage.model.target import Target
from hostlerd.storage.worker import sysfs
from hostlerd.storage.worker.refused import Refused

_BLKGETSIZE64 = 0x80081272
_BLKGETDISKSEQ = 0x80081280
_BLKROGET = 0x125E
_BLKRRPART = 0x125F
# udev takes the lock too, shared, while it looks at a device that somebody has written to.
LOCK_WAIT_S = 5.0
_LOCK_LOOK_S = 0.02


@dataclass(frozen=True, slots=True)
class Device:
    """A device that is open, and proven to be the one that was asked for."""

    target: Target
    fd: int
    folder: Path
    """Of sysfs, resolved."""

    @property
    def path(self) -> str:
        """Its node."""
        return node(self.target.name)

    @property
    def whole(self) -> Path:
        """The folder of the disk that it is, or is a partition of."""
        return sysfs.whole_disk(self.folder)

    def check(self) -> None:
        """Raise Refused unless it is still the device that the plan saw."""
        seen, known = self.target, sysfs.udev(self.target.number)
        facts: tuple[tuple[str, object, object], ...] = (
            ("number", seen.number, _number(self.fd)),
            ("number in sysfs", seen.number, sysfs.text(self.folder / "dev")),
            ("size", seen.size_bytes, _ioctl_u64(self.fd, _BLKGETSIZE64)),
            ("disk sequence", seen.disk_sequence, disk_sequence(self.fd)),
            ("serial number", seen.serial, sysfs.serial(self.whole, known)),
            ("WWN", seen.wwn, sysfs.wwn(self.whole, known)),
        )
        for word, planned, found in facts:
            if planned != found:
                raise changed(seen, f"its {word} is {found or 'none'}, not {planned or 'none'}")


def node(name: str) -> str:
    """The path of a device by the kernel's name of it."""
    return "/dev/" + name.replace("!", "/")


def changed(target: Target, words: str) -> Refused:
    """The refusal of a device that is another one by now."""
    return Refused(
        "DEVICE_CHANGED",
        f"{target.id}: what is at {target.name} now is not what the plan saw: {words}",
        device=target.id,
    )


def here(name: str, signatures: tuple[str, ...]) -> Target:
    """The device that the kernel calls so now, which no plan saw. Raises OSError."""
    folder = (sysfs.BLOCK / name).resolve(strict=True)
    fd = os.open(node(name), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        number = _number(fd)
        whole, known = sysfs.whole_disk(folder), sysfs.udev(number)
        return Target(
            id=f"name-{name}",
            name=name,
            number=number,
            size_bytes=_ioctl_u64(fd, _BLKGETSIZE64),
            disk_sequence=disk_sequence(fd),
            serial=sysfs.serial(whole, known),
            wwn=sysfs.wwn(whole, known),
            signatures=signatures,
        )
    finally:
        os.close(fd)


@contextmanager
def opened(target: Target) -> Iterator[Device]:
    """Open a device and compare it with what the plan saw. Raises Refused, OSError."""
    if target.part is not None:
        # Else the whole disk would be taken for it.
        raise changed(target, "it is a partition that is to be made before")
    try:
        folder = (sysfs.BLOCK / target.name).resolve(strict=True)
        fd = os.open(node(target.name), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as e:
        if e.errno in (errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.ENOMEDIUM):
            raise Refused(
                "DEVICE_GONE", f"{target.id}: there is no {target.name} now", device=target.id
            ) from None
        raise
    try:
        device = Device(target, fd, folder)
        if not stat.S_ISBLK(os.fstat(fd).st_mode):
            raise changed(target, "it is no block device")
        device.check()
        yield device
    finally:
        os.close(fd)


@contextmanager
def locked(devices: list[Device]) -> Iterator[None]:
    """Hold the lock of each whole disk, as udev and sfdisk understand it. Raises Refused.

    Source: systemd, docs/BLOCK_DEVICE_LOCKING.md.
    """
    with ExitStack() as stack:
        # In one order, so that no two requests wait for each other.
        for name in sorted({device.whole.name for device in devices}):
            fd = os.open(node(name), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            _lock(fd, name, next(d.target for d in devices if d.whole.name == name))
        yield


def _lock(fd: int, name: str, target: Target) -> None:
    end = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > end:
                raise Refused(
                    "DEVICE_LOCKED",
                    f"{target.id}: another program holds the lock of {name}",
                    device=target.id,
                ) from None
            time.sleep(_LOCK_LOOK_S)


def disk_sequence(fd: int) -> int:
    """The number of the medium that is in a disk; 0 where the kernel counts none."""
    try:
        return _ioctl_u64(fd, _BLKGETDISKSEQ)
    except OSError as e:
        if e.errno in (errno.ENOTTY, errno.EINVAL):
            return 0
        raise


def is_read_only(fd: int) -> bool:
    """Whether the device cannot be written."""
    return int.from_bytes(fcntl.ioctl(fd, _BLKROGET, bytes(4)), "little") != 0


def read_partitions_again(fd: int, device: Device) -> None:
    """Have the kernel read the table of a disk anew; none of its partitions may be in use."""
    if device.whole != device.folder:
        return
    try:
        fcntl.ioctl(fd, _BLKRRPART)
    except OSError as e:
        # A device that has no partitions for the kernel, as a plain loop device.
        if e.errno not in (errno.EINVAL, errno.ENOTTY):
            raise


def _number(fd: int) -> str:
    rdev = os.fstat(fd).st_rdev
    return f"{os.major(rdev)}:{os.minor(rdev)}"


def _ioctl_u64(fd: int, request: int) -> int:
    return int.from_bytes(fcntl.ioctl(fd, request, bytes(8)), "little")
