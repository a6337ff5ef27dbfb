"""An operator with ssh, and hosts that have Debian and sshd: what `hostler enroll` begins with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hostler import sync
from hostler.api.common.v1 import host_pb2
from hostler.channel import rpc
from hostler.config import Context
from hostler.fleet import Fleet
from hostler.fleet import Host as FleetHost
from hostler.lab.host import Host
from hostler.results import CallFailed

HOSTLER = str(Path(sys.executable).parent / "hostler")
GET_HOST = rpc(host_pb2, "HostService", "GetHost")
DOMAINS = ("netns", "storage", "firewall", "tracing", "ssl")
Done = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Operator:
    """A folder with an ssh key, known hosts, and the client's configuration once `init` was run."""

    folder: Path
    packages: Path

    @classmethod
    def made(cls, folder: Path, packages: Path) -> Operator:
        """Make the folder, with a new ssh key."""
        folder.mkdir(mode=0o700)
        one = cls(folder, packages)
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(one.key)]
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
        one.known.write_text("")
        one.ssh_config.write_text(
            f"UserKnownHostsFile {one.known}\nGlobalKnownHostsFile /dev/null\n"
            f"IdentityFile {one.key}\nIdentitiesOnly yes\n"
        )
        return one

    @property
    def key(self) -> Path:
        return self.folder / "ssh_key"

    @property
    def known(self) -> Path:
        return self.folder / "known_hosts"

    @property
    def ssh_config(self) -> Path:
        return self.folder / "ssh_config"

    @property
    def client(self) -> Path:
        return self.folder / "client"

    @property
    def pki(self) -> Path:
        return self.client / "pki"

    def meet(self, host: Host) -> None:
        """Have root of the host take our ssh key, and know the host by what it says itself."""
        host.run(["install", "-d", "-m700", "/root/.ssh"])
        host.put("/root/.ssh/authorized_keys", self.key.with_suffix(".pub").read_text(), 0o600)
        shown = host.run(["cat", "/etc/ssh/ssh_host_ed25519_key.pub"]).stdout.split()[:2]
        with self.known.open("a") as file:
            file.write(f"{host.ipv4} {' '.join(shown)}\n")

    @property
    def environment(self) -> dict[str, str]:
        config = {"HOSTLER_CONFIG": str(self.client / "config.toml"), "HOME": str(self.folder)}
        return {**os.environ, **config}

    def run(self, *words: str, status: int | None = 0) -> Done:
        """Run the command as this operator."""
        done = subprocess.run(
            [HOSTLER, *words],
            env=self.environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=600,
        )
        if status is not None:
            assert done.returncode == status, f"{words}: {done.stdout}{done.stderr}"
        return done

    def record(self, *words: str, status: int = 0) -> dict[str, Any]:
        """Run it with -o json; answer what it prints."""
        told: dict[str, Any] = json.loads(self.run("-o", "json", *words, status=status).stdout)
        return told

    def words(self, name: str, address: str, *more: str) -> list[str]:
        """The words that enroll a host."""
        return [
            *("enroll", name, address, "-F", str(self.ssh_config)),
            *("--packages", str(self.packages), *more),
        ]

    def enroll(self, host: Host, *more: str, status: int = 0, name: str = "") -> Done:
        """Enroll a host under its name, or another."""
        return self.run("--yes", *self.words(name or host.name, host.ipv4, *more), status=status)

    def cut(self, host: Host, step: str, then: Callable[[], bool] | None = None) -> bool:
        """Enroll a host, and be killed with all that we started as soon as a step begins.

        With `then`, as soon as that is so after it.
        """
        argv = [HOSTLER, "--yes", *self.words(host.name, host.ipv4)]
        with subprocess.Popen(
            argv,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            assert process.stderr is not None
            for line in process.stderr:
                if step in line:
                    while then is not None and not then() and process.poll() is None:
                        time.sleep(0.005)
                    running = process.poll() is None
                    os.killpg(process.pid, signal.SIGKILL)
                    return running
            return False

    def refused(self, name: str, address: str, *more: str) -> str:
        """The reason for which a host is not enrolled; what to do is said with it."""
        done = self.run("--plan", *self.words(name, address, *more), status=1)
        assert "What to do: " in done.stderr
        return done.stderr.partition("[")[2].partition("]")[0]


@contextmanager
def changed(host: Host, path: str, content: str, mode: int) -> Iterator[None]:
    """Another file in the place of one of the host's, for a while."""
    host.run(["mv", path, f"{path}.kept"])
    try:
        host.put(path, content, mode)
        yield
    finally:
        host.run(["mv", f"{path}.kept", path])


def ask_as(
    certificate: Path, key: Path, operator: Operator, host: FleetHost, domain: str
) -> tuple[str, str]:
    """Ask a door who it is, as the owner of a pair; its answer's code and reason."""
    context = Context(
        "thief",
        trust_domain="lab",
        ca=operator.pki / "ca.pem",
        certificate=certificate,
        key=key,
        fleet=operator.client / "fleet.toml",
    )
    client = sync.Client(sync.aio.Client(context, Fleet((host,)), timeout_s=30, record=False))
    try:
        with client.session(host) as session:
            session.call(GET_HOST.at(domain), host_pb2.GetHostRequest())
    except CallFailed as failed:
        return failed.error.code, failed.error.reason
    return "OK", ""
