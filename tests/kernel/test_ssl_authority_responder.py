"""The responder as a process: CRL and OCSP by HTTP, for openssl, curl and callers of no good."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from authority_place import Place, csr, openssl, pem, running

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


class Responding:
    """A signer, the responder of what it publishes, and certificates to ask about."""

    def __init__(self, place: Place, port: int) -> None:
        self.place = place
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.root = place.root / "root.pem"
        openssl(
            *("x509", "-inform", "DER", "-in", place.publish / "service.cer", "-out", self.root)
        )

    def issue(self) -> tuple[str, Path]:
        answer = self.place.issue(csr(self.place.root, "DNS:a.example.net"))
        serial = answer["issued"]["serial"]
        return serial, pem(answer, self.place.root / f"{serial}.pem")

    def ocsp(self, certificate: Path) -> str:
        return openssl(
            *("ocsp", "-issuer", self.root, "-CAfile", self.root, "-cert", certificate),
            *("-url", f"{self.url}/ocsp"),
        )

    def raw(self, data: bytes, *, end: bool = True) -> bytes:
        """Send bytes and answer all that comes back before the end."""
        with socket.create_connection(("127.0.0.1", self.port), 30) as peer:
            told = b""
            with suppress(ConnectionResetError, BrokenPipeError):
                peer.sendall(data)
                if end:
                    peer.shutdown(socket.SHUT_WR)
                while part := peer.recv(65536):
                    told += part
            return told


@contextmanager
def responder(place: Place) -> Iterator[int]:
    """Start it on a socket that is listening already, as systemd does."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        port = listener.getsockname()[1]
        argv = [sys.executable, "-m", "hostlerd.authority", "responder"]
        # What systemd does between fork and exec: the socket as descriptor 3, and who it is for.
        wrapper = (
            "import os,sys;os.dup2(int(sys.argv[1]),3);"
            "os.environ.update(LISTEN_FDS='1',LISTEN_PID=str(os.getpid()));"
            "os.execv(sys.argv[2],sys.argv[2:])"
        )
        process = subprocess.Popen(
            [
                *(sys.executable, "-c", wrapper, str(listener.fileno()), *argv),
                *("--publish", str(place.publish)),
            ],
            pass_fds=[listener.fileno(), 3] if listener.fileno() != 3 else [3],
        )
    try:
        yield port
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Responding]:
    with running(tmp_path_factory.mktemp("responder")) as place:
        place.init("example.test")
        with responder(place) as port:
            yield Responding(place, port)


def test_openssl_asks_and_sees_a_revocation_at_once(up: Responding) -> None:
    serial, certificate = up.issue()
    told = up.ocsp(certificate)
    assert "Response verify OK" in told
    assert f"{certificate}: good" in told
    assert "no nonce" not in told
    up.place.ask("revoke", serial=serial, reason="key_compromise")
    told = up.ocsp(certificate)
    assert f"{certificate}: revoked" in told
    assert "Reason: keyCompromise" in told


def test_what_was_never_issued_is_unknown(up: Responding) -> None:
    told = openssl(
        *("ocsp", "-issuer", up.root, "-CAfile", up.root, "-serial", "0x1234"),
        *("-url", f"{up.url}/ocsp"),
    )
    assert "0x1234: unknown" in told


def test_a_refresh_that_writes_the_status_anew_is_seen(up: Responding) -> None:
    serial, certificate = up.issue()
    up.place.ask("revoke", serial=serial, reason="superseded")
    subprocess.run(up.place.argv("refresh"), check=True, timeout=60)
    assert f"{certificate}: revoked" in up.ocsp(certificate)
    _, other = up.issue()
    assert f"{other}: good" in up.ocsp(other)


def test_curl_gets_crl_and_issuer_and_ocsp_by_get(up: Responding) -> None:
    serial, certificate = up.issue()
    up.place.ask("revoke", serial=serial, reason="superseded")
    out = up.place.root / "out"
    curl = ["/usr/bin/curl", "-sS", "--max-time", "30", "-o", str(out), "-w", "%{content_type}"]

    def get(path: str) -> str:
        done = subprocess.run([*curl, up.url + path], check=True, capture_output=True, text=True)
        return done.stdout

    assert get("/service.crl") == "application/pkix-crl"
    text = openssl("crl", "-inform", "DER", "-in", out, "-noout", "-text", "-CAfile", up.root)
    assert "verify OK" in text
    assert serial.upper() in text
    assert get("/service.cer") == "application/pkix-cert"
    openssl("x509", "-inform", "DER", "-in", out, "-out", up.place.root / "got.pem")
    assert (up.place.root / "got.pem").read_text() == up.root.read_text()
    request = up.place.root / "request"
    about = ("-issuer", up.root, "-cert", certificate, "-no_nonce")
    openssl("ocsp", *about, "-reqout", request)
    text = openssl("base64", "-A", "-in", request)
    for path in (f"/ocsp/{text}", f"/ocsp/{text.replace('/', '%2F').replace('+', '%2B')}"):
        assert get(path) == "application/ocsp-response"
        told = openssl("ocsp", "-respin", out, "-CAfile", up.root, *about)
        assert f"{certificate}: revoked" in told


def status(answer: bytes) -> int:
    return int(answer.split(b" ")[1])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"GET /service.key HTTP/1.1\r\n\r\n", 404),
        (b"GET /service.ocsp HTTP/1.1\r\n\r\n", 404),
        (b"GET /../hostler.toml HTTP/1.1\r\n\r\n", 404),
        (b"GET /%2e%2e/authority/service.key HTTP/1.1\r\n\r\n", 404),
        (b"POST /service.crl HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 404),
        (b"DELETE /service.crl HTTP/1.1\r\n\r\n", 405),
        (b"POST /ocsp HTTP/1.1\r\n\r\n", 411),
        (b"POST /ocsp HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (b"POST /ocsp HTTP/1.1\r\nContent-Length: 4097\r\n\r\n", 413),
        (b"POST /ocsp HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /ocsp HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", 400),
        (b"POST /ocsp HTTP/1.1\r\nContent-Length: 9\r\n\r\nx", 400),
        (b"GET /service.crl HTTP/2\r\n\r\n", 400),
        (b"GET http://x/ HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n folded: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\na\0b: x\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01", 400),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n", 431),
    ],
)
def test_what_is_no_request_of_ours_is_answered_by_a_status(
    up: Responding, data: bytes, expected: int
) -> None:
    assert status(up.raw(data)) == expected


def test_ocsp_requests_that_are_none_are_malformed(up: Responding) -> None:
    garbage = secrets.token_bytes(100)
    post = b"POST /ocsp HTTP/1.1\r\nContent-Length: 100\r\n\r\n" + garbage
    for data in (post, b"GET /ocsp/%00 HTTP/1.1\r\n\r\n", b"GET /ocsp/abc HTTP/1.1\r\n\r\n"):
        answer = up.raw(data)
        assert status(answer) == 200
        # RFC 6960, 4.2.1: malformedRequest is 1.
        assert answer.endswith(b"\x30\x03\x0a\x01\x01")


def test_the_keys_of_the_authority_are_not_among_what_it_reads(up: Responding) -> None:
    published = {path.name for path in up.place.publish.iterdir()}
    assert published == {
        f"{issuer}.{suffix}"
        for issuer in ("service", "identity")
        for suffix in ("cer", "crl", "status", "ocsp")
    }
    for issuer in ("service", "identity"):
        own = (up.place.folder / f"{issuer}.key").read_bytes()
        assert own.splitlines()[1] not in (up.place.publish / f"{issuer}.ocsp").read_bytes()
        text = openssl("x509", "-in", up.place.publish / f"{issuer}.ocsp", "-noout", "-text")
        assert "OCSP Signing" in text
        assert "OCSP No Check" in text
