"""The storage daemon and the worker of a guest, with points at which each can be killed.

They are the package's own code in the package's own units, with what storage_points.py puts around
it; systemd starts anew what was killed.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from hosts_witness import code_tree
from journal_stage import eventually
from vm_guest import Guest
from vm_suite import Suite

_TESTS = Path(__file__).parents[1]
_FOLDER = "/usr/local/lib/hostler-points"
_START = """
import runpy, sys
sys.path[:0] = [{code!r}, {folder!r}]
runpy.run_path({folder!r} + "/storage_points.py", run_name="__main__")
"""
_DROP_IN = """
[Service]
Environment=JOURNAL_POINTS={points}
ExecStart=
ExecStart=/usr/bin/python3 -IS {folder}/start.py {words}
"""
_SLOW_S = 120.0
_PORT = 7442


@dataclass
class GuestPoints:
    """The points of one program of a guest."""

    guest: Guest
    role: str
    unit: str
    points: str
    owner: str
    words: str

    def arm(self, words: str) -> None:
        """Have the program do that at its points; empty words disarm it."""
        left = [f"{self.points}/{name}" for name in ("arm", "seen", "reached", "go")]
        self.guest.run(["rm", "-f", *left])
        if words:
            text = words if words == "count" else f"{words} {time.monotonic_ns()}"
            self.guest.put(f"{self.points}/new", text)
            self.guest.run(["mv", f"{self.points}/new", f"{self.points}/arm"])

    def seen(self) -> list[str]:
        """The points that were counted."""
        return self.guest.run(["cat", f"{self.points}/seen"], check=False).stdout.splitlines()

    def shown(self, name: str) -> int:
        """A number that systemd has of its unit."""
        argv = ["systemctl", "show", "--value", f"--property={name}", self.unit]
        return int(self.guest.run(argv).stdout)

    @property
    def deaths(self) -> int:
        """What grows each time that it is started."""
        return self.shown("ExecMainStartTimestampMonotonic")

    def install(self) -> None:
        """Put the points around it."""
        text = _DROP_IN.format(points=self.points, folder=_FOLDER, words=self.words)
        self.guest.run(["mkdir", "-p", f"/etc/systemd/system/{self.unit}.d"])
        self.guest.put(f"/etc/systemd/system/{self.unit}.d/points.conf", text)


class GuestPlace(GuestPoints):
    """The daemon as somebody outside calls it, and its worker."""

    def __init__(self, suite: Suite, guest: Guest) -> None:
        unit, points = "hostler-storage.service", "/run/hostler-storage/points"
        super().__init__(guest, "daemon", unit, points, "hostler-storage", "daemon - storage")
        self._suite, self._since = suite, 0
        self.worker = GuestPoints(
            *(guest, "worker", "hostler-storage-worker.service", "/run/storage-points", "root"),
            "worker -",
        )
        guest.run(["mkdir", "-p", _FOLDER])
        for part in ("runtime_support/journal_points.py", "storage_support/storage_points.py"):
            source = _TESTS / part
            guest.put(f"{_FOLDER}/{source.name}", source.read_text())
        guest.put(f"{_FOLDER}/start.py", _START.format(code=code_tree(guest), folder=_FOLDER))
        for one in (self, self.worker):
            one.install()
        guest.run(["systemctl", "daemon-reload"], timeout_s=_SLOW_S)
        guest.run(["systemctl", "stop", self.unit, self.worker.unit], timeout_s=_SLOW_S)
        self.start()
        for one in (self, self.worker):
            guest.run(["install", "-d", "-o", one.owner, one.points])

    def called(self, disk: str) -> str:
        """The words by which a disk is asked for."""
        return f"serial-{disk}"

    def arm(self, words: str) -> None:
        """Have the daemon do that at its points."""
        super().arm(words)
        self._since = self.deaths

    def start(self) -> None:
        """Have the daemon run."""
        self.guest.wake("storage")

    def lives(self) -> bool:
        """Whether the daemon runs."""
        return self.shown("MainPID") != 0

    def kill(self) -> None:
        """Kill the daemon now."""
        self.guest.run(["systemctl", "kill", "--signal=KILL", self.unit], check=False)

    def wait(self) -> int:
        """Wait until it is killed, and there anew."""
        eventually(lambda: self.deaths > self._since, _SLOW_S)
        return -9

    def audit(self) -> list[dict[str, Any]]:
        """The records of the audit log, as they lie on disk."""
        said = self.guest.read("/var/log/hostler/storage/audit.jsonl")
        return [json.loads(line) for line in said.splitlines()]

    def journals(self) -> list[str]:
        """What is left of journals of changes that are not over."""
        folders = ["/var/lib/hostler/storage/journal", "/run/hostler-storage/journal"]
        return self.guest.run(["find", *folders, "-type", "f"], check=False).stdout.split()

    def channel(self, user: str = "") -> grpc.Channel:
        """A new channel by TLS; it does not try again by itself."""
        pki = self._suite.config.parent / "pki"
        path = pki / "users" / (user or "admin")
        credentials = grpc.ssl_channel_credentials(
            (pki / "ca.pem").read_bytes(),
            path.with_suffix(".key").read_bytes(),
            path.with_suffix(".pem").read_bytes(),
        )
        options = [
            ("grpc.ssl_target_name_override", self.guest.name),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_retries", 0),
        ]
        port = self.guest.ports()[_PORT]
        return grpc.secure_channel(f"127.0.0.1:{port}", credentials, options)
