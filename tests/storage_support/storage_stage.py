"""A stage for the storage daemon and the programs that it asks, any of which may be killed.

It is this machine itself: what is changed are loop devices of the test. The sockets are the test's,
as they would be systemd's, and so is starting anew what was killed.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from journal_stage import CHECKOUT, Place, Points, Stage, with_fds
from storage_devices import MIB, Loop, attach, called, run

PROGRAMS = Path(__file__).with_name("storage_points.py")
RUNTIME_SUPPORT = Path(__file__).parents[1] / "runtime_support"


class Machine(Stage):
    """No namespaces: loop devices are the machine's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.enter: list[str] = []

    def run_folder(self, domain: str) -> str:
        return str(self.folder / "run")

    def close(self) -> None:
        """There is nothing to end."""


class Seat(Points):
    """One of the programs, which is there again as soon as it was killed, and its points."""

    def __init__(self, place: Path, role: str, sock: str) -> None:
        super().__init__(place / f"{role}-points")
        self.points.mkdir()
        self._place, self.role = place, role
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(place / sock))
        self._listener.listen(64)
        self._closed = False
        self.deaths = 0
        self.process = self._start()
        self._keeper = threading.Thread(target=self._keep, name=role)
        self._keeper.start()

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "PYTHONPATH": f"{CHECKOUT}/services:{CHECKOUT}/client:{RUNTIME_SUPPORT}",
            "JOURNAL_POINTS": str(self.points),
            "LISTEN_FDS": "1",
        }
        argv = [sys.executable, str(PROGRAMS), self.role, str(self._place)]
        fds = [self._listener.fileno()]
        with (self._place / f"{self.role}.log").open("ab") as log:
            return subprocess.Popen(
                with_fds(fds, argv),
                pass_fds=fds,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _keep(self) -> None:
        while True:
            status = self.process.wait()
            if self._closed:
                return
            if status != -signal.SIGKILL:
                print(f"{self.role} ended with {status}", file=sys.stderr)
            # As systemd does it: what it has started goes before the next one is started.
            self._end()
            self.deaths += 1
            self.process = self._start()

    def kill(self) -> None:
        """Kill it now, with what it has started."""
        self._end()

    def _end(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def close(self) -> None:
        """End it for good."""
        self._closed = True
        self._end()
        self._keeper.join()
        self._listener.close()


class Storage(Place):
    """The storage daemon with its programs, and the disks that they change."""

    def __init__(self, folder: Path, sizes_mib: dict[str, int]) -> None:
        stage = Machine(folder)
        (folder / "storage").mkdir()
        (folder / "run").mkdir(mode=0o700)
        root = folder / "root"
        for each in ("etc/systemd/system", "run/systemd/system"):
            (root / each).mkdir(parents=True)
        manager = shutil.copy(Path(__file__).with_name("mount_manager.py"), root / "systemctl")
        Path(manager).chmod(0o755)
        super().__init__(stage, "storage")
        self.argv = [sys.executable, str(PROGRAMS), "daemon", str(folder), "storage"]
        self._sizes_mib, self._count = sizes_mib, 0
        self.disks: dict[str, Loop] = {}
        self._called: dict[str, str] = {}
        for name in sizes_mib:
            self.renew(name)
        self.worker = Seat(folder, "worker", "worker.sock")
        self._seats = [self.worker]

    def renew(self, *disks: str) -> None:
        """Have other devices for disks, empty ones.

        What was mounted stays in use for a while if somebody has cloned the namespace meanwhile.
        """
        for name in disks:
            self._drop(name)
            self._count += 1
            file = self.stage.folder / f"{name}-{self._count}"
            with file.open("wb") as opened:
                opened.truncate(self._sizes_mib[name] * MIB)
            self.disks[name] = Loop(file, attach(file, "--partscan"))

    def _drop(self, name: str) -> None:
        self._called.pop(name, None)
        if name in self.disks:
            one = self.disks.pop(name)
            run("/usr/sbin/losetup", "--detach", one.device)
            one.file.unlink()

    def called(self, disk: str) -> str:
        """The words by which a disk is asked for."""
        if disk not in self._called:
            self._called[disk] = called(self.disks[disk])
        return self._called[disk]

    @contextmanager
    def job(self) -> Iterator[subprocess.Popen[bytes]]:
        """Do the job that waits, in a process of its own, which is gone when the block ends."""
        with (self.folder / "stderr").open("ab") as stderr:
            process = subprocess.Popen(
                [*self.argv, "job"], env=self.environment(), stderr=stderr, start_new_session=True
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def sit(self, role: str) -> Seat:
        """Have one of the programs that run restic as well."""
        seat = Seat(self.stage.folder, role, f"storage-{role}.sock")
        self._seats.append(seat)
        return seat

    def close(self) -> None:
        super().close()
        for seat in self._seats:
            seat.close()
        for name in list(self.disks):
            self._drop(name)


@contextmanager
def storage(folder: Path, sizes_mib: dict[str, int]) -> Iterator[Storage]:
    """A daemon with a worker, and disks of these sizes, until the block ends."""
    place = Storage(folder, sizes_mib)
    try:
        yield place
    finally:
        place.close()
