"""A whole daemon, a real process with inherited sockets, whose streams are the tests' own.

Its health service is replaced: Watch says nothing more after its first word, or floods if asked
for the service "flood". Callers are grpcio.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from hostler.core.certificates import Validity
from hostler.pki import Authority
from hostlerd.runtime.audit import records

PROGRAM = """
import asyncio
from hostlerd.runtime import health, streams
from hostlerd.runtime.domain import Domain
from hostlerd.runtime.server import main

streams.FIRST_MESSAGE_S = 0.5

async def watch(self, request, context):
    yield health._Answer(status=1)
    while request.service == "flood":
        # Unknown fields of a message are sent along: 64 KiB of them.
        yield health._Answer.FromString(b"\\x08\\x01" + b"\\x7a\\x80\\x80\\x04" + bytes(1 << 16))
    count = int(request.service or 0) if request.service.isdecimal() else 0
    for _ in range(count):
        yield health._Answer(status=1)
    if not count:
        await asyncio.Event().wait()

health.HealthService.Watch = watch
main("netns", lambda runtime: Domain(services=()))
"""
GROUPS = {"alice": "admins", "olga": "operators", "vera": "viewers", "rudi": "viewers"}


@dataclass
class Daemon:
    """The process, its folders, and the authority that its callers are of."""

    root: Path
    authority: Authority
    port: int
    process: subprocess.Popen[bytes]
    program: str = PROGRAM

    def kill_and_start(self) -> None:
        """Kill the daemon; the next one has the same folders and ports."""
        self.process.kill()
        self.process.wait()
        (self.root / "netns.sock").unlink()
        self.process = _start(self.root, self.port, self.program)

    def channel(self, user: str, **options: int) -> grpc.Channel:
        """A channel with a user's certificate."""
        users = self.authority.folder / "users"
        credentials = grpc.ssl_channel_credentials(
            self.authority.ca_pem,
            (users / f"{user}.key").read_bytes(),
            (users / f"{user}.pem").read_bytes(),
        )
        named = [("grpc.ssl_target_name_override", "h1"), ("grpc.use_local_subchannel_pool", 1)]
        return grpc.secure_channel(
            f"127.0.0.1:{self.port}", credentials, [*named, *options.items()]
        )

    def install_bundle(self) -> None:
        """Put the bundle last signed where enrolment puts it, whole at once."""
        target = self.root / "etc/bundle.json"
        new = target.with_suffix(".new")
        shutil.copy(self.authority.folder / "bundle.json", new)
        new.rename(target)

    def outcome(self, user: str, within_s: float = 5.0) -> dict[str, Any]:
        """The last record of a user's stream in the audit log."""
        identity = f"spiffe://test.hostler/user/{user}"
        end = time.monotonic() + within_s
        while True:
            found = [
                r
                for r in records(self.root / "log/audit.jsonl")
                if r.get("identity") == identity and r["method"].endswith("/Watch")
            ]
            if found or time.monotonic() > end:
                return found[-1] if found else {}
            time.sleep(0.05)


@contextmanager
def running(root: Path, program: str = PROGRAM) -> Iterator[Daemon]:
    """Start a daemon with people of every group; `rudi` and `vera` may be taken from it."""
    authority = Authority.create(root / "pki", "test.hostler")
    authority.issue_host("h1", dns_names=["h1"], ip_addresses=["127.0.0.1"])
    for user, group in GROUPS.items():
        authority.issue_user(user)
        authority.grant(user, group)
    for folder in ("etc/pki", "state", "log"):
        (root / folder).mkdir(parents=True)
    (root / "run").mkdir(mode=0o700)
    shutil.copy(root / "pki/ca.pem", root / "etc/pki")
    shutil.copy(root / "pki/hosts/h1.pem", root / "etc/pki/host.pem")
    shutil.copy(root / "pki/hosts/h1.key", root / "etc/pki/host.key")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    daemon = Daemon(root, authority, port, _start(root, port, program), program)
    daemon.install_bundle()
    try:
        yield daemon
    finally:
        daemon.process.terminate()
        daemon.process.wait(20)


def _start(root: Path, port: int, program: str) -> subprocess.Popen[bytes]:
    env = {
        "PATH": os.environ["PATH"],
        "CONFIGURATION_DIRECTORY": str(root / "etc"),
        "STATE_DIRECTORY": str(root / "state"),
        "RUNTIME_DIRECTORY": str(root / "run"),
        "LOGS_DIRECTORY": str(root / "log"),
    }
    if "PYTHONPATH" in os.environ:
        env["PYTHONPATH"] = os.environ["PYTHONPATH"]
    keep = [f"--setenv={key}={value}" for key, value in env.items()]
    argv = ["/usr/bin/systemd-socket-activate", *keep, "-l", f"127.0.0.1:{port}"]
    argv += ["-l", f"{root}/netns.sock", sys.executable, "-c", program]
    with (root / "stderr").open("ab") as stderr:
        process = subprocess.Popen(argv, stderr=stderr)
    end = time.monotonic() + 10
    while not (root / "netns.sock").exists() and time.monotonic() < end:
        time.sleep(0.02)
    return process


def watch(channel: grpc.Channel, service: str = "") -> Any:
    """Open a stream and answer it after its first message."""
    stub = health_pb2_grpc.HealthStub(channel)
    stream = stub.Watch(health_pb2.HealthCheckRequest(service=service), timeout=120)
    assert next(stream).status == health_pb2.HealthCheckResponse.SERVING
    return stream


def end_of(stream: Any) -> tuple[str, str, float]:
    """Read a stream to its end: its code and reason, and how many seconds from now it took."""
    begun = time.monotonic()
    try:
        for _ in stream:
            pass
    except grpc.RpcError:
        pass
    return stream.code().name, reason_of(stream), time.monotonic() - begun


def reason_of(stream: Any) -> str:
    """The reason in the details of a stream that has ended with an error."""
    info, status = error_details_pb2.ErrorInfo(), status_pb2.Status()
    for key, value in stream.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status.ParseFromString(value)
    for detail in status.details:
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
    return str(info.reason)


def brief(authority: Authority, user: str, life_s: float) -> datetime:
    """Issue a certificate that ends soon; answers when."""
    ends = (datetime.now(UTC) + timedelta(seconds=life_s)).replace(microsecond=0)
    authority.issue_user(user, validity=Validity(ends - timedelta(hours=1), ends), renew=True)
    return ends
