"""The subvolumes of a btrfs, as its root tree has them, whichever of them is mounted.

Source: Linux include/uapi/linux/btrfs.h and btrfs_tree.h.
"""

from __future__ import annotations

import os
import struct
import uuid
from collections.abc import Iterator
from dataclasses import replace

from hostlerd.storage.model.btrfs import TOP_ID, Subvolume
from hostlerd.storage.worker.btrfs_ioctl import call

MOST = 10_000
_SEARCH, _LOOKUP = 0xD0009411, 0xD0009412
_ARGS_BYTES = 4096
_KEY = struct.Struct("=7Q4I4Q")
_HEADER = struct.Struct("=QQQII")
_ROOT_TREE = 1
_FIRST, _LAST, _ALL = 256, (1 << 64) - 256, (1 << 64) - 1
_ROOT_ITEM, _ROOT_BACKREF = 132, 144
# Of struct btrfs_root_item: generation, flags, refs; then the UUIDs, and when it was made.
_GENERATION, _FLAGS, _REFS, _UUIDS, _OTRANSID, _OTIME = 160, 208, 216, 247, 303, 339
_ROOT_ITEM_BYTES = 439
_READ_ONLY = 1
_BACKREF = struct.Struct("=QQH")
_NONE = bytes(16)


def subvolumes(fd: int) -> tuple[Subvolume, ...]:
    """All but those that are being deleted, by path; the top has none. Raises OSError."""
    items: dict[int, Subvolume] = {}
    places: dict[int, tuple[int, int, str]] = {}
    for kind, of, offset, data in _items(fd):
        if TOP_ID < of < _FIRST:
            continue
        if kind == _ROOT_ITEM and len(data) >= _ROOT_ITEM_BYTES:
            if int.from_bytes(data[_REFS : _REFS + 4], "little"):
                items[of] = _item(of, data)
        elif kind == _ROOT_BACKREF:
            folder, _, length = _BACKREF.unpack_from(data)
            name = data[_BACKREF.size : _BACKREF.size + length].decode("utf-8", "surrogateescape")
            places[of] = (offset, folder, name)
        if len(items) > MOST:
            break
    paths = _paths(fd, places)
    places[TOP_ID], paths[TOP_ID] = (0, 0, ""), ""
    found = [
        replace(one, path=paths[of], parent_id=places[of][0])
        for of, one in items.items()
        if of in paths
    ]
    return tuple(sorted(found, key=lambda one: one.path))


def subvolume_of(fd: int) -> tuple[int, str]:
    """The subvolume that a descriptor lies in, and the path of its folder in there.

    Raises OSError.
    """
    return _lookup(fd, 0, os.fstat(fd).st_ino)


def _items(fd: int) -> Iterator[tuple[int, int, int, bytes]]:
    """Type, object, offset and data of the items that tell of subvolumes."""
    at = (TOP_ID, _ROOT_ITEM, 0)
    while True:
        args = bytearray(_ARGS_BYTES)
        _KEY.pack_into(
            args,
            0,
            *(_ROOT_TREE, at[0], _LAST, at[2], _ALL, 0, _ALL),
            *(at[1], _ROOT_BACKREF, 64, 0),
            *(0, 0, 0, 0),
        )
        call(fd, _SEARCH, args)
        count, place = _KEY.unpack_from(args)[9], _KEY.size
        if not count:
            return
        for _ in range(count):
            _, of, offset, kind, length = _HEADER.unpack_from(args, place)
            place += _HEADER.size
            yield kind, of, offset, bytes(args[place : place + length])
            place += length
            at = (of, kind, offset)
        at = (at[0], at[1], at[2] + 1) if at[2] < _ALL else (at[0], at[1] + 1, 0)


def _item(of: int, data: bytes) -> Subvolume:
    ids = [data[_UUIDS + 16 * n : _UUIDS + 16 * n + 16] for n in range(3)]
    own, source, received = ("" if one == _NONE else str(uuid.UUID(bytes=one)) for one in ids)
    return Subvolume(
        id=of,
        path="",
        parent_id=0,
        uuid=own,
        source_uuid=source,
        received_uuid=received,
        is_read_only=bool(data[_FLAGS] & _READ_ONLY),
        generation=int.from_bytes(data[_GENERATION : _GENERATION + 8], "little"),
        created_generation=int.from_bytes(data[_OTRANSID : _OTRANSID + 8], "little"),
        created_unix_s=int.from_bytes(data[_OTIME : _OTIME + 8], "little", signed=True),
    )


def _paths(fd: int, places: dict[int, tuple[int, int, str]]) -> dict[int, str]:
    """The path of each from the top; what is reached no more is left out."""
    found: dict[int, str] = {}

    def path(of: int, depth: int = 0) -> str | None:
        if of in found:
            return found[of]
        if of not in places or depth > 256:
            return None
        parent, folder, name = places[of]
        above = "" if parent == TOP_ID else path(parent, depth + 1)
        if above is None:
            return None
        inner = _lookup(fd, parent, folder)[1]
        found[of] = "/".join(filter(None, (above, inner, name)))
        return found[of]

    for each in places:
        path(each)
    return found


def _lookup(fd: int, tree: int, inode: int) -> tuple[int, str]:
    args = bytearray(_ARGS_BYTES)
    struct.pack_into("=QQ", args, 0, tree, inode)
    call(fd, _LOOKUP, args)
    found = int.from_bytes(args[:8], "little")
    name = bytes(args[16:]).split(b"\0")[0].decode("utf-8", "surrogateescape")
    return found, name.strip("/")
