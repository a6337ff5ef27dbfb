"""The wrong-disk drill: random requests to destroy, of which each may touch its own disk alone.

Some are good and must succeed. The others were planned for a disk that something has befallen
since, see storage_drill. After each, all disks but that of a plan which was carried out have to be
what they were, byte for byte.
"""

from __future__ import annotations

import os
import random
import secrets
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from storage_devices import run, worker
from storage_drill import FATES, Fate, Rig, Slot

from hostlerd.runtime.steps import Step
from hostlerd.storage.kernel.worker_client import Worker
from hostlerd.storage.plan import filesystem as plan
from hostlerd.storage.plan.choose import called

SOAK = os.environ.get("HOSTLER_SOAK") == "1"
REQUESTS = 1000 if SOAK else 100
DISKS = 4
GOOD = 0.4
GOOD_LEAST = 0.3

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(3600 if SOAK else 300)]


@pytest.fixture
def rng() -> random.Random:
    seed = int(os.environ.get("HOSTLER_DRILL_SEED", secrets.randbits(32)))
    # Shown where the drill fails.
    print(f"HOSTLER_DRILL_SEED={seed}")
    return random.Random(seed)  # noqa: S311


@pytest.fixture
def rig(rng: random.Random) -> Iterator[Rig]:
    # In memory: each look at all disks waits until they are written.
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        made = Rig(Path(folder), DISKS, rng)
        try:
            yield made
        finally:
            made.close()


def holding(slot: Slot) -> str:
    """What blkid says that a disk holds; "" for nothing that it knows."""
    argv = ["/usr/sbin/blkid", "-p", "-s", "TYPE", "-o", "value", slot.device]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip()


def fill(slot: Slot, kind: str) -> None:
    """Have a disk hold something, by another program than the worker."""
    if kind and holding(slot) != kind:
        tool = {"ext4": ("/usr/sbin/mkfs.ext4", "-q", "-F"), "swap": ("/usr/sbin/mkswap", "-f")}
        run(*tool[kind], slot.device)


def planned(rig: Rig, slot: Slot, kind: str) -> Step:
    """The step that a plan for a disk has; an empty kind is a wipe."""
    graph = rig.graph()
    (node,) = [one for one in graph.nodes if one.name == slot.name]
    words = called(node)
    made = plan.make(plan.Wanted(words, kind), graph) if kind else plan.wipe(words, graph)
    (step,) = made.steps
    return step


def refuse(rig: Rig, slot: Slot, fate: Fate, kind: str, early: bool, asked: Worker) -> None:
    """Make a request for a disk that something befalls: it must be refused for that reason."""
    step = None if early else planned(rig, slot, kind)
    with fate.befall(rig, slot):
        before = rig.contents()
        with pytest.raises(fate.told):
            asked.apply(step or planned(rig, slot, kind))
        assert rig.contents() == before, "a disk has changed"


def succeed(rig: Rig, slot: Slot, kind: str, asked: Worker) -> None:
    """Make a good request: it changes its own disk, and no other."""
    before = rig.contents()
    asked.apply(planned(rig, slot, kind))
    after = rig.contents()
    assert holding(slot) == kind
    assert {disk for disk in before if before[disk] != after[disk]} == {slot.disk.name}


@pytest.mark.soak
def test_no_request_touches_another_disk(tmp_path: Path, rig: Rig, rng: random.Random) -> None:
    told: Counter[str] = Counter()
    with worker(tmp_path) as asked:
        for _ in range(REQUESTS):
            slot, kind = rng.choice(rig.slots), rng.choice(("ext4", "swap", ""))
            # A wipe is no change where there is nothing to wipe.
            fill(slot, "" if kind else rng.choice(("ext4", "swap")))
            if rng.random() < GOOD:
                succeed(rig, slot, kind, asked)
                told["good"] += 1
                continue
            name = rng.choice(sorted(FATES))
            fate = FATES[name]
            fill(slot, fate.holds)
            early = fate.seen_by_plan and rng.random() < 0.3
            refuse(rig, slot, fate, kind, early, asked)
            told[name] += 1
    print(dict(told))
    assert told["good"] >= GOOD_LEAST * REQUESTS
    assert REQUESTS < 1000 or set(told) == {"good", *FATES}
