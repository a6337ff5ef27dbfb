"""Scrub, replace, remove, balance: how each is begun, looked at and ended.

Source: Linux include/uapi/linux/btrfs.h.
"""

from __future__ import annotations

import errno
import struct
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from hostlerd.storage.model.btrfs import PROFILES, Work
from hostlerd.storage.worker import sysfs
from hostlerd.storage.worker.btrfs_ioctl import call, command, filesystem

_SCRUB, _SCRUB_CANCEL, _SCRUB_PROGRESS = 0xC400941B, 0x941C, 0xC400941D
_SCRUB_BYTES, _SCRUB_READ_ONLY, _ALL = 1024, 1, (1 << 64) - 1
_SCRUB_COUNTS = (
    *("data_extents", "tree_extents", "data_bytes", "tree_bytes", "read_errors", "csum_errors"),
    *("verify_errors", "no_csum", "csum_discards", "super_errors", "malloc_errors"),
    *("uncorrectable_errors", "corrected_errors", "last_physical", "unverified_errors"),
)
_SCRUB_PROGRESS_OF = struct.Struct("=15Q")

_REPLACE = 0xCA289435
_REPLACE_BYTES = 2600
_REPLACE_START, _REPLACE_STATUS, _REPLACE_CANCEL = 0, 1, 2
_REPLACE_SAID = {1: errno.ENOTCONN, 2: errno.EALREADY, 3: errno.EINPROGRESS}
_REPLACE_STARTED, _REPLACE_FINISHED = 1, 2
_PATH_BYTES = 1025

_REMOVE, _REMOVE_CANCEL = 0x5000943A, 0x5000940B
_VOLUME_BYTES, _BY_ID = 4096, 1 << 3

_BALANCE, _BALANCE_CTL, _BALANCE_PROGRESS = 0xC4009420, 0x40049421, 0x84009422
_BALANCE_BYTES, _BALANCE_CANCEL = 1024, 2
_BALANCE_ARGS = struct.Struct("=9QQ2I6Q")
_DATA, _SYSTEM, _METADATA, _FORCE = 1, 2, 4, 8
_USAGE, _CONVERT, _SOFT = 1 << 1, 1 << 8, 1 << 9
_BALANCE_STAT = 16 + 3 * _BALANCE_ARGS.size


def is_scrubbed(fd: int) -> bool:
    """Whether the kernel scrubs a device of the filesystem, whoever has begun that."""
    return any(_counts(fd, device_id) for device_id in filesystem(fd)[1])


def _counts(fd: int, device_id: int) -> dict[str, int]:
    """What the scrub of a device has counted; empty if none goes on. Raises OSError."""
    args = bytearray(_SCRUB_BYTES)
    struct.pack_into("=Q", args, 0, device_id)
    try:
        call(fd, _SCRUB_PROGRESS, args)
    except OSError as e:
        if e.errno not in (errno.ENOTCONN, errno.ENODEV):
            raise
        return {}
    return _counts_of(args)


def _counts_of(args: bytearray) -> dict[str, int]:
    return dict(zip(_SCRUB_COUNTS, _SCRUB_PROGRESS_OF.unpack_from(args, 32), strict=True))


def doing(uuid: str) -> str:
    """What the kernel does to a filesystem that excludes other such things."""
    return sysfs.text(sysfs.BTRFS / uuid / "exclusive_operation")


@dataclass
class Scrub:
    """Reads everything, each device in a thread of its own."""

    uuid: str
    is_read_only: bool
    kind: str = "scrub"
    args: dict[int, bytearray] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    errors: list[OSError] = field(default_factory=list)

    def run(self, fd: int) -> None:
        """Scrub all devices that are there; the counts stay in their arguments."""
        flags = _SCRUB_READ_ONLY if self.is_read_only else 0
        for device_id, info in filesystem(fd)[1].items():
            if device_id and info.path:
                self.args[device_id] = bytearray(_SCRUB_BYTES)
                struct.pack_into("=4Q", self.args[device_id], 0, device_id, 0, _ALL, flags)
        threads = [
            threading.Thread(target=self._one, args=(fd, device_id)) for device_id in self.args
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.errors:
            raise self.errors[0]

    def _one(self, fd: int, device_id: int) -> None:
        try:
            call(fd, _SCRUB, self.args[device_id])
        except OSError as e:
            self.errors.append(e)
        self.ended.add(device_id)

    def progress(self, fd: int) -> Work | None:
        """The counts so far: of what has ended from its call, of what goes on from the kernel."""
        counts = {}
        for device_id in list(self.args):
            now = {} if device_id in self.ended else _counts(fd, device_id)
            if not now and device_id in self.ended:
                now = _counts_of(self.args[device_id])
            if now:
                counts[device_id] = now
        if not counts:
            return None
        done = sum(one["data_bytes"] + one["tree_bytes"] for one in counts.values())
        return Work(self.kind, "running", done, max(done, self._total()), counts=counts)

    def _total(self) -> int:
        place = sysfs.BTRFS / self.uuid / "allocation"
        kinds = ("data", "metadata", "system")
        return sum(sysfs.number(place / kind / "disk_used") for kind in kinds)

    def cancel(self, fd: int) -> None:
        """Have it cease on all devices."""
        with suppress(ProcessLookupError):
            command(fd, _SCRUB_CANCEL)


@dataclass
class Replace:
    """Copies a device to another one, which takes its place at the end."""

    uuid: str
    old_id: int
    old_bytes: int
    new_path: str
    avoids_old: bool
    """Read from the others what they have: it is missing, may be, or is dying."""
    kind: str = "replace"
    has_ended: bool = False

    def run(self, fd: int) -> None:
        """Copy it. Raises OSError, with ECANCELED if it was."""
        args = bytearray(_REPLACE_BYTES)
        struct.pack_into("=4Q", args, 0, _REPLACE_START, 0, self.old_id, int(self.avoids_old))
        path = self.new_path.encode()
        args[32 + _PATH_BYTES : 32 + _PATH_BYTES + len(path)] = path
        call(fd, _REPLACE, args)
        if said := int.from_bytes(args[8:16], "little"):
            code = _REPLACE_SAID.get(said, errno.EIO)
            raise OSError(code, "the kernel is busy with another replacement or a scrub")
        if (state := self._status(fd)[0]) != _REPLACE_FINISHED:
            raise OSError(errno.ECANCELED, f"it ended in state {state}")
        self.has_ended = True

    def _status(self, fd: int) -> tuple[int, int, int, int]:
        """State, thousandths, and errors of writing and of reading."""
        args = bytearray(_REPLACE_BYTES)
        struct.pack_into("=Q", args, 0, _REPLACE_STATUS)
        call(fd, _REPLACE, args)
        state, thousandths, _, _, write, read = struct.unpack_from("=6Q", args, 16)
        return state, thousandths, write, read

    def progress(self, fd: int) -> Work | None:
        """How many of a thousand parts are copied."""
        # The state of one that is over stands until the next begins.
        if not self.has_ended and not doing(self.uuid).startswith("device replace"):
            return None
        state, thousandths, write, read = self._status(fd)
        if state not in (_REPLACE_STARTED, _REPLACE_FINISHED):
            return None
        part = 1000 if state == _REPLACE_FINISHED else thousandths
        counts = {self.old_id: {"write_errors": write, "uncorrectable_errors": read}}
        done = self.old_bytes * part // 1000
        return Work(self.kind, "running", done, self.old_bytes, counts=counts)

    def cancel(self, fd: int) -> None:
        """Give it up: the old one stays in use."""
        args = bytearray(_REPLACE_BYTES)
        struct.pack_into("=Q", args, 0, _REPLACE_CANCEL)
        call(fd, _REPLACE, args)


@dataclass
class Remove:
    """Moves all that is on a device to the others, and takes it out."""

    uuid: str
    device_id: int
    used_bytes: int
    kind: str = "remove"
    has_ended: bool = False

    def run(self, fd: int) -> None:
        """Take it out. Raises OSError, with ECANCELED if it was cancelled."""
        args = bytearray(_VOLUME_BYTES)
        struct.pack_into("=QQQ", args, 0, 0, 0, _BY_ID)
        struct.pack_into("=Q", args, 56, self.device_id)
        call(fd, _REMOVE, args)
        self.has_ended = True

    def progress(self, fd: int) -> Work | None:
        """How much is allocated there no more."""
        if not self.has_ended and doing(self.uuid) != "device remove":
            return None
        info = filesystem(fd)[1].get(self.device_id)
        left = 0 if info is None or self.has_ended else info.used_bytes
        done = max(0, self.used_bytes - left)
        return Work(self.kind, "running", done, self.used_bytes)

    def cancel(self, fd: int) -> None:
        """Have it cease: what has been moved stays where it is, and so does the device."""
        args = bytearray(_VOLUME_BYTES)
        args[8:14] = b"cancel"
        call(fd, _REMOVE_CANCEL, args)


@dataclass
class Balance:
    """Writes chunks anew."""

    data: str
    metadata: str
    usage_percent: int
    is_forced: bool
    kinds: Sequence[str] = ("data", "metadata")
    kind: str = "balance"
    last: tuple[int, int] = (0, 0)

    def run(self, fd: int) -> None:
        """Balance. Raises OSError, with ECANCELED if it was cancelled."""
        args = bytearray(_BALANCE_BYTES)
        flags = _FORCE if self.is_forced else 0
        if "data" in self.kinds:
            flags |= _DATA
            self._filter(args, 0, self.data)
        if "metadata" in self.kinds:
            # What the filesystem is described by goes the way of metadata.
            flags |= _METADATA | _SYSTEM
            self._filter(args, 1, self.metadata)
            self._filter(args, 2, self.metadata)
        struct.pack_into("=Q", args, 0, flags)
        try:
            call(fd, _BALANCE, args)
        finally:
            expected, _, completed = struct.unpack_from("=3Q", args, _BALANCE_STAT)
            self.last = (completed, max(expected, completed))

    def _filter(self, args: bytearray, slot: int, profile: str) -> None:
        flags = (_CONVERT | _SOFT if profile else 0) | (_USAGE if self.usage_percent else 0)
        target = PROFILES[profile].bit if profile else 0
        values = (0, self.usage_percent, 0, 0, 0, 0, 0, target, flags, 0, 0, 0, *(0,) * 6)
        _BALANCE_ARGS.pack_into(args, 16 + slot * _BALANCE_ARGS.size, *values)

    def progress(self, fd: int) -> Work | None:
        """How many chunks are done."""
        args = bytearray(_BALANCE_BYTES)
        try:
            call(fd, _BALANCE_PROGRESS, args)
        except OSError as e:
            if e.errno != errno.ENOTCONN:
                raise
            done, total = self.last
            return Work(self.kind, "running", done, total) if total else None
        expected, _, completed = struct.unpack_from("=3Q", args, _BALANCE_STAT)
        return Work(self.kind, "running", completed, max(expected, completed))

    def cancel(self, fd: int) -> None:
        """Have it cease after the chunk that it is at."""
        with suppress(OSError):
            command(fd, _BALANCE_CTL, _BALANCE_CANCEL)
