"""200 block devices listed with what lies on them, beside lsblk(8)."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from report import Row
from rounds import in_turn

from hostlerd.storage.kernel import Kernel
from hostlerd.storage.plan.graph import build

DEVICES, ROUNDS, BUDGET_S = 200, 5, 90.0
SIZE_BYTES = 4 << 20
# Every fourth device has a filesystem; the others are blank.
FORMATTED = 4


def rows() -> list[Row]:
    """List them all, in turn."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hostler-bench-")))
        names = {stack.enter_context(_loop(folder / str(each))) for each in range(DEVICES)}

        def ours() -> float:
            begun = time.perf_counter()
            graph = build(Kernel().look())
            took_s = time.perf_counter() - begun
            _all_of(names, {node.name for node in graph.nodes})
            return took_s

        def lsblk() -> float:
            begun = time.perf_counter()
            argv = ["/usr/bin/lsblk", "--json", "--output-all"]
            said = subprocess.run(argv, capture_output=True, check=True).stdout
            took_s = time.perf_counter() - begun
            _all_of(names, {each["name"] for each in json.loads(said)["blockdevices"]})
            return took_s

        found = in_turn({"ours": ours, "lsblk": lsblk}, ROUNDS, BUDGET_S)
    metric = f"s for {DEVICES} block devices"
    return [Row("storage_list", metric, tuple(found["ours"]), tuple(found["lsblk"]), "lsblk -J -O")]


@contextmanager
def _loop(path: Path) -> Iterator[str]:
    with path.open("wb") as file:
        file.truncate(SIZE_BYTES)
    if int(path.name) % FORMATTED == 0:
        subprocess.run(["/usr/sbin/mkfs.ext4", "-q", str(path)], check=True)
    argv = ["/usr/sbin/losetup", "--find", "--show", str(path)]
    device = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    try:
        yield device.removeprefix("/dev/")
    finally:
        subprocess.run(["/usr/sbin/losetup", "--detach", device], check=True)


def _all_of(wanted: set[str], found: set[str]) -> None:
    if not wanted <= found:
        raise RuntimeError(f"{len(wanted - found)} devices were not listed")
