"""Loop devices that a test makes, a worker of its own, and what other programs say of them."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hostlerd.runtime.steps import canonical
from hostlerd.storage.kernel import Kernel
from hostlerd.storage.kernel.worker_client import Worker
from hostlerd.storage.model.graph import Graph
from hostlerd.storage.model.target import Target
from hostlerd.storage.plan.choose import target_of
from hostlerd.storage.plan.graph import build

MIB = 1 << 20
READY_S = 30.0


def run(*argv: str, status: int | None = 0) -> str:
    """Run a tool; it must end with that status, whichever if None."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert status is None or done.returncode == status, (argv, done.stdout, done.stderr)
    return done.stdout


@dataclass
class Loop:
    """A loop device on a file of its own."""

    file: Path
    device: str

    @property
    def name(self) -> str:
        """What the kernel calls it."""
        return self.device.removeprefix("/dev/")

    def hash(self) -> str:
        """SHA-256 of all that is in it, by its file: no page of the device's own is asked."""
        run("/usr/sbin/blockdev", "--flushbufs", self.device)
        return hashlib.sha256(self.file.read_bytes()).hexdigest()

    def blkid(self, tag: str) -> str:
        """What blkid says of it, "" for nothing."""
        argv = ("/usr/sbin/blkid", "-p", "-s", tag, "-o", "value", self.device)
        return run(*argv, status=None).strip()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of the disk as udev does, until the block ends."""
        fd = os.open(self.device, os.O_RDONLY)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
            yield
        finally:
            os.close(fd)


def attach(file: Path, *options: str) -> str:
    """Make a file a loop device."""
    return run("/usr/sbin/losetup", *options, "--find", "--show", str(file)).strip()


@contextmanager
def loop(folder: Path, name: str, size_mib: int, *options: str) -> Iterator[Loop]:
    """A loop device until the block ends, empty at first."""
    file = folder / name
    with file.open("wb") as opened:
        opened.truncate(size_mib * MIB)
    one = Loop(file, attach(file, *options))
    try:
        yield one
    finally:
        run("/usr/sbin/losetup", "--detach", one.device)


@contextmanager
def mounted(device: str, at: Path, *options: str) -> Iterator[Path]:
    """A filesystem that is mounted for a while."""
    at.mkdir(exist_ok=True)
    run("/usr/bin/mount", *options, device, str(at))
    try:
        yield at
    finally:
        run("/usr/bin/umount", str(at))


@contextmanager
def worker_process(
    folder: Path, idle_s: int = 3600, wrapper: Sequence[str] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that listens at `worker.sock` of a folder, as a process of its own."""
    door, root = folder / "worker.sock", folder / "root"
    for each in ("etc/systemd/system", "run/systemd/system"):
        (root / each).mkdir(parents=True, exist_ok=True)
    manager = Path(shutil.copy(Path(__file__).with_name("mount_manager.py"), root / "systemctl"))
    manager.chmod(0o755)
    argv: Sequence[str] = (
        *wrapper,
        *(sys.executable, "-I", "-m", "hostlerd.storage.worker"),
        *("--listen", str(door), "--state", str(folder / "worker-state"), "--idle-s", str(idle_s)),
        *("--root", str(root), "--systemctl", str(manager)),
    )
    with (folder / "worker.log").open("wb") as log:
        program = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        end = time.monotonic() + READY_S
        while not door.is_socket():
            assert program.poll() is None, (folder / "worker.log").read_text()
            assert time.monotonic() < end, "the worker does not listen"
            time.sleep(0.02)
        yield program
    finally:
        program.terminate()
        program.wait(30)


@contextmanager
def worker(folder: Path) -> Iterator[Worker]:
    """The same, as the daemon asks it."""
    with worker_process(folder):
        yield Worker(folder / "worker.sock")


def graph() -> Graph:
    """What the daemon sees."""
    return build(Kernel().look())


def called(one: Loop, seen: Graph | None = None) -> str:
    """The words by which a loop device is asked for."""
    (node,) = [each for each in (seen or graph()).nodes if each.name == one.name]
    return f"{node.id}#{node.disk_sequence}"


def target(one: Loop, seen: Graph | None = None) -> Target:
    """A loop device as a plan has it."""
    (node,) = [each for each in (seen or graph()).nodes if each.name == one.name]
    return target_of(node)


def fields(of: Any) -> dict[str, Any]:
    """A value as it goes to the worker."""
    told: dict[str, Any] = json.loads(json.dumps(canonical(of)))
    return told
