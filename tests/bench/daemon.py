"""A real daemon on this machine: its folders, its certificates, and systemd's part played.

systemd-socket-activate(1) holds the listening sockets and turns into the daemon when the first
caller comes, as a `.socket` unit starts its service.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from rounds import wait_until

from hostler.pki import Authority

ACTIVATE = "/usr/bin/systemd-socket-activate"
NETNS = ("-m", "hostlerd.netns")
USER = "bench"
CHANNEL_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
)
# Channels live as long as the daemon idles: no benchmark shall see one renewed.
LONG_LIVED = "idle_s = 300\n[limits]\nconnections = 4096\nconnections_per_peer = 4096\n"


@dataclass
class Daemon:
    """The folders of one daemon, where it listens, and its process once it is started.

    `wrap` is a command that becomes another one, such as `ip netns exec NAME`.
    """

    folder: Path
    authority: Authority
    name: str
    port: int
    run: Path
    arguments: Sequence[str] = NETNS
    environment: dict[str, str] = field(default_factory=dict)
    wrap: Sequence[str] = ()
    process: subprocess.Popen[bytes] | None = None

    @property
    def errors(self) -> str:
        """What the daemon wrote to its standard error, its journal."""
        path = self.folder / "stderr"
        return path.read_text(errors="replace") if path.exists() else ""

    def listen(self) -> None:
        """Open the sockets; the first caller starts the daemon."""
        folders = {
            "CONFIGURATION_DIRECTORY": "etc",
            "STATE_DIRECTORY": "state",
            "LOGS_DIRECTORY": "log",
        }
        env = {name: str(self.folder / sub) for name, sub in folders.items()}
        env |= {
            "RUNTIME_DIRECTORY": str(self.run),
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            **self.environment,
        }
        local = self.folder / "local.sock"
        local.unlink(missing_ok=True)
        argv = [*self.wrap, ACTIVATE, *(f"--setenv={name}={value}" for name, value in env.items())]
        argv += ["-l", f"0.0.0.0:{self.port}", "-l", str(local), sys.executable, *self.arguments]
        with (self.folder / "stderr").open("ab") as stderr:
            self.process = subprocess.Popen(argv, stderr=stderr, stdout=stderr)
        # The sockets are opened in order, so the last one's file says that all listen.
        wait_until(local.exists, 10, f"sockets of {self.name}")

    def stop(self) -> None:
        """End the daemon, running or still waiting for its first caller."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)
        self.process = None

    def channel(self, port: int | None = None) -> grpc.aio.Channel:
        """Open a channel over mTLS to the daemon, or to another port that it has opened."""
        return grpc.aio.secure_channel(
            f"127.0.0.1:{port or self.port}",
            credentials(self.authority),
            options=[*CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", self.name)],
        )


def credentials(authority: Authority) -> grpc.ChannelCredentials:
    """Answer the benchmark's own credentials, of an administrator."""
    user = authority.folder / "users" / USER
    return grpc.ssl_channel_credentials(
        authority.ca_pem,
        user.with_suffix(".key").read_bytes(),
        user.with_suffix(".pem").read_bytes(),
    )


def free_port() -> int:
    """Answer a TCP port that nobody has at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def folder() -> Iterator[Path]:
    """Give a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="hostler-bench-") as name:
        yield Path(name)


def make_authority(place: Path) -> Authority:
    """Make a CA with one user, an administrator, and a signed bundle that says so."""
    authority = Authority.create(place / "pki", "bench.hostler")
    authority.issue_user(USER)
    authority.grant(USER, "admins")
    if not authority.bundle_path.exists():
        authority.write_bundle()
    return authority


def prepare(
    place: Path,
    authority: Authority,
    name: str = "h1",
    names: Sequence[str] = (),
    configuration: str = LONG_LIVED,
    run: Path | None = None,
) -> Daemon:
    """Write the folders of a host called `name` below `place`; `names` are further names of it.

    `run` is the runtime directory to make, else it is below `place` too.
    """
    home = place / name
    pki = home / "etc/pki"
    for path in (pki, home / "state", home / "log"):
        path.mkdir(parents=True)
    run = run or home / "run"
    run.mkdir(mode=0o700)
    authority.issue_host(name, dns_names=names)
    shutil.copy(authority.ca_path, pki / "ca.pem")
    shutil.copy(authority.folder / f"hosts/{name}.pem", pki / "host.pem")
    shutil.copy(authority.folder / f"hosts/{name}.key", pki / "host.key")
    shutil.copy(authority.bundle_path, home / "etc/bundle.json")
    (home / "etc/hostler.toml").write_text(configuration)
    return Daemon(home, authority, name, free_port(), run)


@contextmanager
def listening(daemon: Daemon) -> Iterator[Daemon]:
    """Hold the daemon's sockets open and end it afterwards; a failure shows what it wrote."""
    daemon.listen()
    try:
        yield daemon
    except Exception as error:
        error.add_note(f"{daemon.name} wrote:\n{daemon.errors[-4000:]}")
        raise
    finally:
        daemon.stop()


def require_root() -> None:
    """Raise PermissionError unless the benchmark runs as root."""
    if os.geteuid() != 0:
        raise PermissionError("the benchmarks make namespaces and hosts: run them as root")
