"""Disks of a drill, and what befalls a disk between the plan for it and its being carried out."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from hosts_witness import eventually
from storage_devices import MIB, attach, mounted, run

from hostlerd.storage import errors
from hostlerd.storage.kernel import mounts, signatures, sysfs
from hostlerd.storage.model.graph import Graph
from hostlerd.storage.model.observed import Observed
from hostlerd.storage.plan.graph import build

SIZE_MIB = 4
_LOOP_CTL_REMOVE = 0x4C81
_MOUNT = """
import subprocess, sys
subprocess.run(["/usr/bin/mount", "-o", "ro", sys.argv[1], sys.argv[2]], check=True)
print("mounted", flush=True)
sys.stdin.read()
"""


@dataclass
class Slot:
    """Where a disk is plugged in: a loop device, and the file that is the disk in it."""

    device: str
    disk: Path

    @property
    def name(self) -> str:
        """What the kernel calls it."""
        return self.device.removeprefix("/dev/")

    def plug(self, disk: Path | None = None) -> None:
        """Put a disk into it; the one that was in it if none is named."""
        run("/usr/sbin/losetup", self.device, str(disk or self.disk))

    def unplug(self) -> None:
        """Take the disk out, and wait until it is: whoever looks at it holds it for a moment."""
        run("/usr/sbin/losetup", "--detach", self.device)
        backing = Path("/sys/class/block") / self.name / "loop"
        eventually(lambda: not backing.exists())


class Rig:
    """Some slots with disks, at numbers that `losetup --find` does not give to others."""

    def __init__(self, folder: Path, disks: int, rng: random.Random) -> None:
        self.folder = folder
        first = 1000 + os.getpid() % 10_000 * 10
        self.slots = [Slot(f"/dev/loop{first + n}", folder / f"disk{n}") for n in range(disks)]
        for slot in self.slots:
            slot.disk.write_bytes(rng.randbytes(SIZE_MIB * MIB))
            slot.plug()

    def close(self) -> None:
        """Take all of it away."""
        with Path("/dev/loop-control").open("rb") as control:
            for slot in self.slots:
                with suppress(AssertionError):
                    slot.unplug()
                number = int(slot.name.removeprefix("loop"))
                eventually(partial(_removed, control.fileno(), number))

    def graph(self) -> Graph:
        """What the daemon would see of these disks."""
        names = {slot.name for slot in self.slots}
        devices = [one for one in sysfs.devices() if one.name in names]
        found, _ = signatures.of_devices(devices)
        held = tuple(replace(one, signatures=found.get(one.name, ())) for one in devices)
        return build(Observed(held, mounts.mounts(), swaps=mounts.swaps()[0]))

    def contents(self) -> dict[str, bytes]:
        """All that is on each disk, by the file that it is."""
        for slot in self.slots:
            # One that is unplugged has nothing to write.
            with suppress(OSError), Path(slot.device).open("rb", buffering=0) as opened:
                os.fsync(opened.fileno())
        disks = sorted(self.folder.glob("disk*"))
        return {disk.name: disk.read_bytes() for disk in disks}


def _removed(control: int, number: int) -> bool:
    try:
        fcntl.ioctl(control, _LOOP_CTL_REMOVE, number)
    except OSError as e:
        # Somebody looks at it.
        if e.errno != errno.EBUSY:
            raise
        return False
    return True


@dataclass(frozen=True)
class Fate:
    """What befalls a disk, what it must hold for that, and what a request is told then."""

    befall: Callable[[Rig, Slot], AbstractContextManager[None]]
    told: tuple[type[Exception], ...]
    holds: str = ""
    # A plan that is made now is refused already.
    seen_by_plan: bool = False


@contextmanager
def _mounted(rig: Rig, slot: Slot) -> Iterator[None]:
    with mounted(slot.device, rig.folder / "at", "-o", "ro"):
        yield


@contextmanager
def _mounted_elsewhere(rig: Rig, slot: Slot) -> Iterator[None]:
    at = rig.folder / "at"
    at.mkdir(exist_ok=True)
    argv = ("/usr/bin/unshare", "--mount", sys.executable, "-I", "-c", _MOUNT, slot.device, str(at))
    holder = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdin and holder.stdout
    try:
        assert holder.stdout.readline() == b"mounted\n"
        yield
    finally:
        holder.stdin.close()
        holder.wait(30)
        holder.stdout.close()


@contextmanager
def _claimed(rig: Rig, slot: Slot) -> Iterator[None]:
    fd = os.open(slot.device, os.O_RDONLY | os.O_EXCL)
    try:
        yield
    finally:
        os.close(fd)


@contextmanager
def _built_on(rig: Rig, slot: Slot) -> Iterator[None]:
    upper = attach(Path(slot.device), "--read-only")
    try:
        yield
    finally:
        run("/usr/sbin/losetup", "--detach", upper)


@contextmanager
def _swapped_to(rig: Rig, slot: Slot) -> Iterator[None]:
    run("/usr/sbin/swapon", slot.device)
    try:
        yield
    finally:
        run("/usr/sbin/swapoff", slot.device)


@contextmanager
def _signed(rig: Rig, slot: Slot) -> Iterator[None]:
    # A new UUID each time, so that it is another one whatever was there.
    run("/usr/sbin/mkswap", slot.device)
    yield


@contextmanager
def _exchanged(rig: Rig, slot: Slot) -> Iterator[None]:
    other = rig.folder / "disk-other"
    other.write_bytes(slot.disk.read_bytes())
    slot.unplug()
    slot.plug(other)
    try:
        yield
    finally:
        slot.unplug()
        slot.plug()


@contextmanager
def _renamed(rig: Rig, slot: Slot) -> Iterator[None]:
    """Two disks come up under each other's name."""
    other = next(one for one in rig.slots if one is not slot)
    for one in (slot, other):
        one.unplug()
    slot.disk, other.disk = other.disk, slot.disk
    for one in (slot, other):
        one.plug()
    yield


@contextmanager
def _plugged_again(rig: Rig, slot: Slot) -> Iterator[None]:
    slot.unplug()
    slot.plug()
    yield


@contextmanager
def _gone(rig: Rig, slot: Slot) -> Iterator[None]:
    slot.unplug()
    try:
        yield
    finally:
        slot.plug()


@contextmanager
def _read_only(rig: Rig, slot: Slot) -> Iterator[None]:
    run("/usr/sbin/blockdev", "--setro", slot.device)
    try:
        yield
    finally:
        run("/usr/sbin/blockdev", "--setrw", slot.device)


@contextmanager
def _grown(rig: Rig, slot: Slot) -> Iterator[None]:
    def resize(size_mib: int) -> None:
        os.truncate(slot.disk, size_mib * MIB)
        run("/usr/sbin/losetup", "--set-capacity", slot.device)

    resize(SIZE_MIB + 1)
    try:
        yield
    finally:
        resize(SIZE_MIB)


BUSY = (errors.DeviceBusy,)
CHANGED = (errors.DeviceChanged,)
FATES = {
    "mounted": Fate(_mounted, BUSY, holds="ext4", seen_by_plan=True),
    "mounted elsewhere": Fate(_mounted_elsewhere, BUSY, holds="ext4"),
    "claimed": Fate(_claimed, BUSY),
    "built on": Fate(_built_on, BUSY),
    "swapped to": Fate(_swapped_to, BUSY, holds="swap", seen_by_plan=True),
    "signed": Fate(_signed, (errors.SignaturesChanged,)),
    "exchanged": Fate(_exchanged, CHANGED),
    "renamed": Fate(_renamed, CHANGED),
    "plugged again": Fate(_plugged_again, CHANGED),
    "gone": Fate(_gone, (errors.DeviceGone, errors.DeviceChanged)),
    "read-only": Fate(_read_only, (errors.DeviceReadOnly,)),
    "grown": Fate(_grown, CHANGED),
}
