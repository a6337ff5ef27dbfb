"""Compromised keys replaced by one command: of an ACME server, of one that did not issue, of a CA.

Three deployments share one nginx; what is served, what is revoked and how often nginx was reloaded
is told by others than Hostler.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from authority_place import Place as Signer
from authority_place import openssl
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from ssl_authority import Authority, pem
from ssl_pebble import Pebble, pebble
from ssl_reader import reader
from ssl_servers import Installer, Nginx, Poller, running, served
from stream_daemon import Daemon
from stream_daemon import running as daemon_running

from hostler.api.ssl.v1 import deployment_pb2 as pb
from hostler.api.ssl.v1 import deployment_pb2_grpc

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.timeout(300),
]
# Nobody else's sockets are touched: of what listens on this machine, the test's own nginx counts.
PROGRAM = """
from pathlib import Path
from hostlerd.runtime.server import main
from hostlerd.ssl.__main__ import build
from hostlerd.ssl.kernel.installer_client import Installer
from hostlerd.ssl.kernel.reading import Reader
from hostlerd.ssl.kernel.signer import Signer
from hostlerd.ssl.service.observing import Observer

for kind, path in ((Installer, {installer!r}), (Reader, {reader!r}), (Signer, {signer!r})):
    kind.__init__.__defaults__ = (Path(path),)
whole = Observer.endpoints

def own(self, *, again):
    every, made, unseen = whole(self, again=again)
    return [each for each in every if each.listener.endswith(":{port}")], made, unseen

Observer.endpoints = own
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
#: By deployment: its name, and whether an ACME server is asked.
SITES = {"web": ("a.test", True), "brought": ("b.test", True), "inner": ("n.example.net", False)}


class World:
    """A host with an nginx of three names, and all that one command needs of it."""

    def __init__(self, place: Path, stack: ExitStack) -> None:
        self.place, self.files, self.webroot = place, place / "ssl", place / "www"
        for folder in (self.files, self.webroot, *(place / n for n in ("ca", "acme", "reading"))):
            folder.mkdir()
        self.webroot.chmod(0o755)
        self.nginx, self.installer = Nginx(place, self.files), Installer(place)
        more = f'webroots = ["{self.webroot}"]'
        self.installer.configure(self.files, self.nginx, more=more, served_within_s=20)
        self.installer.start()
        stack.callback(self._end)
        self.signer = Signer(place / "ca")
        self.signer.start("--idle", "600")
        stack.callback(self.signer.kill)
        self.signer.init()
        self.pebble: Pebble = stack.enter_context(pebble(place / "acme"))
        stack.enter_context(reader(place / "reading", [self.files]))
        program = PROGRAM.format(
            installer=str(self.installer.socket), reader=str(place / "reading/reader.sock"),
            signer=str(self.signer.socket), port=self.nginx.port,
        )  # fmt: skip
        self.daemon: Daemon = stack.enter_context(daemon_running(place / "daemon", program))
        toml = f'[ssl]\nacme_ca_file = "{self.pebble.roots}"\n'
        (place / "daemon/etc/hostler.toml").write_text(toml)
        (place / "ssl.sock").symlink_to(place / "daemon/netns.sock")
        (place / "fleet.toml").write_text(f'[hosts.local]\naddress = "unix:{place}"\n')
        (place / "config.toml").write_text(CONFIG)

    def _end(self) -> None:
        assert self.installer.process
        self.installer.process.terminate()
        self.installer.process.wait(20)

    def configure(self) -> None:
        """A server of nginx for each name, and one that answers http-01."""
        self.nginx.certificate, self.nginx.key = self.files / "web.pem", self.files / "web.key"
        others = "".join(
            f"server {{ listen 127.0.0.1:{self.nginx.port} ssl; server_name {name}; return 204; "
            f"ssl_certificate {self.files}/{short}.pem; "
            f"ssl_certificate_key {self.files}/{short}.key; }}\n"
            for short, (name, _) in SITES.items()
            if short != "web"
        )
        http = f"server {{ listen 127.0.0.1:{self.pebble.http_port}; root {self.webroot}; }}\n"
        self.nginx.configure(extra=http + others)

    def put(self, short: str, certificate: str, key: bytes) -> None:
        """Put a first certificate in place by hand."""
        (self.files / f"{short}.pem").write_text(certificate)
        (self.files / f"{short}.key").write_bytes(key)
        (self.files / f"{short}.key").chmod(0o600)

    def leaf(self, short: str) -> x509.Certificate:
        return x509.load_pem_x509_certificates((self.files / f"{short}.pem").read_bytes())[0]

    def deployment(self, short: str) -> pb.Deployment:
        name, by_acme = SITES[short]
        made = pb.Deployment(
            name=short,
            subject_names=[name],
            key=pb.DeployedFile(path=str(self.files / f"{short}.key")),
            full_chain=pb.DeployedFile(path=str(self.files / f"{short}.pem")),
        )
        made.servers.add(
            kind="nginx", unit=self.nginx.unit, listeners=[f"127.0.0.1:{self.nginx.port}"]
        )
        if by_acme:
            made.acme.directory_url = self.pebble.directory_url
            made.acme.webroot = str(self.webroot)
        return made

    def call(self, method: str, **fields: Any) -> Any:
        """Call a method as an operator. Raises grpc.RpcError."""
        with self.daemon.channel("olga") as channel:
            stub = deployment_pb2_grpc.DeploymentServiceStub(channel)
            request = getattr(pb, f"{method}Request")(**fields)
            return getattr(stub, method)(request, timeout=90, wait_for_ready=True)

    def execute(self, *words: str) -> tuple[int, str]:
        """Run the command, as root of this machine."""
        done = subprocess.run(
            [
                *(HOSTLER, "-H", "local", "--yes", "--timeout", "100"),
                *("ssl", "compromise", "execute", *words),
            ],
            env={
                **os.environ,
                "HOSTLER_CONFIG": str(self.place / "config.toml"),
                "XDG_STATE_HOME": str(self.place / "state"),
            },
            capture_output=True,
            text=True,
            timeout=250,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def reloads(self) -> int:
        return (self.place / "error.log").read_text().count("signal 1 (SIGHUP) received")

    def shown(self) -> dict[str, str]:
        return {short: served(self.nginx.port, name) for short, (name, _) in SITES.items()}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(tmp_path, stack)


def key_pem(key: Any) -> bytes:
    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def spki(certificate: x509.Certificate) -> str:
    form = PublicFormat.SubjectPublicKeyInfo
    der = certificate.public_key().public_bytes(Encoding.DER, form)
    return hashlib.sha256(der).hexdigest()


def begin(world: World) -> None:
    """Put certificates in place by hand: of a stranger, and of the CA."""
    for short in ("web", "brought"):
        leaf, key = Authority("stranger").issue_for(SITES[short][0])
        world.put(short, pem(leaf), key_pem(key))
    request = world.place / "ca"
    openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-keyout", request / "n.key", "-out", request / "n.csr", "-subj", "/",
            "-addext", "subjectAltName=DNS:n.example.net")  # fmt: skip
    issued = world.signer.issue((request / "n.csr").read_bytes())["issued"]
    (request / "n.der").write_bytes(base64.b64decode(issued["der"]))
    openssl("x509", "-inform", "DER", "-in", request / "n.der", "-out", request / "n.pem")
    world.put("inner", (request / "n.pem").read_text(), (request / "n.key").read_bytes())


def test_keys_of_acme_servers_and_of_the_ca_are_replaced_with_one_reload(world: World) -> None:
    begin(world)
    world.configure()
    with running(world.nginx.argv(), world.nginx.port), Poller(world.nginx.port) as poller:
        for short in SITES:
            world.call("ApplyDeployment", deployment=world.deployment(short))
        world.call("RenewDeployment", name="web", force=True)
        old = {short: world.leaf(short) for short in SITES}
        reloads, was = world.reloads(), world.shown()
        keys = [word for each in old.values() for word in ("--key", spki(each))]
        way = ("--way", "revoke-and-reissue", "--authority", "local", "--profile", "server")
        status, said = world.execute(*keys, *way)
        assert "3 replaced, 2 revoked" in said, said
        # What the ACME server did not issue is replaced, and revoked by people.
        by_hand = re.findall("^by hand: .*", said, re.MULTILINE)
        assert status == 1 and len(by_hand) == 1 and "b.test: revoke" in by_hand[0], said
        assert world.reloads() - reloads == 1
        new = {short: world.leaf(short) for short in SITES}
        now = world.shown()
        assert all(now[short] != was[short] for short in SITES)
        assert not {*map(spki, new.values())} & {*map(spki, old.values())}
        told = {
            short: world.pebble.status(new[short].serial_number) for short in ("web", "brought")
        }
        assert told == {"web": "Valid", "brought": "Valid"}
        assert world.pebble.status(old["web"].serial_number) == "Revoked"
        crl = ("crl", "-inform", "DER", "-in", world.signer.publish / "service.crl", "-noout")
        revoked = openssl(*crl, "-text").upper()
        assert f"{old['inner'].serial_number:X}" in revoked
        assert f"{new['inner'].serial_number:X}" not in revoked
    assert not poller.failures
