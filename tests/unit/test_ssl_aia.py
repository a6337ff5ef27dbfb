"""Issuers that are fetched: thirteen ways in which what AIA points to is good or not; bounds."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from certificates import Spec, ca, der, leaf, made, pem
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from http_files import Server, serving

from hostler.core.ssl.candidates import FetchFailed
from hostler.core.ssl.certificate import Certificate
from hostler.core.ssl.fetch import HttpFetcher
from hostler.core.ssl.judge import Judged, judge
from hostler.core.ssl.verdict import Code


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as found:
        yield found


@dataclass
class World:
    """A root, a root that is older and signed it too, an inner CA, and what is served of them."""

    server: Server
    root: Spec
    inner: Spec

    def leaf(self, *paths: str, issuer: Spec | None = None) -> Spec:
        uris = [p if ":" in p else self.server.uri(p) for p in paths]
        return leaf(issuer or self.inner, aia=uris)


@pytest.fixture(scope="module")
def world(server: Server) -> World:
    root, old = ca("AIA Root"), ca("AIA Old Root")
    inner = ca("AIA Inner", root, aia=[server.uri("/root.der")])
    cross = ca("AIA Root", old, aia=[server.uri("/old.der")])
    first = ca("AIA Loop A", ca("AIA Loop B"), aia=[server.uri("/b.der")])
    second = ca("AIA Loop B", ca("AIA Loop A"), aia=[server.uri("/a.der")])
    server.file("/root.der", der(root))
    server.file("/old.der", der(old))
    server.file("/inner.der", der(inner))
    server.file("/inner.pem", pem(inner))
    both = [made(cross), made(inner)]
    server.file("/inner.p7c", pkcs7.serialize_certificates([made(inner)], Encoding.DER))
    server.file("/inner.p7b", pkcs7.serialize_certificates([made(inner)], Encoding.PEM))
    server.file("/cross.p7c", pkcs7.serialize_certificates(both, Encoding.DER))
    server.file("/other.der", der(ca("AIA Inner", root, key="another key")))
    server.file("/html", b"<html>log in first</html>")
    server.file("/a.der", der(first))
    server.file("/b.der", der(second))
    server.file("/big", b"\0" * (3 << 20))
    server.answers["/drip"] = b"HTTP/1.0 200 OK\r\n\r\n"
    server.answers["/drip-head"] = b"HTTP/1.0 200 OK\r\nX: "
    server.drips |= {"/drip", "/drip-head"}
    return World(server, root, inner)


def asked(world: World, wanted: Spec, **more: object) -> Judged:
    read = Certificate.read
    return judge(
        read(der(wanted)), [], [read(der(world.root))], fetch=HttpFetcher(max_s=1.0),
        name="www.example.com", **more,  # type: ignore[arg-type]
    )  # fmt: skip


LOOP = ca("AIA Loop A", ca("AIA Loop B"))
GOOD = {
    "der": ("/inner.der",),
    "pem": ("/inner.pem",),
    "pkcs7": ("/inner.p7c",),
    "pkcs7 pem": ("/inner.p7b",),
    "pkcs7 with a cross-signed root": ("/cross.p7c",),
    "second of two URIs": ("/absent", "/inner.der"),
}
BAD = {
    "no AIA": ((), None, ""),
    "another key of the same name": (("/other.der",), Code.SIGNATURE_INVALID, ""),
    "a page in place of it": (("/html",), Code.ISSUER_NOT_FOUND, "neither PEM nor DER"),
    "drips": (("/drip",), Code.ISSUER_NOT_FOUND, "did not answer in time"),
    "file scheme": (("file:///etc/hostname",), Code.ISSUER_NOT_FOUND, "only http: is fetched"),
    "loop": (("/a.der",), Code.LOOP, ""),
    "too large": (("/big",), Code.ISSUER_NOT_FOUND, "more than 1048576 bytes"),
}


@pytest.mark.parametrize("case", GOOD)
def test_what_is_pointed_to_completes_the_path(world: World, case: str) -> None:
    judged = asked(world, world.leaf(*GOOD[case]))
    assert judged.verdict.ok, judged.verdict.reasons
    assert judged.best is not None
    assert [c.data for c in judged.best.certificates[1:]] == [der(world.inner), der(world.root)]
    assert [c.data for c in judged.added] == [der(world.inner)]


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_complete_it_is_named(world: World, case: str) -> None:
    paths, code, fault = BAD[case]
    issuer = LOOP if case == "loop" else None
    judged = asked(world, world.leaf(*paths, issuer=issuer))
    assert not judged.verdict.ok
    found = {r.code for path in judged.rejected for r in path.reasons}
    assert (code or Code.ISSUER_NOT_FOUND) in found
    assert not fault or any(fault in fetched.fault for fetched in judged.fetches)


def test_nothing_is_fetched_where_what_was_given_is_enough(world: World) -> None:
    before = len(world.server.requests)
    wanted = world.leaf("/inner.der")
    read = Certificate.read
    judged = judge(
        read(der(wanted)), [read(der(world.inner))], [read(der(world.root))], fetch=HttpFetcher()
    )
    assert judged.verdict.ok
    assert (judged.fetches, judged.added) == ((), ())
    assert len(world.server.requests) == before


def test_a_uri_is_asked_once_however_many_point_to_it(world: World) -> None:
    before = len(world.server.requests)
    asked(world, world.leaf("/other.der", "/other.der"))
    assert len(world.server.requests) - before == 1


@pytest.mark.parametrize("path", ["/drip", "/drip-head"])
def test_a_drip_does_not_move_the_deadline(world: World, path: str) -> None:
    uri, ended = world.server.uri(path), threading.Event()

    def fetch() -> None:
        with pytest.raises(FetchFailed, match="in time"):
            HttpFetcher(max_s=60)(uri, 0.5)
        ended.set()

    threading.Thread(target=fetch, daemon=True).start()
    # The server would go on for good: an end at all is the deadline's.
    assert ended.wait(30)


def test_all_fetches_together_have_one_deadline(world: World) -> None:
    wanted = world.leaf("/drip", "/drip-head", "/drip?2", "/inner.der")
    judged = asked(world, wanted, within_s=0.5)
    assert not judged.verdict.ok
    assert "not fetched: no time is left" in [fetched.fault for fetched in judged.fetches]


def test_a_host_whose_name_is_never_found_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    hang = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: [hang.wait(60)][:0])
    with pytest.raises(FetchFailed, match="not found in time"):
        HttpFetcher()("http://ca.example/x", 0.2)
    hang.set()


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("https://127.0.0.1/x", "only http:"),
        ("ldap://127.0.0.1/x", "only http:"),
        ("ftp://127.0.0.1/x", "only http:"),
        ("gopher://127.0.0.1/x", "only http:"),
        ("http://user:secret@127.0.0.1/x", "credentials"),
        ("http:///x", "no host"),
        ("http://127.0.0.1:99999/x", "no URI"),
        ("http://127.0.0.1/a b", "no URI"),
        ("http://127.0.0.1/\r\nX: y", "no URI"),
        ("http://169.254.169.254/latest/meta-data", "not asked"),
        ("http://[fe80::1]/x", "not asked"),
        ("http://[::ffff:169.254.169.254]/x", "not asked"),
        ("http://0.0.0.0/x", "not asked"),
        ("http://239.1.1.1/x", "not asked"),
        ("", "no URI"),
    ],
)
def test_what_is_not_fetched(uri: str, words: str) -> None:
    with pytest.raises(FetchFailed, match=words):
        HttpFetcher()(uri, 5)


@pytest.mark.parametrize(
    ("head", "body", "words"),
    [
        ("HTTP/1.0 301 Moved\r\nLocation: http://127.0.0.1/\r\n", b"", "redirects"),
        ("HTTP/1.0 500 Oops\r\n", b"", "answers 500"),
        ("SSH-2.0-OpenSSH_9.2\r\n", b"", "does not speak HTTP"),
        ("HTTP/1.0 200 OK\r\nContent-Length: 9000\r\n", b"short", "early"),
        ("HTTP/1.0 200 OK\r\n" + "X: y\r\n" * 500, b"", "does not speak HTTP"),
    ],
)
def test_answers_that_are_refused(server: Server, head: str, body: bytes, words: str) -> None:
    server.file("/odd", body, head)
    with pytest.raises(FetchFailed, match=words):
        HttpFetcher()(server.uri("/odd"), 10)


def test_a_server_that_keeps_the_connection_open_is_not_waited_for(server: Server) -> None:
    server.file("/open", b"body")
    server.stays_open.add("/open")
    assert HttpFetcher(max_s=30)(server.uri("/open"), 30) == b"body"


def test_a_body_in_chunks_is_put_together(server: Server) -> None:
    head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
    server.file("/chunks", b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", head)
    assert HttpFetcher()(server.uri("/chunks"), 10) == b"abcde"


def test_a_request_tells_nothing_of_who_asks(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A proxy of the environment would be somebody who is told.
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    server.file("/seen", b"x")
    HttpFetcher()(server.uri("/seen"), 10)
    host = f"127.0.0.1:{server.port}"
    assert server.requests[-1].decode() == (
        f"GET /seen HTTP/1.0\r\nHost: {host}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    )
