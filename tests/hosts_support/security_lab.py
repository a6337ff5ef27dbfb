"""What the proofs on real hosts have in common: the command, doors, journals, refusals."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from hostler.lab.host import Host
from hostler.lab.lab import Lab

HOSTLER = str(Path(sys.executable).parent / "hostler")
CONFIGURATION = "/etc/hostler/hostler.toml"
PORTS = {"netns": 7441, "firewall": 7443, "tracing": 7444, "ssl": 7445, "storage": 7442}
DOMAINS = tuple(PORTS)
# systemd's message "a start job for a unit has ended well"; see systemd's catalog.
STARTED = "39f53479d3a045ac8e11786248231fbf"


def hostler(lab: Lab, *args: str) -> str:
    """Run the command as a user would; answer its output. Fails the test if it fails."""
    env = {**os.environ, "HOSTLER_CONFIG": str(lab.config)}
    argv = [HOSTLER, *args]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{argv}: {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout


def push(lab: Lab, *selectors: str) -> None:
    """Push the bundle last signed to every door of the selected hosts, or of all."""
    chosen = [word for name in selectors or ("all",) for word in ("-H", name)]
    hostler(lab, *chosen, "--yes", "policy", "push")


def audit(lab: Lab, host: Host, domain: str, identity: str = "") -> list[dict[str, Any]]:
    """The last records of a door's audit log, as the command shows them to an admin."""
    words = ["-H", host.name, "-o", "json", "audit", "tail", "--domain", domain, "-n", "1000"]
    answers = json.loads(hostler(lab, *words, "--identity", identity))
    assert [a["ok"] for a in answers] == [True], answers
    records: list[dict[str, Any]] = answers[0]["result"].get("records", [])
    return records


@dataclass
class Journal:
    """What a host's journal says from now on."""

    host: Host

    def __post_init__(self) -> None:
        shown = self.host.run(["journalctl", "--show-cursor", "-n0", "-q"]).stdout
        self.cursor = shown.rpartition("-- cursor: ")[2].strip()

    def _read(self, *matches: str) -> list[dict[str, Any]]:
        """The entries since then that have all of these fields, each as NAME=VALUE."""
        self.host.run(["journalctl", "--sync", "-q"])
        # With matches of its own, journalctl leaves out the first entry that is after the cursor.
        argv = ["journalctl", "-q", "-o", "json", f"--after-cursor={self.cursor}"]
        wanted = dict(match.split("=", 1) for match in matches)
        entries = [json.loads(line) for line in self.host.run(argv).stdout.splitlines()]
        return [e for e in entries if wanted.items() <= {k: str(v) for k, v in e.items()}.items()]

    def starts(self, domain: str) -> int:
        """How often systemd has started the daemon."""
        return len(self._read(f"MESSAGE_ID={STARTED}", f"UNIT=hostler-{domain}.service"))

    def text(self, domain: str) -> str:
        """What the daemon wrote."""
        lines = self._read(f"_SYSTEMD_UNIT=hostler-{domain}.service")
        return "\n".join(str(line["MESSAGE"]) for line in lines)

    def text_of_all(self, beginning: str) -> str:
        """What all units have written whose names begin so."""
        units = ((str(line.get("_SYSTEMD_UNIT", "")), line) for line in self._read())
        return "\n".join(
            f"{unit}: {line['MESSAGE']}" for unit, line in units if unit.startswith(beginning)
        )


def stop(host: Host) -> None:
    """Have the daemons end, so that the next call wakes new ones; the sockets stay."""
    host.run(["systemctl", "stop", *(f"hostler-{domain}.service" for domain in DOMAINS)])


@contextmanager
def idle_time(hosts: Sequence[Host], idle_s: float) -> Iterator[None]:
    """Configure the hosts' idle timeout for a while."""
    before = {host.name: host.run(["cat", CONFIGURATION]).stdout for host in hosts}
    try:
        for host in hosts:
            text = re.sub(r"(?m)^idle_s *=.*$", f"idle_s = {idle_s}", before[host.name])
            assert f"idle_s = {idle_s}" in text
            host.put(CONFIGURATION, text)
            stop(host)
        yield
    finally:
        for host in hosts:
            host.put(CONFIGURATION, before[host.name])
            stop(host)


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, in files."""

    certificate: Path
    key: Path

    @classmethod
    def of(cls, pki: Path, user: str) -> Pair:
        return cls(pki / "users" / f"{user}.pem", pki / "users" / f"{user}.key")


def channel(lab: Lab, host: Host, domain: str, pair: Pair | None) -> grpc.Channel:
    """A channel to a door, with somebody's certificate or none."""
    credentials = grpc.ssl_channel_credentials(
        (lab.pki / "ca.pem").read_bytes(),
        pair.key.read_bytes() if pair else None,
        pair.certificate.read_bytes() if pair else None,
    )
    options = [
        ("grpc.ssl_target_name_override", host.name),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_retries", 0),
    ]
    return grpc.secure_channel(f"{host.ipv4}:{PORTS[domain]}", credentials, options)


@dataclass(frozen=True)
class Refusal:
    """How a call was refused; `reason` is that of its details, empty if it has none."""

    code: str
    reason: str
    message: str


def refusal(error: grpc.RpcError) -> Refusal:
    """Read an error and its details."""
    assert isinstance(error, grpc.Call)
    info = error_details_pb2.ErrorInfo()
    status = status_pb2.Status()
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status.ParseFromString(bytes(value))
    for detail in status.details:
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
    return Refusal(error.code().name, info.reason, error.details() or "")
