"""A btrfs of two devices on loop devices, with data in it, and what befalls it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from storage_devices import MIB, Loop, loop, mounted, run

BTRFS = "/usr/bin/btrfs"
SIZE_MIB = 192
DATA_MIB = 24


@dataclass
class Pool:
    """A btrfs of two devices, mounted, with 24 MiB of data, and a third device beside it."""

    one: Loop
    two: Loop
    spare: Loop
    at: Path
    label: str
    digest: str

    @property
    def uuid(self) -> str:
        """Its UUID."""
        return self.one.blkid("UUID")

    def data(self) -> str:
        """SHA-256 of the data as the disks have it."""
        run("/usr/bin/mount", "-o", "remount", str(self.at))
        fd = os.open(self.at / "data", os.O_RDONLY)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)
        return hashlib.sha256((self.at / "data").read_bytes()).hexdigest()

    def stats(self) -> dict[str, int]:
        """How many blocks of each device btrfs(8) says were found wrong."""
        said = json.loads(run(BTRFS, "--format", "json", "device", "stats", str(self.at)))
        return {one["device"]: int(one["corruption_errs"]) for one in said["device-stats"]}

    def slow(self, bytes_per_second: int) -> None:
        """Bound how fast a scrub goes; 0: not."""
        for place in Path(f"/sys/fs/btrfs/{self.uuid}/devinfo").glob("*/scrub_speed_max"):
            place.write_text(str(bytes_per_second))


@contextmanager
def made(
    folder: Path, *profiles: str, size_mib: int = SIZE_MIB, is_whole: bool = True
) -> Iterator[Pool]:
    """Make one, until the block ends; one that is not whole lacks its second device."""
    # A mount that was there when somebody cloned this namespace stays with him for a while.
    label = f"pool-{os.urandom(4).hex()}"
    with ExitStack() as stack:
        one, two, spare = (
            stack.enter_context(loop(folder, name, size_mib)) for name in ("one", "two", "spare")
        )
        run("/usr/sbin/mkfs.btrfs", "-q", "-L", label, *profiles, one.device, two.device)
        options = f"device={two.device}"
        if not is_whole:
            run("/usr/sbin/wipefs", "-qa", two.device)
            run(BTRFS, "device", "scan", "--forget", two.device)
            options = "degraded"
        at = stack.enter_context(mounted(one.device, folder / "at", "-o", options))
        content = os.urandom(DATA_MIB * MIB)
        (at / "data").write_bytes(content)
        run(BTRFS, "filesystem", "sync", str(at))
        yield Pool(one, two, spare, at, label, hashlib.sha256(content).hexdigest())


def place_of(pool: Pool, leg: Loop) -> int:
    """Where in the file of a leg the ninth MiB of the data is; -1 if it is not on it."""
    mark = (pool.at / "data").read_bytes()[8 * MIB : 8 * MIB + 4096]
    return leg.file.read_bytes().find(mark)


def damage(leg: Loop, at: int, blocks: int) -> None:
    """Overwrite so many blocks in the file of a leg, behind the kernel's back."""
    with leg.file.open("r+b") as file:
        file.seek(at)
        file.write(os.urandom(4096 * blocks))
    # Nothing of it may come from the device's own pages.
    run("/usr/sbin/blockdev", "--flushbufs", leg.device)


def part(leg: Loop, at: int, blocks: int) -> bytes:
    """So many blocks of the file of a leg."""
    run("/usr/sbin/blockdev", "--flushbufs", leg.device)
    with leg.file.open("rb") as file:
        file.seek(at)
        return file.read(4096 * blocks)
