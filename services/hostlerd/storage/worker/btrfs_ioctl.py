"""What btrfs is asked by ioctl, and the structures for it.

Source: Linux include/uapi/linux/btrfs.h and btrfs_tree.h.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)
_IDS_MOST = 4096

#: struct btrfs_ioctl_fs_info_args, of 1024 bytes.
_FS_INFO = 0x8400941F
_FS_INFO_HEAD = struct.Struct("=QQ16s")
#: struct btrfs_ioctl_dev_info_args, of 4096 bytes.
_DEV_INFO = 0xD000941E
_DEV_INFO_HEAD = struct.Struct("=Q16sQQ")
_DEV_INFO_PATH = 4096 - 1024
_SYNC = 0x9408
#: Where the superblock is, and in it the UUID and the device's number. Source: Linux fs/btrfs,
#: struct btrfs_super_block.
_SUPERBLOCK, _SUPERBLOCK_BYTES, _FSID, _DEVICE_ID = 0x10000, 4096, 0x20, 0xC9
_GET_DEV_STATS = 0xC4089434
_DEV_STATS_BYTES, _DEV_STATS_RESET = 1032, 1
#: enum btrfs_err_code, which is answered in place of an error.
_TOO_FEW = "too few devices would be left for a profile"
_SAYS = {
    **dict.fromkeys((1, 2, 3, 4, 9, 10), _TOO_FEW),
    5: "the target of a replacement cannot be taken out",
    6: "no device is missing",
    7: "it is the only device that can be written",
    8: "something else that excludes it goes on",
}


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """A device as its filesystem has it; `path` is empty if it is missing."""

    path: str
    total_bytes: int
    used_bytes: int

    @property
    def name(self) -> str:
        """What the kernel calls it."""
        return Path(self.path).name if self.path else ""


def call(fd: int, request: int, argument: bytearray) -> None:
    """Make a call that may last for hours. Raises OSError.

    fcntl.ioctl would hold up every thread of the process with an argument of over 1024 bytes.
    """
    buffer = (ctypes.c_char * len(argument)).from_buffer(argument)
    said = _LIBC.ioctl(fd, request, ctypes.addressof(buffer))
    if said < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    if said > 0:
        raise OSError(errno.EBUSY, _SAYS.get(said, f"the kernel answers {said}"))


def command(fd: int, request: int, value: int = 0) -> None:
    """Make a call whose argument is a number. Raises OSError."""
    fcntl.ioctl(fd, request, value)


def filesystem(fd: int) -> tuple[str, Mapping[int, DeviceInfo]]:
    """The UUID of the filesystem that a descriptor is of, and its devices by their ids."""
    info = bytearray(1024)
    call(fd, _FS_INFO, info)
    last_id, count, fsid = _FS_INFO_HEAD.unpack_from(info)
    return str(uuid.UUID(bytes=fsid)), dict(_devices(fd, min(last_id, _IDS_MOST), count))


def _devices(fd: int, last_id: int, count: int) -> Iterator[tuple[int, DeviceInfo]]:
    for device_id in range(last_id + 1):
        args = bytearray(4096)
        struct.pack_into("=Q", args, 0, device_id)
        try:
            call(fd, _DEV_INFO, args)
        except OSError as e:
            if e.errno == errno.ENODEV:
                continue
            raise
        _, _, used, total = _DEV_INFO_HEAD.unpack_from(args)
        path = bytes(args[_DEV_INFO_PATH:]).split(b"\0")[0].decode("utf-8", "surrogateescape")
        yield device_id, DeviceInfo(path, total, used)
        count -= 1
        # The target of a replacement has the number 0, and is not counted.
        if count <= 0 and device_id:
            return


def is_device(path: str, fsid: str, device_id: int) -> bool:
    """Whether a path leads to that very device of a filesystem, by its superblock.

    The kernel keeps the path of a device that was pulled, which may be another one's by now. One
    that does not answer is taken for the device.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        block = os.pread(fd, _SUPERBLOCK_BYTES, _SUPERBLOCK)
    except OSError:
        return True
    finally:
        os.close(fd)
    found = (block[_FSID : _FSID + 16], block[_DEVICE_ID : _DEVICE_ID + 8])
    return found == (uuid.UUID(fsid).bytes, device_id.to_bytes(8, "little"))


def sync(fd: int) -> None:
    """Have all that was changed come to the disks. Raises OSError."""
    command(fd, _SYNC)


def reset_errors(fd: int, device_id: int) -> None:
    """Set the error counters of a device to zero. Raises OSError."""
    args = bytearray(_DEV_STATS_BYTES)
    struct.pack_into("=QQQ", args, 0, device_id, 5, _DEV_STATS_RESET)
    call(fd, _GET_DEV_STATS, args)
