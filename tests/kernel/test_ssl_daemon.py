"""The daemon itself: who may, what is recorded, and that no key is anywhere in what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from ssl_authority import Authority, pem
from ssl_servers import Installer, Nginx, running, served, wait_until
from stream_daemon import Daemon
from stream_daemon import running as daemon_running

from hostler.api.ssl.v1 import deployment_pb2 as pb
from hostler.api.ssl.v1 import deployment_pb2_grpc

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]
PROGRAM = """
from pathlib import Path
from hostlerd.runtime.server import main
from hostlerd.ssl.__main__ import build
from hostlerd.ssl.kernel.installer_client import Installer

Installer.__init__.__defaults__ = (Path({socket!r}),)
main("ssl", build)
"""
CONFIG = """
current = "here"
[contexts.here]
trust_domain = "test.hostler"
ca = "ca.pem"
certificate = "none.pem"
key = "none.key"
fleet = "fleet.toml"
"""
HOSTLER = Path(sys.executable).with_name("hostler")


@dataclass
class World:
    place: Path
    daemon: Daemon
    installer: Installer
    nginx: Nginx

    def call(self, user: str, method: str, **fields: Any) -> Any:
        """Call a method as a user. Raises grpc.RpcError."""
        with self.daemon.channel(user) as channel:
            stub = deployment_pb2_grpc.DeploymentServiceStub(channel)
            request = getattr(pb, f"{method}Request")(**fields)
            return getattr(stub, method)(request, timeout=90, wait_for_ready=True)

    def hostler(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the command, as root of this machine."""
        return subprocess.run(
            [HOSTLER, "-H", "local", *words],
            env={**os.environ, "HOSTLER_CONFIG": str(self.place / "config.toml")},
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    files = tmp_path / "ssl"
    files.mkdir()
    installer, nginx = Installer(tmp_path), Nginx(tmp_path, files)
    installer.configure(files, nginx, served_within_s=20)
    installer.start()
    try:
        program = PROGRAM.format(socket=str(installer.socket))
        with daemon_running(tmp_path / "daemon", program) as daemon:
            (tmp_path / "ssl.sock").symlink_to(tmp_path / "daemon/netns.sock")
            (tmp_path / "fleet.toml").write_text(f'[hosts.local]\naddress = "unix:{tmp_path}"\n')
            (tmp_path / "config.toml").write_text(CONFIG)
            yield World(tmp_path, daemon, installer, nginx)
    finally:
        assert installer.process
        installer.process.terminate()
        installer.process.wait(20)


def deployment(world: World) -> pb.Deployment:
    files = world.place / "ssl"
    return pb.Deployment(
        name="web",
        subject_names=["a.test"],
        key=pb.DeployedFile(path=str(files / "key.pem")),
        full_chain=pb.DeployedFile(path=str(files / "full.pem")),
    )


def test_who_may_and_what_is_recorded(world: World) -> None:
    authority = Authority("corporate")
    for method in (
        *("ApplyDeployment", "DeleteDeployment", "CreateSigningRequest", "InstallCertificate"),
        *("InstallCertificates", "RenewDeployment", "RevokeDeployedCertificate"),
    ):
        with pytest.raises(grpc.RpcError) as denied:
            world.call("vera", method)
        assert denied.value.code() is grpc.StatusCode.PERMISSION_DENIED, method
    assert not world.call("vera", "ListDeployments").deployments
    world.call("olga", "ApplyDeployment", deployment=deployment(world))
    asked = world.call("olga", "CreateSigningRequest", name="web")
    waiting = (world.installer.state / "keys" / "web").read_bytes()
    text = pem(authority.issue(asked.csr_pem), authority.intermediate)
    done = world.call("olga", "InstallCertificate", name="web", pem=text)
    assert done.change.changed and done.change.audit.seq
    (told,) = world.call("vera", "ListDeployments").deployments
    assert told.installed.names[0].value == "a.test"
    log = (world.daemon.root / "log" / "audit.jsonl").read_bytes()
    records = [json.loads(line) for line in log.splitlines()]
    outcomes = [r for r in records if r.get("kind") == "outcome" and r.get("status") == "OK"]
    assert [name for r in outcomes if "List" not in (name := r["method"].split("/")[-1])] == [
        "ApplyDeployment",
        "CreateSigningRequest",
        "InstallCertificate",
    ]
    # The key is in its file, and in nothing that the daemon ever wrote or said.
    body = waiting.splitlines()[1]
    assert body in (world.place / "ssl" / "key.pem").read_bytes()
    holders = {p for p in world.place.rglob("*") if p.is_file() and body in p.read_bytes()}
    assert holders == {world.place / "ssl" / "key.pem"}
    written = [p for p in world.daemon.root.rglob("*") if p.is_file() and "pki" not in p.parts]
    assert written
    assert not [p for p in written if b"PRIVATE KEY" in p.read_bytes()]


def test_the_commands_from_a_file_to_a_served_certificate(world: World) -> None:
    place, authority = world.place, Authority("corporate")
    (place / "web.toml").write_text(
        'name = "web"\nsubject_names = ["a.test"]\n'
        f'[key]\npath = "{place}/ssl/key.pem"\n[full_chain]\npath = "{place}/ssl/full.pem"\n'
    )
    done = world.hostler("--yes", "ssl", "deployment", "apply", "-f", str(place / "web.toml"))
    assert done.returncode == 0, done.stderr

    def brought() -> Path:
        done = world.hostler("--yes", "-o", "json", "ssl", "csr", "web")
        assert done.returncode == 0, done.stderr
        csr = json.loads(done.stdout)[0]["result"]["csr_pem"]
        path = place / "brought.pem"
        path.write_text(pem(authority.issue(csr), authority.intermediate))
        return path

    done = world.hostler("--yes", "ssl", "install", "web", str(brought()))
    assert done.returncode == 0 and "changed" in done.stdout, done.stderr
    with running(world.nginx.argv(), world.nginx.port):
        with (place / "web.toml").open("a") as file:
            file.write(
                f'[[servers]]\nkind = "nginx"\nunit = "{world.nginx.unit}"\n'
                f'listeners = ["127.0.0.1:{world.nginx.port}"]\n'
            )
        world.hostler("--yes", "ssl", "deployment", "apply", "-f", str(place / "web.toml"))
        before = served(world.nginx.port)
        done = world.hostler("--yes", "ssl", "install", "web", str(brought()))
        assert done.returncode == 0, done.stderr
        assert f"127.0.0.1:{world.nginx.port} yes" in done.stdout
        wait_until(lambda: served(world.nginx.port) != before)
        listed = world.hostler("ssl", "deployment", "list", "--handshake")
        assert listed.returncode == 0
        assert f"127.0.0.1:{world.nginx.port} yes" in listed.stdout
        # What is wrong is said, and leaves everything as it was.
        world.nginx.configure(extra="hostler_no_such_setting;")
        now = served(world.nginx.port)
        done = world.hostler("--yes", "ssl", "install", "web", str(brought()))
        assert done.returncode == 1 and "hostler_no_such_setting" in done.stderr
        assert "everything is as it was before" in done.stderr
        assert served(world.nginx.port) == now
    (place / "key.pem").write_bytes((place / "ssl" / "key.pem").read_bytes())
    refused = world.hostler("--yes", "ssl", "install", "web", str(place / "key.pem"))
    assert refused.returncode == 2 and "is not sent anywhere" in refused.stderr
    done = world.hostler("--yes", "ssl", "deployment", "delete", "web")
    assert done.returncode == 0 and (place / "ssl" / "key.pem").exists()
