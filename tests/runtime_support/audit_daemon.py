"""A whole daemon with a log where the test wants it: a real process behind inherited sockets."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from hostler.pki import Authority
from hostlerd.runtime.audit import AuditLog

DAEMON = """
from hostlerd.runtime.server import Domain, main
main("netns", lambda runtime: Domain(services=()))
"""
# As journald has it, with the socket where the test put it.
WITH_JOURNAL = """
from pathlib import Path
from hostlerd.runtime import audit_journal
audit_journal.SOCKET = Path({socket!r})
"""


@dataclass
class Daemon:
    """A daemon's folders, its authority, and where it listens."""

    root: Path
    logs: Path
    authority: Authority
    port: int
    program: str = DAEMON
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def log(self) -> Path:
        """The log that it writes."""
        return self.logs / "audit.jsonl"

    def channel(self, user: str) -> grpc.Channel:
        """A channel with a user's certificate."""
        users = self.authority.folder / "users"
        credentials = grpc.ssl_channel_credentials(
            self.authority.ca_pem,
            (users / f"{user}.key").read_bytes(),
            (users / f"{user}.pem").read_bytes(),
        )
        options = [("grpc.ssl_target_name_override", "h1"), ("grpc.enable_retries", 0)]
        return grpc.secure_channel(f"127.0.0.1:{self.port}", credentials, options)

    def start(self) -> None:
        """Open the sockets; the first caller starts the daemon."""
        env = {
            "PATH": os.environ["PATH"],
            "CONFIGURATION_DIRECTORY": str(self.root / "etc"),
            "STATE_DIRECTORY": str(self.root / "state"),
            "RUNTIME_DIRECTORY": str(self.root / "run"),
            "LOGS_DIRECTORY": str(self.logs),
        }
        keep = [f"--setenv={key}={value}" for key, value in env.items()]
        argv = ["/usr/bin/systemd-socket-activate", *keep, "-l", f"127.0.0.1:{self.port}"]
        argv += ["-l", f"{self.root}/netns.sock", sys.executable, "-c", self.program]
        (self.root / "netns.sock").unlink(missing_ok=True)
        with (self.root / "stderr").open("ab") as stderr:
            self.process = subprocess.Popen(argv, stderr=stderr)
        for _ in range(100):
            if (self.root / "netns.sock").exists():
                return
            time.sleep(0.05)

    def stop(self) -> None:
        """End it as systemd does."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(20)
            self.process = None


def free_port() -> int:
    """A port that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as s:
        return int(s.getsockname()[1])


@contextmanager
def running(root: Path, logs: Path, config: str = "", program: str = DAEMON) -> Iterator[Daemon]:
    """Run a daemon: alice administers, olga operates, vera looks."""
    authority = Authority.create(root / "pki", "test.hostler")
    authority.issue_host("h1", dns_names=["h1"], ip_addresses=["127.0.0.1"])
    for user, group in (("alice", "admins"), ("olga", "operators"), ("vera", "viewers")):
        authority.issue_user(user)
        authority.grant(user, group)
    etc = root / "etc/pki"
    for folder in (etc, root / "state"):
        folder.mkdir(parents=True)
    logs.mkdir(parents=True, exist_ok=True)
    (root / "run").mkdir(mode=0o700)
    shutil.copy(root / "pki/ca.pem", etc)
    shutil.copy(root / "pki/hosts/h1.pem", etc / "host.pem")
    shutil.copy(root / "pki/hosts/h1.key", etc / "host.key")
    shutil.copy(authority.folder / "bundle.json", root / "etc/bundle.json")
    (root / "etc/hostler.toml").write_text(f"idle_s = 300\n{config}")
    daemon = Daemon(root, logs, authority, free_port(), program)
    daemon.start()
    try:
        yield daemon
    finally:
        daemon.stop()


def write_many(path: Path, count: int) -> None:
    """Fill a log with records as calls leave them."""
    log = AuditLog(path)
    for n in range(count):
        log.write(kind="outcome", n=n, identity="user/a", method="/x/Y", status="OK")
    log.close()
