"""The daemon of a host of the lab with points at which it can be killed; see journal_points.py.

It is the package's own code in the package's own unit, with what journal_points.py puts around it.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from hosts_witness import code_tree, eventually
from journal_rows import ask

from hostler.api.common.v1 import change_pb2
from hostler.lab.host import Host
from hostler.lab.lab import Lab

FOLDER = "/usr/local/lib/hostler-points"
UNIT = "hostler-netns.service"
POINTS = "/run/hostler-netns/points"
START = """
import runpy, sys
sys.path.insert(0, {code!r})
runpy.run_path({points!r}, run_name="__main__")
"""
DROP_IN = f"""
[Service]
Environment=JOURNAL_POINTS={POINTS}
ExecStart=
ExecStart=/usr/bin/python3 -IS {FOLDER}/start.py netns
"""
DROP_IN_PATH = f"/etc/systemd/system/{UNIT}.d/points.conf"


@dataclass
class Killable:
    """The netns daemon of a host, as somebody outside calls it."""

    lab: Lab
    host: Host

    def channel(self, user: str = "") -> grpc.Channel:
        """A new channel by TLS; it does not try again by itself."""
        path = self.lab.pki / "users" / (user or "admin")
        credentials = grpc.ssl_channel_credentials(
            (self.lab.pki / "ca.pem").read_bytes(),
            path.with_suffix(".key").read_bytes(),
            path.with_suffix(".pem").read_bytes(),
        )
        options = [
            ("grpc.ssl_target_name_override", self.host.name),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_retries", 0),
        ]
        return grpc.secure_channel(f"{self.host.ipv4}:7441", credentials, options)

    def arm(self, words: str) -> None:
        """Have the daemon do that at its points; empty words disarm it."""
        left = [f"{POINTS}/{name}" for name in ("arm", "seen", "reached", "go")]
        self.host.run(["rm", "-f", *left])
        if words:
            self.host.put(f"{POINTS}/new", f"{words} {time.monotonic_ns()}")
            self.host.run(["chmod", "644", f"{POINTS}/new"])
            self.host.run(["mv", f"{POINTS}/new", f"{POINTS}/arm"])

    def count(self) -> None:
        """Have the daemon write down its points."""
        self.arm("")
        self.host.put(f"{POINTS}/arm", "count")
        self.host.run(["chmod", "644", f"{POINTS}/arm"])

    def seen(self) -> list[str]:
        """The points that were counted."""
        return self.host.run(["cat", f"{POINTS}/seen"], check=False).stdout.splitlines()

    def pid(self) -> int:
        """The daemon's PID on its host; 0 while there is none."""
        shown = self.host.run(["systemctl", "show", "--value", "--property=MainPID", UNIT])
        return int(shown.stdout)

    def kill_now(self) -> None:
        """Kill the daemon, and all that it has started."""
        self.host.run(["systemctl", "kill", "--signal=KILL", UNIT], check=False)

    def audit(self) -> list[dict[str, Any]]:
        """The records of the audit log, as they lie on disk."""
        lines = self.host.run(["cat", "/var/log/hostler/netns/audit.jsonl"]).stdout.splitlines()
        return [json.loads(line) for line in lines]

    def journals(self) -> list[str]:
        """What is left of journals that are neither over nor waiting."""
        folders = ["/var/lib/hostler/netns/journal", "/run/hostler-netns/journal"]
        found = self.host.run(["find", *folders, "-type", "f"], check=False).stdout.split()
        return [path for path in found if not path.endswith(".kept")]

    def send(self, method: str, request: Any) -> change_pb2.Change | None:
        """Make a call once; None if no answer came."""
        try:
            change: change_pb2.Change = ask(self, method, request).change
            return change
        except grpc.RpcError as e:
            if e.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
                raise
            return None

    def insist(self, method: str, request: Any) -> change_pb2.Change:
        """Make a call, and again with the same request id, until it is answered."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            answer = self.send(method, request)
            if answer is not None:
                return answer
            time.sleep(0.2)
        raise AssertionError(f"{method}: no answer within a minute")


@contextmanager
def killable(lab: Lab, host: Host) -> Iterator[Killable]:
    """Put the points around the netns daemon of a host, for as long as the block goes on."""
    source = Path(__file__).parents[1] / "runtime_support/journal_points.py"
    code = START.format(code=code_tree(host), points=f"{FOLDER}/points.py")
    host.run(["mkdir", "-p", FOLDER, str(Path(DROP_IN_PATH).parent)])
    host.put(f"{FOLDER}/points.py", source.read_text())
    host.put(f"{FOLDER}/start.py", code)
    host.put(DROP_IN_PATH, DROP_IN)
    host.run(["chmod", "-R", "a+rX", FOLDER])
    _restart(host)
    host.run(["install", "-d", "-o", "hostler-netns", POINTS])
    try:
        yield Killable(lab, host)
    finally:
        host.run(["rm", "-rf", FOLDER, POINTS, DROP_IN_PATH])
        with suppress(OSError):
            _restart(host)


def _restart(host: Host) -> None:
    host.run(["systemctl", "daemon-reload"])
    host.run(["systemctl", "stop", UNIT])
    host.run(["systemctl", "reset-failed", UNIT], check=False)


def with_id(request: Any) -> Any:
    """Give a request an id."""
    request.change.request_id = str(uuid.uuid4())
    return request


def gone(daemon: Killable, before: int) -> None:
    """Wait until a daemon that was killed has gone, and a new one may come."""
    eventually(lambda: daemon.pid() != before)
