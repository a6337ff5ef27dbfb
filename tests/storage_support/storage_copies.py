"""The storage daemon with the program that copies, and a folder that is declared for copies."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import storage_programs
from storage_daemon import CONFIG, World
from storage_devices import worker_process
from stream_daemon import running

PROGRAM = """
from pathlib import Path
from hostlerd.runtime.server import main
from hostlerd.storage import __main__ as storage
from hostlerd.storage.kernel.doors import Door
from hostlerd.storage.kernel.worker_client import Worker

place = Path({place!r})
Worker.__init__.__defaults__ = (place / "worker.sock",)
Door.__init__.__defaults__ = (place,)
main("storage", storage.build)
"""


@dataclass
class CopyWorld(World):
    """A daemon and its programs. `root` is declared for copies, `place` is not."""

    root: Path
    copier: subprocess.Popen[bytes]

    def kill_copier(self) -> None:
        """Kill the program that copies, and start another one, as systemd would."""
        self.copier.kill()
        self.copier.wait()
        self.copier = start_copier(self.place)


def start_copier(place: Path) -> subprocess.Popen[bytes]:
    """The program that copies, at `storage-copier.sock` of a folder."""
    roots = ("--roots", str(place / "storage.d"))
    return storage_programs.start(place, "copier", "hostlerd.storage.copier", *roots)


@contextmanager
def copy_world(place: Path, root: Path) -> Iterator[CopyWorld]:
    """A daemon with its worker and the program that copies below `root`, until the block ends."""
    (place / "storage.d").mkdir()
    (place / "storage.d/copies.toml").write_text(f'[copies]\nroots = ["{root}"]\n')
    # Between two calls large files are made and compared; no systemd would wake it again.
    (place / "daemon/etc").mkdir(parents=True)
    (place / "daemon/etc/hostler.toml").write_text("idle_s = 3600\n")
    text = PROGRAM.format(place=str(place))
    with worker_process(place) as worker, running(place / "daemon", text) as daemon:
        (place / "storage.sock").symlink_to(place / "daemon/netns.sock")
        (place / "fleet.toml").write_text(f'[hosts.local]\naddress = "unix:{place}"\n')
        (place / "config.toml").write_text(CONFIG)
        made = CopyWorld(place, daemon, worker, root, start_copier(place))
        try:
            yield made
        finally:
            made.copier.terminate()
            made.copier.wait(30)
