"""Chains built and written where they are served: reader, installer, daemon and a real server."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner, Result
from http_files import Server as Web
from http_files import serving
from ssl_pki import Pair, ec_key, make
from ssl_reader import reader
from ssl_servers import Installer, Nginx, Poller, running
from stream_daemon import Daemon
from stream_daemon import running as daemon_running

from hostler.api.ssl.v1 import chain_pb2 as pb
from hostler.api.ssl.v1 import chain_pb2_grpc, deployment_pb2, deployment_pb2_grpc
from hostler.cli.main import cli

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]
PROGRAM = """
from pathlib import Path
from hostlerd.runtime.server import main
from hostlerd.ssl.__main__ import build
from hostlerd.ssl.kernel.installer_client import Installer
from hostlerd.ssl.kernel.reading import Reader

Installer.__init__.__defaults__ = (Path({installer!r}),)
Reader.__init__.__defaults__ = (Path({reader!r}),)
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


@dataclass
class Host:
    """Reader, installer and daemon, and a web server that has the issuer's certificate."""

    place: Path
    installer: Installer
    daemon: Daemon
    web: Web
    root: Pair
    ca: Pair
    leaf: Pair


@dataclass
class World(Host):
    """A folder of the test's own on the host, and an nginx that may serve what is there."""

    files: Path
    nginx: Nginx

    def call(self, user: str, method: str, **fields: Any) -> Any:
        """Call a method as a user. Raises grpc.RpcError."""
        with self.daemon.channel(user) as channel:
            request = getattr(pb, f"{method}Request")(**fields)
            return getattr(chain_pb2_grpc.ChainServiceStub(channel), method)(
                request, timeout=90, wait_for_ready=True
            )

    def hostler(self, *words: str | Path) -> Result:
        """Run the command, as root of this machine."""
        env = {"HOSTLER_CONFIG": str(self.place / "config.toml")}
        return CliRunner().invoke(cli, ["-H", "local", *map(str, words)], env=env)

    def deploy(self) -> None:
        """Have `web` in place with its leaf alone, before any server runs."""
        files = self.files
        (files / "key.pem").write_bytes(self.leaf.key_pem)
        (files / "full.pem").write_bytes(self.leaf.pem)
        server = deployment_pb2.DeployedServer(
            kind="nginx", unit=Nginx.unit, listeners=[f"127.0.0.1:{self.nginx.port}"]
        )
        one = deployment_pb2.Deployment(
            name="web",
            subject_names=["a.test"],
            key=deployment_pb2.DeployedFile(path=str(files / "key.pem")),
            full_chain=deployment_pb2.DeployedFile(path=str(files / "full.pem")),
            servers=[server],
        )
        request = deployment_pb2.ApplyDeploymentRequest(deployment=one)
        with self.daemon.channel("olga") as channel:
            stub = deployment_pb2_grpc.DeploymentServiceStub(channel)
            stub.ApplyDeployment(request, timeout=90, wait_for_ready=True)

    def openssl_verifies(self) -> bool:
        """What a client says that knows the root and fetches nothing."""
        said = subprocess.run(
            [
                *("/usr/bin/openssl", "s_client", "-connect", f"127.0.0.1:{self.nginx.port}"),
                *("-servername", "a.test", "-verify_return_error", "-verify_hostname", "a.test"),
                *("-CAfile", self.place / "root.pem"),
            ],
            input=b"",
            capture_output=True,
            check=False,
        )
        return said.returncode == 0 and b"Verify return code: 0 (ok)" in said.stdout


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    place = tmp_path_factory.mktemp("host")
    for folder in ("ssl", "reader", "daemon/etc"):
        (place / folder).mkdir(parents=True)
    installer = Installer(place)
    installer.configure(place / "ssl")
    installer.start()
    (place / "daemon/etc/hostler.toml").write_text("[ssl]\nfetch_issuers = true\n")
    program = PROGRAM.format(
        installer=str(installer.socket), reader=str(place / "reader/reader.sock")
    )
    root = make("Root", ec_key(), is_ca=True)
    (place / "root.pem").write_bytes(root.pem)
    try:
        with (
            reader(place / "reader", [place / "ssl"]),
            serving() as web,
            daemon_running(place / "daemon", program) as daemon,
        ):
            ca = make("Issuing", ec_key(), root, is_ca=True)
            leaf = make("a.test", ec_key(), ca, names=("a.test",), aia=web.uri("/ca.crt"))
            web.file("/ca.crt", ca.der)
            (place / "ssl.sock").symlink_to(place / "daemon/netns.sock")
            (place / "fleet.toml").write_text(f'[hosts.local]\naddress = "unix:{place}"\n')
            (place / "config.toml").write_text(CONFIG)
            yield Host(place, installer, daemon, web, root, ca, leaf)
    finally:
        assert installer.process
        installer.process.terminate()
        installer.process.wait(20)


@pytest.fixture
def world(host: Host, tmp_path: Path) -> Iterator[World]:
    files = host.place / "ssl" / tmp_path.name
    files.mkdir()
    nginx = Nginx(tmp_path, files)
    host.installer.configure(host.place / "ssl", nginx, served_within_s=20)
    host.web.requests.clear()
    yield World(**{f.name: getattr(host, f.name) for f in fields(host)}, files=files, nginx=nginx)
    with host.daemon.channel("olga") as channel:
        stub = deployment_pb2_grpc.DeploymentServiceStub(channel)
        stub.DeleteDeployment(deployment_pb2.DeleteDeploymentRequest(name="web"), timeout=90)
    shutil.rmtree(files)


def state_of(path: Path) -> tuple[bytes, int, int, int]:
    found = path.stat()
    return path.read_bytes(), found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)


def test_an_incomplete_deployment_is_completed_and_seen_served(world: World) -> None:
    world.deploy()
    asked = ("ssl", "chain", "web", "--name", "a.test", "--roots", world.place / "root.pem")
    with running(world.nginx.argv(), world.nginx.port), Poller(world.nginx.port) as poller:
        assert not world.openssl_verifies()
        looked = world.hostler("-o", "json", *asked)
        assert looked.exit_code == 1, looked.stderr
        (told,) = json.loads(looked.stdout)
        report = told["result"]["report"]
        assert report["good"] and not report["ok"]
        assert [each["code"] for each in report["served_faults"]] == ["MISSING"]
        assert {c["client"] for c in report["clients"] if c["ok"]} == {"fetching"}
        # The plan changes nothing, and says what would come.
        planned = world.hostler("--plan", *asked, "--write")
        assert "adds CN=Issuing" in planned.output, planned.output
        assert (world.files / "full.pem").read_bytes() == world.leaf.pem
        done = world.hostler("--yes", *asked, "--write")
        assert done.exit_code == 0, done.output
        assert "2 certificates, the leaf first" in done.stdout
        assert world.openssl_verifies()
        again = world.hostler("--yes", "-o", "json", *asked, "--write")
        assert not json.loads(again.stdout)[0]["result"]["change"]["changed"]
    assert not poller.failures
    assert (world.files / "full.pem").read_bytes() == world.leaf.pem + world.ca.pem


def test_a_chain_that_is_not_served_is_taken_back(world: World) -> None:
    world.deploy()
    before = state_of(world.files / "full.pem")
    other = world.files / "other.pem"
    other.write_bytes(world.leaf.pem)
    # The server reads another file than the deployment says: it never serves what is written.
    world.nginx.certificate = other
    world.nginx.configure()
    world.installer.configure(world.place / "ssl", world.nginx, served_within_s=3)
    with running(world.nginx.argv(), world.nginx.port):
        with pytest.raises(grpc.RpcError) as refused:
            query = pb.ChainQuery(roots_pem=world.root.pem.decode(), fetch=True)
            world.call("olga", "WriteChain", target="web", query=query)
        assert "issuers are not served" in str(refused.value.details())
    assert state_of(world.files / "full.pem") == before


def test_issuers_are_those_of_the_host_or_fetched(world: World) -> None:
    path = world.files / "leaf.pem"
    path.write_bytes(world.leaf.pem)
    roots = world.root.pem.decode()
    query = pb.ChainQuery(path=str(path), roots_pem=roots, fetch=True)
    answer = world.call("vera", "BuildChain", query=query)
    assert answer.report.good and len(world.web.requests) == 1
    assert [each.certificates for each in answer.report.fetches] == [1]
    # What lies on the host needs no fetching, and is no more than a candidate.
    (world.files / "issuing.pem").write_bytes(world.ca.pem)
    sent = pb.ChainQuery(pem=world.leaf.pem.decode(), roots_pem=roots)
    answer = world.call("vera", "BuildChain", query=sent)
    assert answer.report.good and not answer.report.ok and len(world.web.requests) == 1
    assert answer.report.to_serve_pem.encode() == world.leaf.pem + world.ca.pem
    (world.files / "root.pem").write_bytes(world.root.pem)
    answer = world.call("vera", "BuildChain", query=pb.ChainQuery(path=str(path)))
    assert not answer.report.good
    assert [each.code for each in answer.report.reasons] == ["ROOT_NOT_TRUSTED"]


def test_a_chain_file_is_written_where_that_is_allowed(world: World) -> None:
    path = world.files / "served.pem"
    path.write_bytes(world.leaf.pem)
    path.chmod(0o640)
    os.chown(path, 7, 8)
    asked = ("ssl", "chain", path, "--roots", world.place / "root.pem", "--write")
    done = world.hostler("--yes", *asked)
    assert done.exit_code == 0, done.output
    assert state_of(path) == (world.leaf.pem + world.ca.pem, 7, 8, 0o640)
    assert sorted(p.name for p in world.files.iterdir()) == ["served.pem"]
    again = world.hostler("--yes", "-o", "json", *asked)
    assert not json.loads(again.stdout)[0]["result"]["change"]["changed"]
    # A new file, of what is sent.
    (world.place / "here.pem").write_bytes(world.leaf.pem)
    new = world.files / "new.pem"
    asked = ("ssl", "chain", world.place / "here.pem", "--send", *asked[3:], new)
    assert world.hostler("--yes", *asked).exit_code == 0
    assert state_of(new) == (world.leaf.pem + world.ca.pem, 0, 0, 0o644)


def test_what_is_no_chain_of_that_key_is_left_alone(world: World) -> None:
    world.deploy()
    files, outside = world.files, world.place / "outside.pem"
    stranger = make("a.test", ec_key(), world.ca, names=("a.test",))
    for name, data in {
        "both.pem": world.leaf.pem + world.leaf.key_pem,
        "nginx.conf": b"events {}\n",
        "stranger.pem": stranger.pem,
    }.items():
        (files / name).write_bytes(data)
    outside.write_bytes(world.leaf.pem)
    (files / "link.pem").symlink_to(outside)
    query = pb.ChainQuery(
        pem=world.leaf.pem.decode(), roots_pem=world.root.pem.decode(), fetch=True
    )
    before = {p.name: p.read_bytes() for p in files.iterdir()}
    for path, words in (
        (outside, "install_directories"),
        (files / "both.pem", "private key"),
        (files / "nginx.conf", "no file of certificates"),
        (files / "stranger.pem", "another key"),
        (files / "link.pem", "is a link"),
        (files / "full.pem", "deployment web"),
        (files / "none" / "x.pem", "on the way"),
        ("web", "must be left out"),
        ("../web", "must be 1 to 63"),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            world.call("olga", "WriteChain", target=str(path), query=query)
        assert words in str(refused.value.details()) + str(refused.value.trailing_metadata()), path
    with pytest.raises(grpc.RpcError) as denied:
        world.call("vera", "WriteChain", target=str(files / "x.pem"), query=query)
    assert denied.value.code() is grpc.StatusCode.PERMISSION_DENIED
    with pytest.raises(grpc.RpcError) as none:
        distrusting = pb.ChainQuery(pem=world.leaf.pem.decode())
        world.call("olga", "WriteChain", target=str(files / "x.pem"), query=distrusting)
    assert "no good path" in str(none.value.details())
    assert {p.name: p.read_bytes() for p in files.iterdir()} == before
    assert outside.read_bytes() == world.leaf.pem
