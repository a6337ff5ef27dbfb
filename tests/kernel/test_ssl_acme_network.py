"""What ACME servers say beside certificates: wait, come again, not that nonce, renew then."""

from __future__ import annotations

import json
import os
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from ssl_authority import Authority, pem
from ssl_world import World

from hostler.api.ssl.v1 import deployment_pb2 as pb
from hostlerd.ssl.errors import AcmeFailed, AcmeRateLimited
from hostlerd.ssl.kernel.acme_network import NONCES_MOST, seconds
from hostlerd.ssl.plan.deployment import is_due, renew_time

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]
JSON, PROBLEM = "application/json", "application/problem+json"


class Server:
    """An ACME server that never issues: what it says is the test's to choose."""

    def __init__(self, place: Path) -> None:
        self.posts: list[str] = []
        self.bad_nonces = 0
        self.directory: Any = None
        self.refusal: tuple[int, str, dict[str, str]] = (429, "rateLimited", {})
        self.window: tuple[datetime, datetime] | None = None
        authority = Authority("acme https")
        leaf, key = authority.issue_for("localhost")
        own = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (place / "server.pem").write_bytes(own + pem(leaf, authority.intermediate).encode())
        self.roots = place / "roots.pem"
        self.roots.write_text(pem(authority.root))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(place / "server.pem")
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"told": self}))
        self.http.socket = context.wrap_socket(self.http.socket, server_side=True)
        self.url = f"https://localhost:{self.http.server_port}"


class Handler(BaseHTTPRequestHandler):
    """Answers as its server was told to."""

    told: Server

    def answer(self, code: int, body: Any, kind: str = JSON, **more: str) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        headers = {"Content-Type": kind, "Content-Length": str(len(data)), **more}
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Replay-Nonce", "bm9uY2U")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def do_HEAD(self) -> None:
        self.answer(200, {})

    def do_GET(self) -> None:
        if self.path == "/dir":
            names = ("newNonce", "newAccount", "newOrder", "revokeCert", "renewalInfo")
            found = {n: f"{self.told.url}/{n}" for n in names}
            if self.told.window is None:
                del found["renewalInfo"]
            self.answer(200, found if self.told.directory is None else self.told.directory)
        elif self.told.window is not None:
            start, end = (t.strftime("%Y-%m-%dT%H:%M:%SZ") for t in self.told.window)
            self.answer(200, {"suggestedWindow": {"start": start, "end": end}})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.told.posts.append(self.path)
        if self.path == "/newAccount":
            body = {"status": "valid", "contact": []}
            self.answer(201, body, Location=f"{self.told.url}/account/1")
        elif self.told.bad_nonces > 0:
            self.told.bad_nonces -= 1
            word = "urn:ietf:params:acme:error:badNonce"
            self.answer(400, {"type": word, "detail": "no"}, PROBLEM)
        else:
            code, word, more = self.told.refusal
            body = {"type": f"urn:ietf:params:acme:error:{word}", "detail": "not now"}
            self.answer(code, body, PROBLEM, **more)

    def log_message(self, format: str, *args: Any) -> None:
        return


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "acme-server").mkdir()
    made = Server(tmp_path / "acme-server")
    thread = threading.Thread(target=made.http.serve_forever)
    thread.start()
    yield made
    made.http.shutdown()
    made.http.server_close()
    thread.join()


@pytest.fixture
def world(tmp_path: Path, server: Server) -> Iterator[World]:
    made = World(tmp_path)
    made.serve(server.roots)
    yield made
    assert made.installer.process
    made.installer.process.terminate()
    made.installer.process.wait(20)


def deployment(world: World, server: Server) -> pb.Deployment:
    made = world.deployment(acme=pb.AcmeSource(directory_url=f"{server.url}/dir"))
    del made.servers[:]
    return made


@pytest.mark.parametrize("as_date", [False, True])
async def test_who_says_when_to_come_again_is_not_asked_before(
    world: World, server: Server, as_date: bool
) -> None:
    when = datetime.now(UTC) + timedelta(seconds=1000)
    told = format_datetime(when, usegmt=True) if as_date else "1000"
    server.refusal = (429, "rateLimited", {"Retry_After": told})
    await world.apply(deployment(world, server))
    with pytest.raises(AcmeRateLimited, match="rateLimited: not now") as limited:
        await world.ask("RenewDeployment", name="web")
    assert abs(int(limited.value.metadata["retry_time"]) - when.timestamp()) < 100
    posts = len(server.posts)
    with pytest.raises(AcmeRateLimited, match="before"):
        await world.ask("RenewDeployment", name="web", force=True)
    assert len(server.posts) == posts == 2
    assert not is_due(world.kernel.known("web"), datetime.now(UTC))


async def test_nonces_are_refused_many_times_but_not_for_ever(world: World, server: Server) -> None:
    await world.apply(deployment(world, server))
    server.refusal = (403, "unauthorized", {})
    server.bad_nonces = 7
    with pytest.raises(AcmeFailed, match="unauthorized: not now"):
        await world.ask("RenewDeployment", name="web")
    assert server.posts.count("/newOrder") == 8
    server.bad_nonces = 1000
    with pytest.raises(AcmeFailed, match="badNonce"):
        await world.ask("RenewDeployment", name="web")
    assert server.posts.count("/newOrder") == 8 + 2 * NONCES_MOST
    (told,) = (await world.ask("ListDeployments")).deployments
    assert "badNonce" in told.problem


async def test_the_server_says_when_to_renew(world: World, server: Server) -> None:
    now = datetime.now(UTC)
    server.window = (now - timedelta(days=2), now - timedelta(days=1))
    await world.apply(deployment(world, server))
    key = ec.generate_private_key(ec.SECP256R1())
    own = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (world.files / "key.pem").write_bytes(own)
    (world.files / "full.pem").write_text(pem(_with_authority_key(key)))
    known = world.kernel.known("web")
    # By its age alone it would be good for two months.
    assert not is_due(known, now)
    attempt = world.kernel.advise(known)
    assert server.window[0].timestamp() <= attempt.advised <= server.window[1].timestamp()
    known = world.kernel.known("web")
    assert renew_time(known) == datetime.fromtimestamp(attempt.advised, UTC)
    assert is_due(known, now)


async def test_a_certificate_that_does_not_name_its_issuers_key_has_no_advice(
    world: World, server: Server
) -> None:
    now = datetime.now(UTC)
    server.window = (now - timedelta(days=2), now - timedelta(days=1))
    await world.apply(deployment(world, server))
    leaf, key = Authority("own").issue_for("a.test")
    own = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (world.files / "key.pem").write_bytes(own)
    (world.files / "full.pem").write_text(pem(leaf))
    assert world.kernel.advise(world.kernel.known("web")).advised == 0


@pytest.mark.parametrize("directory", [[], {}, {"newNonce": 7}, "x"])
async def test_a_server_that_speaks_something_else_is_a_failure_that_is_told(
    world: World, server: Server, directory: Any
) -> None:
    server.directory = directory
    await world.apply(deployment(world, server))
    with pytest.raises(AcmeFailed):
        await world.ask("RenewDeployment", name="web")
    (told,) = (await world.ask("ListDeployments")).deployments
    assert told.problem.startswith("the ACME server: ")


def _with_authority_key(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    """A certificate that names its issuer's key, by which the server is asked about it."""
    issuer, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=90))
        .add_extension(identifier, critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("a.test")]), critical=True)
        .sign(issuer, hashes.SHA256())
    )


def test_what_retry_after_may_be() -> None:
    assert seconds("7") == 7
    assert seconds("9" * 30) == 30 * 24 * 3600
    assert seconds(None) == seconds("soon") == seconds("-1") == 3600
    assert seconds("Thu, 01 Jan 1970 00:00:00 GMT") == 0
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert 0 < seconds(later) <= 90
