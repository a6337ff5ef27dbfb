"""Who uses a device. Not one sign but all of them, for each misses something.

O_EXCL does not see a physical volume of a group that has no active volume, nor a loop device on a
disk; holders do not see mounts; mounts may be in another namespace; and a partition's users do not
show on its disk.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from hostlerd.storage.model.target import Target
from hostlerd.storage.worker import sysfs
from hostlerd.storage.worker.identity import Device
from hostlerd.storage.worker.refused import Refused

Probe = Callable[[Sequence[str]], str]
"""Runs a command that only reads, and answers its output. Raises Refused."""

_PVS = "/usr/sbin/pvs"
_ESCAPE = re.compile(r"\\([0-7]{3})")
_MOUNTINFO_BYTES_MOST = 16 << 20


def refuse_if_used(device: Device, probe: Probe) -> None:
    """Raise Refused, naming who uses the device, a partition of it, or the disk that it is on."""
    users = sorted({*_holders(device), *_mounts(device), *_swaps(device), *_loops(device)})
    users += [*_volume_group(device, probe), *_exports(device)]
    if users:
        raise _busy(device.target, users)
    # Only to ask: tools claim it themselves.
    os.close(claimed(device, os.O_RDONLY))


def _busy(target: Target, users: Sequence[str]) -> Refused:
    return Refused(
        "DEVICE_BUSY",
        f"{target.id} ({target.name}) is in use: {', '.join(users[:8])}",
        device=target.id,
        used_by=", ".join(users[:64]),
    )


def claimed(device: Device, access: int) -> int:
    """Open a device so that nobody else can claim it meanwhile. Raises Refused, OSError."""
    try:
        return os.open(device.path, access | os.O_EXCL | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as e:
        if e.errno != errno.EBUSY:
            raise
        raise _busy(device.target, ["claimed, the kernel does not say by whom"]) from None


def _folders(device: Device) -> Iterator[Path]:
    """The device's own folder of sysfs, and those of its partitions."""
    yield device.folder
    yield from (entry.parent for entry in sorted(device.folder.glob("*/partition")))


def _numbers(device: Device) -> frozenset[str]:
    return frozenset(sysfs.text(folder / "dev") for folder in _folders(device))


def _holders(device: Device) -> Iterator[str]:
    # Somebody may hold the disk, over the head of its partitions.
    for folder in {*_folders(device), device.whole}:
        for holder in sysfs.names(folder / "holders"):
            yield f"{holder} is built on {folder.name}"


def _mounts(device: Device) -> Iterator[str]:
    """Mounts in every namespace of mounts that there is a process in."""
    numbers, seen = _numbers(device), set()
    for place in Path("/proc").iterdir():
        if not place.name.isdigit():
            continue
        try:
            with (place / "mountinfo").open("rb") as file:
                said = file.read(_MOUNTINFO_BYTES_MOST)
        except OSError:
            # It has ended.
            continue
        if said in seen:
            continue
        seen.add(said)
        for line in said.decode("utf-8", "surrogateescape").splitlines():
            yield from _mount_of(line.split(" "), numbers)


def _mount_of(fields: list[str], numbers: frozenset[str]) -> Iterator[str]:
    try:
        source = fields[fields.index("-", 6) + 2]
    except (ValueError, IndexError):
        return
    # btrfs mounts have a number of their own.
    if fields[2] in numbers or number_of(plain(source)) in numbers:
        yield f"mounted on {plain(fields[4])}"


def _swaps(device: Device) -> Iterator[str]:
    numbers = _numbers(device)
    for line in Path("/proc/swaps").read_text().splitlines()[1:]:
        path = plain(line.split()[0])
        if number_of(path) in numbers:
            yield f"swapped to, as {path}"


def _loops(device: Device) -> Iterator[str]:
    numbers = _numbers(device)
    for entry in sysfs.BLOCK.glob("loop*/loop/backing_file"):
        if number_of(sysfs.text(entry)) in numbers:
            yield f"{entry.parent.parent.name} lies on it"


def _exports(device: Device) -> Iterator[str]:
    numbers = _numbers(device) | {sysfs.text(device.whole / "dev")}
    for number, name in sysfs.exported().items():
        if number in numbers:
            yield f"exported as {name}"


def _volume_group(device: Device, probe: Probe) -> list[str]:
    """The volume group that it is a physical volume of, whether any volume is active or not."""
    if not any(one.split(" ")[0] == "LVM2_member" for one in device.target.signatures):
        return []
    if not Path(_PVS).exists():
        return ["a physical volume, and lvm2 is not installed to say of which volume group"]
    told = json.loads(
        probe((_PVS, "--reportformat", "json", "-o", "vg_name", "--readonly", device.path))
    )
    rows = [row for report in told["report"] for row in report["pv"]]
    return [f"in volume group {row['vg_name']}" for row in rows if row["vg_name"]]


def number_of(path: str) -> str:
    """The number of the block device at a path below /dev; empty if it is none."""
    # Elsewhere a filesystem that does not answer could hold up the question.
    if not path.startswith("/dev/"):
        return ""
    try:
        seen = os.stat(path)  # noqa: PTH116
    except OSError:
        return ""
    if not stat.S_ISBLK(seen.st_mode):
        return ""
    return f"{os.major(seen.st_rdev)}:{os.minor(seen.st_rdev)}"


def plain(field: str) -> str:
    """Undo the escapes of mountinfo and swaps. Source: proc_pid_mountinfo(5)."""
    return _ESCAPE.sub(lambda found: chr(int(found[1], 8)), field)
