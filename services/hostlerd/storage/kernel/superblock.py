"""How large a filesystem is, by its superblock.

Source: Linux fs/ext4/ext4.h, fs/xfs/libxfs/xfs_format.h, include/uapi/linux/btrfs_tree.h.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from hostlerd.storage.errors import KernelUnreadable

_BLOCK_BYTES = 4096
_EXT4_AT, _BTRFS_AT = 1024, 64 << 10
_EXT4_64BIT = 0x80


def size_bytes(name: str, kind: str) -> int:
    """The size of the filesystem of a kind on a device. Raises KernelUnreadable."""
    path = Path("/dev") / name.replace("!", "/")
    at, read = _SIZES[kind]
    try:
        return read(_read(path, at))
    except OSError as e:
        raise KernelUnreadable(f"{path}: {e.strerror}", device=name) from e


def _read(path: Path, at: int) -> bytes:
    """A block of a device, from the device itself: a mounted filesystem does not write through."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    try:
        with mmap.mmap(-1, _BLOCK_BYTES) as block:
            if os.preadv(fd, [block], at) != _BLOCK_BYTES:
                raise OSError(5, "the superblock cannot be read")
            return block[:]
    finally:
        os.close(fd)


def _ext4(block: bytes) -> int:
    said = block[_EXT4_AT:]
    blocks = int.from_bytes(said[4:8], "little")
    if int.from_bytes(said[0x60:0x64], "little") & _EXT4_64BIT:
        blocks |= int.from_bytes(said[0x150:0x154], "little") << 32
    return blocks << (10 + int.from_bytes(said[24:28], "little"))


def _xfs(block: bytes) -> int:
    return int.from_bytes(block[4:8], "big") * int.from_bytes(block[8:16], "big")


def _btrfs(block: bytes) -> int:
    """What the filesystem has of this one device."""
    return int.from_bytes(block[0xD1:0xD9], "little")


_SIZES: Mapping[str, tuple[int, Callable[[bytes], int]]] = {
    "ext4": (0, _ext4),
    "xfs": (0, _xfs),
    "btrfs": (_BTRFS_AT, _btrfs),
}
