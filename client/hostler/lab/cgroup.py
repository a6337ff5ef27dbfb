"""One cgroup per host: without it, hosts would share a tree and mix up their units.

Source: cgroups(7), Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hostler.lab.errors import LabError


def unified_root(mounts: Path = Path("/proc/self/mounts")) -> Path:
    """Where cgroup v2 is mounted, on unified and on hybrid machines. Raises LabError."""
    for line in mounts.read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(place)
    raise LabError("no cgroup2 mount: the lab needs the unified or the hybrid hierarchy")


@dataclass(frozen=True, slots=True)
class Cgroup:
    """A cgroup of the unified hierarchy, existing or not."""

    path: Path

    def exists(self) -> bool:
        """Whether the cgroup is there."""
        return self.path.is_dir()

    def create(self, child: str = "") -> Path:
        """Make it, or a child of it, unless it is there; answers the folder."""
        place = self.path / child
        place.mkdir(parents=True, exist_ok=True)
        return place

    def pids(self) -> Iterator[int]:
        """Every process in it and below, as this machine numbers them."""
        for procs in self.path.rglob("cgroup.procs"):
            try:
                yield from map(int, procs.read_text().split())
            except OSError:
                continue  # removed since it was listed

    def populated(self) -> bool:
        """Whether a process lives in it or below."""
        try:
            return "populated 1" in (self.path / "cgroup.events").read_text()
        except FileNotFoundError:
            return False

    def wait_empty(self, timeout_s: float) -> bool:
        """Wait until no process is left; answers whether that came true in time."""
        end = time.monotonic() + timeout_s
        while self.populated():
            if time.monotonic() > end:
                return False
            time.sleep(0.01)
        return True

    def kill(self) -> None:
        """SIGKILL to every process in it and below (Linux 5.14)."""
        (self.path / "cgroup.kill").write_text("1")

    def remove(self) -> None:
        """Remove it with all below. Raises OSError while processes live in it."""
        if not self.exists():
            return
        for folder in sorted((p for p in self.path.rglob("*") if p.is_dir()), reverse=True):
            folder.rmdir()
        self.path.rmdir()
